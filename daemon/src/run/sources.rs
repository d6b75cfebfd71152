//! Builds a sampler from a configuration: opens meters, usage, entities, store and recording. Binds no service, and
//! makes no tick.

use crate::attribution::ledger::Limits;
use crate::attribution::{Core, CoreConfig, State};
use crate::config::{AttributionConfig, Config, LearnConfig, NamesConfig, UsageConfig, UsageSource};
use crate::entity::Entities;
use crate::entity::managers::Managers;
use crate::export::HealthBoard;
use crate::footprint::{FactorSettings, Factors};
use crate::meter::{Meter, MeterConfig, Roots, Topology, estimate, host_channel, open_all};
use crate::model::domain::Zone;
use crate::model::snapshot::{CpuInfo, Host};
use crate::model::source::{Health, PackageId, SourceRole, SourceState, Stamp};
use crate::model::tenant::TenantRule;
use crate::model::units::{Microwatts, Nanos};
use crate::power_model::stand_in::Installed;
use crate::run::meters::Meters;
use crate::run::record::{Head, Recorder};
use crate::run::sampler::{Ended, Observers, Progress, Sampler};
use crate::run::store::Store;
use crate::sys::nvml::NvmlConfig;
use crate::sys::users;
use crate::usage::bpf::{BpfOptions, BpfUsage};
use crate::usage::procfs::ProcfsUsage;
use crate::usage::{self, Usage};
use anyhow::{Context, Result};
use ring::hmac;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// What services report to the sampler.
#[derive(Clone, Default)]
pub struct Reports {
    /// The inventory of VMs, from their managers.
    pub managers: Arc<Managers>,
    /// The health of exports.
    pub exports: HealthBoard,
    /// Models of files.
    pub installed: Arc<watch::Sender<Arc<[Installed]>>>,
}

/// The part of the configuration that measuring uses. A reload compares it, and opens the sources again if it changed.
/// [`open`] gets nothing else of the configuration, so no key that it uses can be missing in the comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSettings {
    interval: Nanos,
    node_name: Option<String>,
    runtime_dir: PathBuf,
    state_dir: PathBuf,
    limits: Limits,
    meter: MeterConfig,
    attribution: AttributionConfig,
    learn: LearnConfig,
    /// Idle power by domain.
    floors: BTreeMap<String, Microwatts>,
    tenants: Vec<TenantRule>,
    factors: FactorSettings,
    observers: ObserverSettings,
}

/// The settings of the sources of use and entities. A reload that does not change them keeps these sources open.
#[derive(Clone, Debug, PartialEq)]
struct ObserverSettings {
    sysfs: PathBuf,
    procfs: PathBuf,
    usage: UsageConfig,
    nvml: NvmlConfig,
    names: NamesConfig,
}

impl SourceSettings {
    /// Extracts the settings from a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            interval: config.interval.0,
            node_name: config.node_name.clone(),
            runtime_dir: config.runtime_dir(),
            state_dir: config.state_dir(),
            limits: config.limits(),
            meter: config.meter.clone(),
            attribution: config.attribution.clone(),
            learn: config.learn,
            floors: config.floors(),
            tenants: config.tenant.clone(),
            factors: FactorSettings::of(&config.carbon, &config.price),
            observers: ObserverSettings {
                sysfs: config.sysfs.clone(),
                procfs: config.procfs.clone(),
                usage: config.usage.clone(),
                nvml: config.meter.nvml.clone(),
                names: config.names.clone(),
            },
        }
    }

    /// Whether the sources of use and entities that were opened with `self` can be kept for `new`.
    pub(super) fn same_observers(&self, new: &Self) -> bool {
        self.observers == new.observers
    }
}

/// The state from which a new sampler continues.
#[derive(Default)]
pub enum Start {
    /// The first sampler of this run: totals come from the store.
    #[default]
    Fresh,
    /// A reload that opens new sources of use and entities: totals continue from the previous core.
    KeepTotals(Box<Core>),
    /// A reload that keeps the sources of use and entities open: they continue, and so do the accounts of the previous
    /// core.
    KeepAll(Box<Core>, Box<Observers>),
}

impl Start {
    /// The core of the previous sampler.
    fn earlier(&self) -> Option<&Core> {
        match self {
            Self::Fresh => None,
            Self::KeepTotals(core) | Self::KeepAll(core, _) => Some(core),
        }
    }

    /// Drops the sources of use and entities, so that new ones are opened.
    pub(super) fn without_observers(self) -> Self {
        match self {
            Self::KeepAll(core, _) => Self::KeepTotals(core),
            other => other,
        }
    }
}

