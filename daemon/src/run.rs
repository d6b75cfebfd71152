//! From a configuration to a running daemon: open sources, bind every door, first snapshot, ready, tasks, stop. Decides no numbers.

use crate::config::{Config, UsageSource};
use crate::core::{CoreConfig, State};
use crate::door;
use crate::entity::hypervisor::Hypervisors;
use crate::entity::managers::{self, Managers};
use crate::entity::resolve::{self, Resolver};
use crate::export::guest::{self, Guests, HostFacts};
use crate::export::powercap::Mirror;
use crate::export::web_config::WebConfig;
use crate::export::{control, dbus, http};
use crate::meter::{Meter, Roots, Topology, Zone, estimate, open_all, vsock};
use crate::record::{Head, Recorder};
use crate::sampler::{Progress, Sampler};
use crate::snapshot::{CpuInfo, Host, Snapshot};
use crate::source::{Health, PackageId};
use crate::source::{SourceState, Stamp};
use crate::store::Store;
use crate::usage::bpf::{BpfOptions, BpfUsage};
use crate::usage::procfs::ProcfsUsage;
use crate::usage::{self, ProcessKey, Usage};
use anyhow::{Context, Result};
use sd_notify::NotifyState;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Everything has to end within this time after SIGTERM.
const GRACE: Duration = Duration::from_millis(1500);

/// Runs until SIGTERM, SIGINT, or until a task ends that should not.
///
/// # Errors
/// Where a door that the configuration names cannot be opened, or a task fails.
pub async fn run(config: Config, record: Option<&Path>) -> Result<()> {
    let web = match &config.export.web_config_file {
        Some(path) => Some(Arc::new(WebConfig::load(path)?)),
        None => None,
    };
    let listeners = http::bind(&config.listen)?;
    let managers = Arc::new(Managers::default());
    let mut sampler = open(&config, record, &managers)?;
    let (socket, inventory_socket) = (config.socket(), config.inventory_socket());
    for dir in [&socket, &inventory_socket].into_iter().filter_map(|socket| socket.parent()) {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let powercap = &config.export.powercap;
    let mirror = powercap.path.as_ref().map(|path| Mirror::open(path, powercap)).transpose();
    let mirror = mirror.context("no powercap mirror ([export.powercap] path)")?;
    let control = control::bind(&socket, config.control.mode.0)?;
    let guests = guests(&config);
    let channel = guest::bind(guests.clone())?;
    let dbus = dbus::bind(config.export.dbus.clone(), process_facts(&config), zbus::connection::Builder::system).await?;
    sampler.exports = dbus.sources();
    let inventory = door::bind(&inventory_socket, config.inventory.mode.0)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let (publish, mut snapshots) = watch::channel(Arc::new(sampler.core.blank()));
    let (stop_sampler, stopped) = mpsc::channel();
    let mut sampling =
        tokio::task::spawn_blocking(move || sampler.run(&publish, &stopped, |_| drop(sd_notify::notify(&[NotifyState::Watchdog]))));
    let first = tokio::select! {
        changed = snapshots.changed() => changed,
        // A meter that hangs must not keep the process: the store has what earlier runs kept.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if first.is_err() {
        sampling.await.context("the sampler failed at its first tick")?;
        anyhow::bail!("the sampler ended at its first tick");
    }

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for listener in &listeners {
        let scheme = if web.as_ref().is_some_and(|web| web.tls().is_some()) { "https" } else { "http" };
        tracing::info!("metrics at {scheme}://{}/metrics", listener.local_addr()?);
    }
    tracing::info!("joulectl's socket is {}", socket.display());
    let router = http::router(snapshots.clone(), config.export.prometheus.clone(), guests.clone(), Stamp::now);
    tasks.spawn(http::serve(listeners, router, web, stop.clone()));
    tasks.spawn(control.serve(snapshots.clone(), guests, stop.clone()));
    if config.export.guest.any() {
        tasks.spawn(channel.serve(snapshots.clone(), stop.clone()));
    }
    tasks.spawn(managers::socket::serve(inventory, Arc::clone(&managers), config.inventory.users.clone(), stop.clone()));
    match config.inventory.machined {
        true => drop(tasks.spawn(managers::machined::follow(managers, zbus::connection::Builder::system, stop.clone()))),
        false => managers.set_machined(Vec::new(), Health::Unsupported("not wanted: machined = false in [inventory]".into())),
    }
    tasks.spawn(dbus.serve(zbus::connection::Builder::system, snapshots.clone(), stop.clone()));
    if let Some(mirror) = mirror {
        tracing::info!("powercap mirror at {}", mirror.root().display());
        tasks.spawn(mirror.serve(snapshots.clone(), stop.clone()));
    }
    tasks.spawn(tell_manager(snapshots, stop.clone()));
    let _ = sd_notify::notify(&[NotifyState::Ready]);

    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        _ = hangup.recv() => None,
        ended = tasks.join_next() => Some(ended.map_or(Ok(()), |ended| ended).map_or_else(|error| error.to_string(), |()| "a task ended early".into())),
        ended = &mut sampling => Some(ended.map_or_else(|error| error.to_string(), |()| "the sampler ended early".into())),
    };
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let _ = stop_sampler.send(());
    stop.cancel();
    let drained = async {
        while tasks.join_next().await.is_some() {}
        if failed.is_none() {
            let _ = (&mut sampling).await;
        }
    };
    if tokio::time::timeout(GRACE, drained).await.is_err() {
        tracing::warn!("some tasks did not end in {GRACE:?} and were left");
    }
    match failed {
        Some(why) => anyhow::bail!(why),
        None => Ok(()),
    }
}

