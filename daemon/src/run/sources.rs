//! From a configuration to a sampler that has not ticked yet: meters, usage, totals. Binds no door, runs nothing.

use crate::attribution::{CoreConfig, State};
use crate::config::{Config, UsageSource};
use crate::entity::managers::Managers;
use crate::entity::{Entities, cgroups, path};
use crate::export::dbus;
use crate::export::guest::{self, Guests, HostFacts};
use crate::meter::{Meter, Roots, Topology, estimate, host_channel, open_all};
use crate::model::domain::Zone;
use crate::model::snapshot::{CpuInfo, Host};
use crate::model::source::{Health, PackageId, SourceRole, SourceState, Stamp};
use crate::run::meters::Meters;
use crate::run::record::{Head, Recorder};
use crate::run::sampler::{Ended, Observers, Progress, Sampler};
use crate::run::store::Store;
use crate::sys::proc_pid;
use crate::usage::bpf::{BpfOptions, BpfUsage};
use crate::usage::procfs::ProcfsUsage;
use crate::usage::{self, Usage};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// What the sampler is told by parts that do not belong to it.
#[derive(Clone)]
pub struct Others {
    /// Managers of VMs.
    pub managers: Arc<Managers>,
    /// How the exports are that may not work.
    pub exports: Arc<watch::Sender<Arc<[SourceState]>>>,
}

impl Default for Others {
    fn default() -> Self {
        Self { managers: Arc::default(), exports: Arc::new(watch::Sender::new([].into())) }
    }
}

/// Opens every source; the sampler has not ticked yet. It goes on from the sampler before, where there was one in this run, else from what is
/// kept. Whatever is taken from the one before is taken when nothing can fail any more.
///
/// # Errors
/// Where the totals cannot be kept, or eBPF is asked for by name and cannot be had.
pub fn open(config: &Config, record: Option<&Path>, others: &Others, earlier: Option<&mut Ended>) -> Result<Sampler> {
    let roots = Roots { sysfs: config.sysfs.clone(), procfs: config.procfs.clone() };
    let topology = Topology::read(&roots);
    let (meters, unused) = open_all(&config.meter, &roots, &topology);
    let observers = match earlier.as_deref() {
        Some(Ended { observers: Some(_), .. }) => None,
        _ => Some(open_observers(config, &topology, others)?),
    };
    let boot_id = boot_id(&config.procfs);
    let (store, mut state) = open_store(config)?;
    if let Some(Ended { core, .. }) = earlier.as_deref() {
        state = core.state(&boot_id);
    }
    let head = Head {
        config: CoreConfig {
            host: host(config, &topology, &meters),
            limits: config.limits(),
            idle: config.attribution.idle,
            floors: config.floors(),
            prior_ratio: estimate::idle_to_full_ratio(&topology.model),
            platform: config.attribution.platform.clone(),
        },
        same_boot: !boot_id.is_empty() && state.boot_id == boot_id,
        state,
        now: Stamp::now().monotonic,
    };
    let recorder = record.map(|path| Recorder::create(path, &head)).transpose().context("cannot record")?;
    for domain in config.attribution.idle_watts.keys() {
        // Those that a host, a driver or a BMC tells of may not be known yet; the remainder never is, by a meter.
        let later = domain == "other" || ["guest/", "gpu/", "hwmon/"].iter().any(|source| domain.starts_with(source));
        let known = later || meters.iter().flat_map(|meter| meter.domains()).any(|known| known.id == domain.as_str());
        if !known {
            tracing::warn!(
                "attribution.idle_watts.{domain}: there is no such energy domain now; joulectl status lists those there are"
            );
        }
    }
    let mut core = head.core();
    if let Some(Ended { core: earlier, .. }) = earlier.as_deref() {
        core.follow(earlier);
    }
    let observers = match (observers, earlier) {
        (Some(mut observers), _) => {
            observers.entities.await_series(core.awaited());
            observers
        }
        (None, earlier) => {
            let (earlier, kept) = earlier
                .and_then(|ended| Some((&mut ended.core, ended.observers.take()?)))
                .context("nobody says who ran")?;
            core.keep_entities(earlier);
            kept
        }
    };
    // A host's word may still come.
    if meters.iter().all(|meter| meter.domains().is_empty() && meter.source() != host_channel::SOURCE) {
        tracing::warn!("no meter: there is use without energy");
    }
    Ok(Sampler {
        interval: config.interval.0,
        meters: Meters::new(meters),
        unused,
        observers,
        sysfs: config.sysfs.clone(),
        managers: others.managers.sources(),
        exports: others.exports.subscribe(),
        core,
        store,
        boot_id,
        recorder,
        progress: Progress::default(),
    })
}

/// Opens the sources of use and entities.
fn open_observers(config: &Config, topology: &Topology, others: &Others) -> Result<Observers> {
    let mut unused = Vec::new();
    let entities = Entities::open(&config.procfs, &config.sysfs, Some(others.managers.inventory()));
    let usage = open_usage(config, topology, entities.cgroup2(), &mut unused)?;
    let (gpus, unused_gpus) =
        usage::gpu::open_all(config.usage.gpus, &config.meter.nvml, &config.sysfs, &config.procfs);
    unused.extend(unused_gpus);
    Ok(Observers { usage, gpus, entities, unused })
}

