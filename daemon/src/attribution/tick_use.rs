//! A tick's use, resolved to accounts: what counts as use in a domain's scope, and how much. Knows no energy.

use super::accounts::Charge;
use crate::model::domain::{Scope, Zone};
use crate::model::source::PciAddress;
use crate::model::units::Nanos;
use crate::model::usage::{Counted, LostUse};

/// Who ran, and who used GPUs.
#[derive(Default)]
pub(super) struct TickUse {
    pub charges: Vec<Charge>,
    pub lost: Vec<LostUse>,
    pub counted: Counted,
    /// Whether it is known who ran.
    pub known: bool,
    /// By GPU; a charge's `on_cpu` is its time on the GPU.
    pub gpus: Vec<GpuCharges>,
}

/// Who used one GPU.
pub(super) struct GpuCharges {
    pub gpu: PciAddress,
    pub charges: Vec<Charge>,
    /// Time for which it worked for nobody who is known.
    pub lost: Nanos,
    pub estimated: bool,
    /// Whose it is, where it is a VM's alone: how busy it is, only that VM knows.
    pub owner: Option<Charge>,
}

impl TickUse {
    fn gpu(&self, scope: Scope) -> Option<&GpuCharges> {
        let Scope::Gpu(gpu) = scope else { return None };
        self.gpus.iter().find(|one| one.gpu == gpu)
    }

    /// Whether it is known who used what a scope covers.
    pub fn knows(&self, scope: Scope) -> bool {
        match scope {
            Scope::Gpu(_) => self.gpu(scope).is_some(),
            Scope::Package(_) | Scope::Machine => self.known,
        }
    }

    /// Whether it is known how busy what a scope covers was.
    pub fn measures_load(&self, scope: Scope) -> bool {
        self.gpu(scope).is_none_or(|gpu| gpu.owner.is_none())
    }

    /// Whether shares in a scope are by a rule.
    pub fn estimated(&self, scope: Scope) -> bool {
        self.gpu(scope).is_some_and(|gpu| gpu.estimated)
    }

    /// Charges in a scope, with what they count for in a zone.
    pub fn of(&self, scope: Scope, zone: Zone) -> impl Iterator<Item = (&Charge, u64)> {
        let charges = match scope {
            Scope::Gpu(_) => {
                self.gpu(scope).map_or(&[][..], |gpu| gpu.owner.as_ref().map_or(&gpu.charges, std::slice::from_ref))
            }
            Scope::Package(_) | Scope::Machine => &self.charges,
        };
        let counted = self.counted;
        charges.iter().filter(move |charge| in_scope(scope, charge)).map(move |charge| {
            (charge, weight(zone, counted, charge.used.on_cpu, charge.used.cycles, charge.used.cache_misses))
        })
    }

    /// Weight of use in a scope that is nobody's.
    pub fn lost(&self, scope: Scope, zone: Zone) -> u64 {
        if let Some(gpu) = self.gpu(scope) {
            return gpu.lost.0;
        }
        let lost = self.lost.iter().filter(|lost| match scope {
            Scope::Package(package) => package == lost.package,
            Scope::Machine => true,
            Scope::Gpu(_) => false,
        });
        lost.map(|lost| weight(zone, self.counted, lost.on_cpu, lost.cycles, lost.cache_misses)).sum()
    }

    /// Time for which what a scope covers was in use.
    pub fn busy(&self, scope: Scope) -> Nanos {
        if let Some(gpu) = self.gpu(scope) {
            return gpu.charges.iter().map(|charge| charge.used.on_cpu).chain([gpu.lost]).sum();
        }
        let charged = self.charges.iter().filter(|charge| in_scope(scope, charge)).map(|charge| charge.used.on_cpu);
        let lost = self.lost.iter().filter(|lost| match scope {
            Scope::Package(package) => package == lost.package,
            Scope::Machine => true,
            Scope::Gpu(_) => false,
        });
        charged.chain(lost.map(|lost| lost.on_cpu)).sum()
    }
}

/// Whether a charge is a scope's. Those of a GPU are kept apart by GPU.
fn in_scope(scope: Scope, charge: &Charge) -> bool {
    match scope {
        Scope::Package(own) => own == charge.package,
        Scope::Machine | Scope::Gpu(_) => true,
    }
}

/// What use counts for in a zone: memory by cache misses, GPUs by time on them, all else by cycles, which see frequency and SMT; by
/// time where those are not counted.
fn weight(zone: Zone, counted: Counted, on_cpu: Nanos, cycles: u64, cache_misses: u64) -> u64 {
    match zone {
        Zone::Gpu => on_cpu.0,
        Zone::Dram if counted.cache_misses => cache_misses,
        _ if counted.cycles => cycles,
        _ => on_cpu.0,
    }
}