/// Opens every source; the sampler has not ticked yet.
///
/// # Errors
/// Where the totals cannot be kept, or eBPF is asked for by name and cannot be had.
pub fn open(config: &Config, record: Option<&Path>, managers: &Managers) -> Result<Sampler> {
    let roots = Roots { sysfs: config.sysfs.clone(), procfs: config.procfs.clone() };
    let topology = Topology::read(&roots);
    let (meters, mut unused) = open_all(&config.meter, &roots, &topology);
    let resolver = Resolver::open(&config.procfs);
    let usage = open_usage(config, &topology, resolver.v2(), &mut unused)?;
    let (gpus, unused_gpus) = usage::gpu::open_all(config.usage.gpus, &config.meter.nvml, &config.sysfs, &config.procfs);
    unused.extend(unused_gpus);
    let boot_id = boot_id(&config.procfs);
    let (store, state) = open_store(config)?;
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
        let known = later || meters.iter().flat_map(|meter| meter.domains()).any(|known| known.id == *domain);
        if !known {
            tracing::warn!(
                "attribution.idle_watts.{domain}: there is no such energy domain now; joulectl status lists those there are"
            );
        }
    }
    // A host's word may still come.
    if meters.iter().all(|meter| meter.domains().is_empty() && meter.source() != vsock::SOURCE) {
        tracing::warn!("no meter: there is use without energy");
    }
    Ok(Sampler {
        interval: config.interval.0,
        meters,
        unused,
        usage,
        gpus,
        sysfs: config.sysfs.clone(),
        resolver,
        hypervisors: Hypervisors::open(&config.procfs, &config.sysfs, Some(managers.inventory())),
        managers: managers.sources(),
        exports: watch::channel([].into()).1,
        core: head.core(),
        store,
        boot_id,
        recorder,
        progress: Progress::default(),
    })
}

fn open_usage(
    config: &Config,
    topology: &Topology,
    cgroup2: Option<&Path>,
    unused: &mut Vec<SourceState>,
) -> Result<Box<dyn Usage>> {
    let packages = packages(topology);
    let mut state = |source: &str, health| {
        unused.push(SourceState { source: source.into(), role: "usage".into(), health, detail: String::new() })
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
            Err(error) if config.usage.source == UsageSource::Bpf => return Err(error).context("source = \"bpf\" in [usage]"),
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
fn guests(config: &Config) -> Guests {
    let boot_id = boot_id(&config.procfs);
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    let (alive, procfs) = (config.procfs.clone(), config.procfs.clone());
    let host = HostFacts {
        machine_id: if machine_id.is_empty() { boot_id.clone() } else { machine_id },
        boot_id,
        idle: config.attribution.idle,
        alive: Arc::new(move |process| usage::procfs::start_of(&alive, process.pid) == Some(process.start)),
        procfs,
        connections: if config.export.guest.any() { guest::connections() } else { 0 },
    };
    Guests::new(config.export.guest.clone(), host)
}

/// What callers on the bus may ask of a process.
fn process_facts(config: &Config) -> dbus::Facts {
    let (of, whose) = (config.procfs.clone(), config.procfs.clone());
    let owner = move |pid| {
        let start = || usage::procfs::start_of(&whose, pid);
        let (before, uids) = (start()?, usage::procfs::uids_of(&whose, pid));
        // A process id may be given anew between two looks.
        (start() == Some(before)).then(|| dbus::Owner { uids, began: ProcessKey { pid, start: before }.began() })
    };
    dbus::Facts {
        cgroup_of: Arc::new(move |pid| resolve::path_of(&of, pid)),
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

/// Keeps `systemctl status` current: what is measured, and what is not as it should be.
async fn tell_manager(mut snapshots: watch::Receiver<Arc<Snapshot>>, stop: CancellationToken) {
    let mut told = String::new();
    loop {
        let status = status_line(&snapshots.borrow_and_update());
        if status != told {
            let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
            told = status;
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { break stop.cancelled().await },
            () = stop.cancelled() => break,
        }
    }
}

fn status_line(snapshot: &Snapshot) -> String {
    let mut names: Vec<&str> = snapshot.domains.iter().filter(|view| !view.past).map(|view| view.domain.source.as_str()).collect();
    names.dedup();
    let meters = if names.is_empty() { "nothing".to_string() } else { names.join(", ") };
    let estimated = if snapshot.estimated() { " (an estimate)" } else { "" };
    let usage = snapshot
        .sources
        .iter()
        .find(|source| source.role == "usage" && !matches!(source.health, Health::Unsupported(_) | Health::Failed(_)));
    let usage = usage.map_or("nobody knows who", |source| source.source.as_str());
    let wrong = snapshot.sources.iter().filter(|source| matches!(source.health, Health::Degraded(_) | Health::Failed(_)));
    let wrong: Vec<String> =
        wrong.map(|source| format!("; {} {}: {}", source.source, source.health.as_str(), source.health.why())).collect();
    format!("Measuring by {meters}{estimated}, use by {usage}{}", wrong.concat())
}