/// Whether those of `old` serve for `new` as well.
pub(super) fn same_observers(old: &Config, new: &Config) -> bool {
    let of = |config: &Config| (config.sysfs.clone(), config.procfs.clone(), config.meter.nvml.clone());
    old.usage == new.usage && of(old) == of(new)
}

fn open_usage(
    config: &Config,
    topology: &Topology,
    cgroup2: Option<&Path>,
    unused: &mut Vec<SourceState>,
) -> Result<Box<dyn Usage>> {
    let packages = packages(topology);
    let mut state = |source: &str, health| {
        unused.push(SourceState::new(source, SourceRole::Usage, health));
    };
    let wanted = "not wanted: source = \"procfs\" in [usage]".to_string();
    let why = if config.usage.source == UsageSource::Procfs {
        state("bpf", Health::Unsupported(wanted.clone()));
        wanted
    } else {
        let options = BpfOptions {
            path: config.usage.path,
            counters: config.usage.counters,
            max_entries: config.usage.max_entries,
            packages: packages.clone(),
        };
        match BpfUsage::open(&options) {
            Ok(usage) => {
                state("procfs", Health::Unsupported("not needed: bpf says more".into()));
                return Ok(Box::new(usage));
            }
            Err(error) if config.usage.source == UsageSource::Bpf => {
                return Err(error).context("source = \"bpf\" in [usage]");
            }
            Err(error) => {
                state("bpf", Health::Failed(error.to_string()));
                "eBPF cannot be used".to_string()
            }
        }
    };
    let usage = ProcfsUsage::open(&config.procfs, cgroup2, &packages, &why).map_err(anyhow::Error::msg)?;
    Ok(Box::new(usage))
}

fn open_store(config: &Config) -> Result<(Option<Store>, State)> {
    let mut notes = Vec::new();
    let (store, state) = Store::open(&config.runtime_dir(), &config.state_dir(), &mut notes)
        .context("totals cannot be kept (run as root, or name a folder with --state-dir)")?;
    for note in notes {
        tracing::warn!("{note}");
    }
    Ok((Some(store), state))
}

/// What the guest channel needs to know of this host.
pub(super) fn guests(config: &Config) -> Guests {
    let boot_id = boot_id(&config.procfs);
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    let (alive, procfs) = (config.procfs.clone(), config.procfs.clone());
    let host = HostFacts {
        machine_id: if machine_id.is_empty() { boot_id.clone() } else { machine_id },
        boot_id,
        idle: config.attribution.idle,
        alive: Arc::new(move |process| proc_pid::process(&alive, process.pid) == Some(process)),
        procfs,
        connections: if config.export.guest.any() { guest::connections() } else { 0 },
    };
    Guests::new(config.export.guest.clone(), host)
}

/// What callers on the bus may ask of a process.
pub(super) fn process_facts(config: &Config) -> dbus::Facts {
    let (of, whose) = (config.procfs.clone(), config.procfs.clone());
    let owner = move |pid| {
        let process = || proc_pid::process(&whose, pid);
        let (before, uids) = (process()?, proc_pid::uids(&whose, pid));
        // A process id may be given anew between two looks.
        (process() == Some(before)).then(|| dbus::Owner { uids, began: before.began() })
    };
    let place = move |pid| {
        let cgroup = cgroups::path_of(&of, pid)?;
        Some(dbus::Place { entities: path::entities(&cgroup), cgroup })
    };
    dbus::Facts {
        place_of: Arc::new(place),
        owner_of: Arc::new(owner),
        machine_id: fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned(),
    }
}

/// Package by CPU number.
fn packages(topology: &Topology) -> Vec<PackageId> {
    let last = topology.cpus.iter().map(|cpu| cpu.processor).max().unwrap_or(0);
    (0..=last).map(|processor| topology.package_of(processor)).collect()
}

fn host(config: &Config, topology: &Topology, meters: &[Box<dyn Meter>]) -> Host {
    let cpu = |cpu: &crate::meter::topology::Cpu| CpuInfo {
        processor: cpu.processor,
        vendor_id: cpu.vendor_id.clone(),
        model_name: cpu.model_name.clone(),
        physical_id: u32::from(cpu.package.0),
        core_id: cpu.core_id.parse().unwrap_or(0),
    };
    let mut domains = meters.iter().flat_map(|meter| meter.domains());
    Host {
        version: env!("CARGO_PKG_VERSION").into(),
        node_name: config.node_name.clone().unwrap_or_else(host_name),
        arch: std::env::consts::ARCH.into(),
        cpus: topology.cpus.iter().map(cpu).collect(),
        interval: config.interval.0,
        dram_billed: domains.any(|domain| domain.zone == Zone::Dram && domain.billed),
        idle: config.attribution.idle,
    }
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_string()
}

/// The kernel's id of this boot; empty where unknown: then nothing is taken to be of this boot.
fn boot_id(procfs: &Path) -> String {
    fs::read_to_string(procfs.join("sys/kernel/random/boot_id")).unwrap_or_default().trim().to_string()
}