impl From<Ended> for Start {
    fn from(ended: Ended) -> Self {
        let core = Box::new(ended.core);
        match ended.observers {
            Some(observers) => Self::KeepAll(core, Box::new(observers)),
            None => Self::KeepTotals(core),
        }
    }
}

/// Opens every source, and returns a sampler that has made no tick yet. On success `start` is consumed; after an error
/// it is unchanged.
///
/// # Errors
/// The totals cannot be stored, the recording cannot be created, or the configuration requires eBPF
/// (`source = "bpf"`) and it cannot be used.
pub fn open(settings: &SourceSettings, record: Option<&Path>, reports: &Reports, start: &mut Start) -> Result<Sampler> {
    let ObserverSettings { sysfs, procfs, .. } = &settings.observers;
    let roots = Roots { sysfs: sysfs.clone(), procfs: procfs.clone() };
    let topology = Topology::read(&roots);
    let (meters, unused) = open_all(&settings.meter, &roots, &topology);
    let new_observers = match start {
        Start::KeepAll(..) => None,
        Start::Fresh | Start::KeepTotals(_) => Some(open_observers(&settings.observers, &topology, reports)?),
    };
    let (store, kept) = open_store(settings)?;
    let boot_id = boot_id(procfs);
    let head =
        head(settings, &topology, &meters, &boot_id, start.earlier().map(|core| core.state(&boot_id)).unwrap_or(kept));
    let recorder = record.map(|path| Recorder::create(path, &head)).transpose().context("cannot record")?;
    warn_about_floors(settings, &meters);
    let mut core = head.core();
    if let Some(earlier) = start.earlier() {
        core.follow(earlier);
    }
    // Nothing below fails, so `start` is not lost.
    let observers = match (new_observers, std::mem::take(start)) {
        (Some(mut observers), _) => {
            observers.entities.await_series(core.awaited());
            observers
        }
        (None, Start::KeepAll(mut earlier, observers)) => {
            core.keep_entities(&mut earlier);
            *observers
        }
        (None, Start::Fresh | Start::KeepTotals(_)) => anyhow::bail!("no source of use was opened"),
    };
    // The host channel may report a domain later.
    if meters.iter().all(|meter| meter.domains().is_empty() && meter.source() != host_channel::SOURCE) {
        tracing::warn!("no meter: there is use without energy");
    }
    let mut sampler = Sampler {
        interval: settings.interval,
        meters: Meters::new(meters),
        installed: reports.installed.subscribe(),
        unused,
        observers,
        sysfs: sysfs.clone(),
        managers: reports.managers.sources(),
        exports: reports.exports.subscribe(),
        core,
        store,
        boot_id,
        recorder,
        factors: Factors::open(&settings.factors),
        progress: Progress::default(),
    };
    sampler.hand_over_models();
    Ok(sampler)
}

/// The settings and state that the core begins with. They are also the head of a recording.
fn head(
    settings: &SourceSettings,
    topology: &Topology,
    meters: &[Box<dyn Meter>],
    boot_id: &str,
    state: State,
) -> Head {
    let ObserverSettings { sysfs, procfs, .. } = &settings.observers;
    let roots = Roots { sysfs: sysfs.clone(), procfs: procfs.clone() };
    Head {
        config: CoreConfig {
            host: host(settings, topology, meters),
            limits: settings.limits,
            idle: settings.attribution.idle,
            floors: settings.floors.clone(),
            prior_ratio: estimate::idle_to_full_ratio(&roots, topology),
            platform: settings.attribution.platform.clone(),
            learn: settings.learn.enabled,
            weights: settings.attribution.weights,
            tenants: tenants(&settings.tenants),
        },
        same_boot: !boot_id.is_empty() && state.boot_id == boot_id,
        state,
        now: Stamp::now().monotonic,
    }
}

/// The rules for tenants, with each user by name and by number: slices of users have numbers, jobs have names.
fn tenants(rules: &[TenantRule]) -> Vec<TenantRule> {
    let mut rules = rules.to_vec();
    for rule in &mut rules {
        let name = rule.name.clone();
        rule.add_users(|user| match user.parse::<u32>() {
            Ok(uid) => users::name_of(uid),
            Err(_) => {
                let uid = users::uid_of(user);
                if uid.is_none() {
                    tracing::warn!(
                        "tenant {name:?}: user {user:?} is not known on this machine: only jobs can match it; a number \
                         needs no name"
                    );
                }
                uid.map(|uid| uid.to_string())
            }
        });
    }
    rules
}

