//! The use of one tick by account, and its weight in the scope and zone of a domain. Computes no energy.

use super::accounts::Charge;
use crate::model::billing::SharedBy;
use crate::model::domain::{Scope, Zone};
use crate::model::source::PciAddress;
use crate::model::units::Nanos;
use crate::model::usage::{Counted, LostUse, Used};

/// Use of CPUs and GPUs in one tick.
#[derive(Default)]
pub(super) struct TickUse {
    /// Use of CPUs by process, cgroup and package.
    pub charges: Vec<Charge>,
    /// Use of CPUs that cannot be attributed.
    pub lost: Vec<LostUse>,
    /// Which hardware counters (cycles, cache misses) the usage source counts.
    pub counted: Counted,
    /// Whether CPU time is shared by although these are counted.
    pub by_time: bool,
    /// Whether the usage source gave a sample. If not, the use of CPUs is unknown.
    pub known: bool,
    /// Use by GPU.
    pub gpus: Vec<GpuCharges>,
}

/// Use of one GPU in one tick.
pub(super) struct GpuCharges {
    pub gpu: PciAddress,
    /// Use by process; `used.on_cpu` is the time for which it kept the GPU busy.
    pub charges: Vec<Charge>,
    /// Time for which the GPU was busy for unknown processes.
    pub lost: Nanos,
    /// Whether shares follow a rule (the sizes of MIG slices) and not observed use.
    pub estimated: bool,
    /// The VM that the GPU is passed through to, which is charged for all of it. Only that VM knows how busy the GPU
    /// is.
    pub owner: Option<Charge>,
}

impl TickUse {
    fn gpu(&self, scope: Scope) -> Option<&GpuCharges> {
        let Scope::Gpu(gpu) = scope else { return None };
        self.gpus.iter().find(|one| one.gpu == gpu)
    }

    /// What is counted and may be shared by.
    fn shared_by(&self) -> Counted {
        if self.by_time { Counted::default() } else { self.counted }
    }

    /// What shares in a zone are by.
    pub fn by(&self, zone: Zone) -> SharedBy {
        let counted = self.shared_by();
        match zone {
            Zone::Gpu => SharedBy::Time,
            Zone::Dram if counted.cache_misses => SharedBy::CacheMisses,
            _ if counted.cycles => SharedBy::Cycles,
            _ => SharedBy::Time,
        }
    }

    /// Whether use in a scope is known.
    pub fn knows(&self, scope: Scope) -> bool {
        match scope {
            Scope::Gpu(_) => self.gpu(scope).is_some(),
            Scope::Package(_) | Scope::Machine => self.known,
        }
    }

    /// Whether the load of a scope is known. The load of a GPU that is passed through to a VM is not.
    pub fn measures_load(&self, scope: Scope) -> bool {
        self.gpu(scope).is_none_or(|gpu| gpu.owner.is_none())
    }

    /// Whether shares in a scope follow a rule and not observed use.
    pub fn estimated(&self, scope: Scope) -> bool {
        self.gpu(scope).is_some_and(|gpu| gpu.estimated)
    }

    /// Charges in a scope, each with its weight in a zone.
    pub fn of(&self, scope: Scope, zone: Zone) -> impl Iterator<Item = (&Charge, u64)> {
        let charges = match scope {
            Scope::Gpu(_) => {
                self.gpu(scope).map_or(&[][..], |gpu| gpu.owner.as_ref().map_or(&gpu.charges, std::slice::from_ref))
            }
            Scope::Package(_) | Scope::Machine => &self.charges,
        };
        let counted = self.shared_by();
        charges
            .iter()
            .filter(move |charge| in_scope(scope, charge))
            .map(move |charge| (charge, weight(zone, counted, &charge.used)))
    }

    /// Weight, in a zone, of the unattributable use in a scope.
    pub fn lost(&self, scope: Scope, zone: Zone) -> u64 {
        match self.gpu(scope) {
            Some(gpu) => gpu.lost.0,
            None => self.lost_in(scope).map(|lost| weight(zone, self.shared_by(), &lost.used)).sum(),
        }
    }

    /// Busy time of the CPUs of a scope, summed over CPUs; or of its GPU.
    pub fn busy(&self, scope: Scope) -> Nanos {
        self.used(scope).on_cpu
    }

    /// All use in a scope, with what no process accounts for. Of a GPU: its busy time.
    pub fn used(&self, scope: Scope) -> Used {
        if let Some(gpu) = self.gpu(scope) {
            return Used::on_cpu(gpu.charges.iter().map(|charge| charge.used.on_cpu).chain([gpu.lost]).sum());
        }
        let charged = self.charges.iter().filter(|charge| in_scope(scope, charge)).map(|charge| &charge.used);
        charged.chain(self.lost_in(scope).map(|lost| &lost.used)).fold(Used::default(), |mut sum, used| {
            sum.add(used);
            sum
        })
    }

    fn lost_in(&self, scope: Scope) -> impl Iterator<Item = &LostUse> {
        self.lost.iter().filter(move |lost| match scope {
            Scope::Package(package) => package == lost.package,
            Scope::Machine => true,
            Scope::Gpu(_) => false,
        })
    }
}

/// Whether a charge is in a scope. Charges of GPUs need no test, as they are stored by GPU.
fn in_scope(scope: Scope, charge: &Charge) -> bool {
    match scope {
        Scope::Package(own) => own == charge.package,
        Scope::Machine | Scope::Gpu(_) => true,
    }
}

/// Weight of use in a zone. GPUs: time for which the GPU was busy. Memory: cache misses. All other zones: cycles, which
/// reflect frequency and SMT. Where these are not counted: time on a CPU, in nanoseconds.
fn weight(zone: Zone, counted: Counted, used: &Used) -> u64 {
    match zone {
        Zone::Gpu => used.on_cpu.0,
        Zone::Dram if counted.cache_misses => used.cache_misses,
        _ if counted.cycles => used.cycles,
        _ => used.on_cpu.0,
    }
}