/// Logs each configured idle floor whose domain does not exist.
fn warn_about_floors(settings: &SourceSettings, meters: &[Box<dyn Meter>]) {
    let exists = |domain: &String| {
        meters.iter().flat_map(|meter| meter.domains()).any(|known| known.id == domain.as_str())
            // Domains of the host channel, of GPUs and of hwmon may appear later. The remainder belongs to no meter.
            || domain == "other"
            || ["guest/", "gpu/", "hwmon/"].iter().any(|source| domain.starts_with(source))
    };
    for domain in settings.floors.keys().filter(|domain| !exists(domain)) {
        tracing::warn!(
            "attribution.idle_watts.{domain}: there is no such energy domain now; joulectl status lists those there are"
        );
    }
}

/// Opens the sources of use and entities.
fn open_observers(settings: &ObserverSettings, topology: &Topology, reports: &Reports) -> Result<Observers> {
    let ObserverSettings { sysfs, procfs, usage, nvml, names } = settings;
    let mut unused = Vec::new();
    let entities = Entities::open(procfs, sysfs, Some(reports.managers.inventory())).with_names(
        names.kubernetes(),
        names.proxmox(),
        Some(reports.managers.containers()),
    );
    let (gpus, unused_gpus) = usage::gpu::open_all(usage.gpus, nvml, sysfs, procfs);
    let usage = open_usage(usage, procfs, topology, &entities, &mut unused)?;
    unused.extend(unused_gpus);
    Ok(Observers { usage, gpus, entities, unused })
}

fn open_usage(
    config: &UsageConfig,
    procfs: &Path,
    topology: &Topology,
    entities: &Entities,
    unused: &mut Vec<SourceState>,
) -> Result<Box<dyn Usage>> {
    let packages = packages(topology);
    let mut state = |source: &str, health| {
        unused.push(SourceState::new(source, SourceRole::Usage, health));
    };
    let unwanted = "not wanted: source = \"procfs\" in [usage]".to_string();
    let why = if config.source == UsageSource::Procfs {
        state("bpf", Health::Unsupported(unwanted.clone()));
        unwanted
    } else {
        let options = BpfOptions {
            path: config.path,
            counters: config.counters,
            max_entries: config.max_entries,
            packages: packages.clone(),
        };
        match BpfUsage::open(&options) {
            Ok(usage) => {
                state("procfs", Health::Unsupported("not needed: bpf says more".into()));
                return Ok(Box::new(usage));
            }
            Err(error) if config.source == UsageSource::Bpf => {
                return Err(error).context("source = \"bpf\" in [usage]");
            }
            Err(error) => {
                state("bpf", Health::Failed(error.to_string()));
                "eBPF cannot be used".to_string()
            }
        }
    };
    let usage = ProcfsUsage::open(procfs, entities.cgroup2(), &packages, &why).map_err(anyhow::Error::msg)?;
    Ok(Box::new(usage.with_cpuacct(entities.cpuacct())))
}

fn open_store(settings: &SourceSettings) -> Result<(Option<Store>, State)> {
    let mut notes = Vec::new();
    let (store, state) =
        Store::open(&settings.runtime_dir, &settings.state_dir, &ledger_machine(&machine_id()), &mut notes)
            .context("totals cannot be kept (run as root, or name a folder with --state-dir)")?;
    for note in notes {
        tracing::warn!("{note}");
    }
    Ok((Some(store), state))
}

/// The id of this machine in the ledger's files: 16 hex digits of an HMAC-SHA256 with the machine id as key, because
/// machine-id(5) asks to keep the id itself confidential. Empty if there is no machine id.
fn ledger_machine(machine_id: &str) -> String {
    if machine_id.is_empty() {
        return String::new();
    }
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, machine_id.as_bytes()), b"jouled ledger");
    tag.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Package by CPU number.
fn packages(topology: &Topology) -> Vec<PackageId> {
    let last = topology.cpus.iter().map(|cpu| cpu.processor).max().unwrap_or(0);
    (0..=last).map(|processor| topology.package_of(processor)).collect()
}

fn host(settings: &SourceSettings, topology: &Topology, meters: &[Box<dyn Meter>]) -> Host {
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
        node_name: settings.node_name.clone().unwrap_or_else(host_name),
        arch: std::env::consts::ARCH.into(),
        cpus: topology.cpus.iter().map(cpu).collect(),
        interval: settings.interval,
        dram_billed: domains.any(|domain| domain.zone == Zone::Dram && domain.billed),
        idle: settings.attribution.idle,
    }
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_string()
}

/// The kernel's id of this boot. Empty if unknown: then no stored state counts as written on this boot.
pub(super) fn boot_id(procfs: &Path) -> String {
    fs::read_to_string(procfs.join("sys/kernel/random/boot_id")).unwrap_or_default().trim().to_string()
}

/// machine-id(5), a secret; empty where there is none.
pub(super) fn machine_id() -> String {
    fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}
