//! The sampler: the loop that makes ticks. Reads meters, usage and entities, steps the core, publishes the snapshot and
//! stores totals. Computes no energy itself.

use crate::attribution::Core;
use crate::entity::{Entities, Named};
use crate::footprint::Factors;
use crate::model::platform::PlatformKind;
use crate::model::snapshot::Snapshot;
use crate::model::source::{Health, PciAddress, SourceRole, SourceState, Stamp};
use crate::model::text::safe;
use crate::model::tick::Tick;
use crate::model::units::Nanos;
use crate::power_model::stand_in::{Installed, Known};
use crate::run::meters::{Meters, NO_POWER};
use crate::run::record::Recorder;
use crate::run::store::Store;
use crate::usage::{GpuUsage, Usage, gpu};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::watch;

/// Time between two checkpoints of the totals in the state folder, where they survive a reboot.
const CHECKPOINT_EVERY: Nanos = Nanos(60 * Nanos::SECOND.0);

/// Time between two checks for GPUs that are passed through to VMs.
const PCI_EVERY: Nanos = Nanos(10 * Nanos::SECOND.0);

/// The name of the store among the sources.
const STORE: &str = "store";
const LOST: &str = "totals of this run may be lost at the next start";

/// Shortest time between two log lines of a source whose reason changes and whose state does not: some reasons contain
/// a value that changes at every tick.
const REASON_EVERY: Nanos = Nanos(60 * Nanos::SECOND.0);

/// The sources of use and entities, with their state. A reload must keep that state: these sources report each process,
/// cgroup and VM member only once.
pub struct Observers {
    /// The source of CPU use.
    pub usage: Box<dyn Usage>,
    /// The sources of GPU use.
    pub gpus: Vec<Box<dyn GpuUsage>>,
    /// The cgroups and VMs that processes belong to.
    pub entities: Entities,
    /// Usage sources that are not in use, each with the reason.
    pub unused: Vec<SourceState>,
}

/// The parts of a sampler that the next one in the same run of jouled takes over.
pub struct Ended {
    /// The core, with all totals.
    pub core: Core,
    /// The observers, until the next sampler takes them.
    pub observers: Option<Observers>,
}

/// The loop, with everything that it reads and writes.
pub struct Sampler {
    /// Time between ticks, in nanoseconds.
    pub interval: Nanos,
    /// The meters in use.
    pub meters: Meters,
    /// Models of files that may stand in for a meter; others after each reload.
    pub installed: watch::Receiver<Arc<[Installed]>>,
    /// Meters that are not in use, each with the reason.
    pub unused: Vec<SourceState>,
    /// The sources of use and entities.
    pub observers: Observers,
    /// Root of sysfs.
    pub sysfs: PathBuf,
    /// Health of the managers of VMs.
    pub managers: watch::Receiver<Arc<[SourceState]>>,
    /// Health of the exports that report it.
    pub exports: watch::Receiver<Arc<[SourceState]>>,
    /// The core.
    pub core: Core,
    /// The files of the totals; `None`: totals are not stored.
    pub store: Option<Store>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The recording that each tick is written to, if any.
    pub recorder: Option<Recorder>,
    /// What a kWh stands for in carbon and money.
    pub factors: Factors,
    /// State of the loop itself.
    pub progress: Progress,
}

/// State of the loop from tick to tick.
#[derive(Default)]
pub struct Progress {
    sources: Vec<SourceState>,
    logged: Logged,
    usage_error: Option<String>,
    /// Why the last tick's changes are not in the journal.
    journal_error: Option<String>,
    /// Why the last checkpoint was not written.
    checkpoint_error: Option<String>,
    /// The authority at the last tick, and the meters that disagreed with it.
    authority: Option<PlatformKind>,
    disagreeing: Vec<String>,
    passed_through: Vec<PciAddress>,
    pci_at: Nanos,
    checkpoint_at: Nanos,
}

impl Sampler {
    /// Makes one tick: reads every source, steps the core, logs changes and stores totals.
    pub fn tick(&mut self) -> Arc<Snapshot> {
        let at = Stamp::now();
        let mut tick = Tick { at, ..Tick::default() };
        self.meters.read(at, &mut tick);
        self.read_usage(at, &mut tick);
        self.observers.gpus.iter_mut().for_each(|gpus| gpus.sample(&mut tick.gpus));
        if at.monotonic >= self.progress.pci_at {
            self.progress.pci_at = at.monotonic + PCI_EVERY;
            self.progress.passed_through = gpu::passed_through(&self.sysfs);
        }
        tick.gpus.passed_through.clone_from(&self.progress.passed_through);
        tick.factors = self.factors.at(at.realtime);
        tick.sources = self.changed_sources(at.monotonic);
        tick.own_cpu = own_cpu();
        let snapshot = self.core.step(&tick);
        self.meters.judge(self.core.verdicts().collect());
        self.hand_over_models();
        self.core.take_notes().iter().for_each(|note| tracing::warn!("{}", safe(note)));
        self.tell_of_platform(&snapshot);
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.tick(&tick)
        {
            tracing::error!("recording ends: {error}");
            self.recorder = None;
        }
        self.keep(at);
        snapshot
    }

    /// Hands the meters the models that may stand in for them: what the core learned, and what the files hold. Before
    /// the first tick, and after each.
    pub fn hand_over_models(&mut self) {
        self.meters.set_models(Known {
            taught: self.core.taught(),
            given: self.meters.given_models(),
            installed: Arc::clone(&self.installed.borrow()),
            platform_is_away: self.core.platform_is_away(),
        });
    }

    fn read_usage(&mut self, at: Stamp, tick: &mut Tick) {
        let Observers { usage, entities, .. } = &mut self.observers;
        match usage.sample() {
            Ok(mut sample) => {
                let named = entities.observe(&mut sample, at);
                let Named { cgroups, gone, members, vms, survivors, names_reported, names_sought } = named;
                usage.adopt(&survivors);
                (tick.cgroups, tick.gone) = (cgroups, gone);
                (tick.names_reported, tick.names_sought) = (names_reported, names_sought);
                (tick.vm_members, tick.vms) = (members, vms);
                self.progress.usage_error = None;
                tick.usage = Some(sample);
            }
            Err(error) => self.progress.usage_error = Some(error),
        }
    }

    /// The state of every source if any of them changed, else empty. Each change is logged once.
    fn changed_sources(&mut self, now: Nanos) -> Vec<SourceState> {
        let mut sources: Vec<SourceState> = self.meters.states().collect();
        let usage = match &self.progress.usage_error {
            Some(error) => Health::Failed(error.clone()),
            None => self.observers.usage.health(),
        };
        sources.push(SourceState::new(self.observers.usage.source(), SourceRole::Usage, usage));
        let gpus = self.observers.gpus.iter();
        sources.extend(gpus.map(|one| SourceState {
            detail: one.detail(),
            ..SourceState::new(one.source(), SourceRole::GpuUsage, one.health())
        }));
        match self.progress.store_trouble() {
            Some(why) => sources.push(SourceState::new(STORE, SourceRole::Store, Health::Degraded(why))),
            None if self.progress.logged.forget(STORE, SourceRole::Store) => {
                tracing::info!("store: totals are kept again");
            }
            None => {}
        }
        sources.extend(self.managers.borrow().iter().cloned());
        sources.extend(self.exports.borrow().iter().cloned());
        sources.extend(self.factors.states());
        sources.extend(self.unused.iter().chain(&self.observers.unused).cloned());
        sources.iter().filter(|source| self.progress.logged.is_due(source, now)).for_each(log_health);
        if sources == self.progress.sources {
            return Vec::new();
        }
        self.progress.sources.clone_from(&sources);
        sources
    }

    /// Logs a change of the authority, and of the meters that disagree with it.
    fn tell_of_platform(&mut self, snapshot: &Snapshot) {
        let platform = &snapshot.platform;
        if platform.authority != self.progress.authority {
            match &platform.authority {
                Some(authority) => {
                    tracing::info!(
                        "platform: {authority} is the authority; its energy beyond the components is zone other"
                    )
                }
                None => {
                    tracing::warn!(
                        "platform: no meter that can be the authority measures now; zone other waits for one"
                    )
                }
            }
            self.progress.authority.clone_from(&platform.authority);
        }
        let disagreeing: Vec<String> =
            platform.comparisons.iter().filter(|one| !one.agrees()).map(|one| one.source.to_string()).collect();
        if disagreeing != self.progress.disagreeing {
            for one in platform
                .comparisons
                .iter()
                .filter(|one| !one.agrees() && !self.progress.disagreeing.contains(&one.source.to_string()))
            {
                tracing::warn!(
                    "platform: {} and {} disagree by {:.1} %, more than the {:.1} % that both may be off by: see joulectl meters",
                    one.source,
                    one.against,
                    one.off_ppm.unsigned_abs() as f64 / 1e4,
                    f64::from(one.allowed_ppm) / 1e4
                );
            }
            for one in platform
                .comparisons
                .iter()
                .filter(|one| one.agrees() && self.progress.disagreeing.contains(&one.source.to_string()))
            {
                tracing::info!("platform: {} and {} agree again", one.source, one.against);
            }
            self.progress.disagreeing = disagreeing;
        }
    }

    fn keep(&mut self, at: Stamp) {
        let Some(store) = &mut self.store else { return };
        let journal = store.append(self.core.changes(), || self.core.state(&self.boot_id));
        self.progress.journal_error = journal.err().map(|error| error.to_string());
        if at.monotonic >= self.progress.checkpoint_at {
            self.progress.checkpoint_at = at.monotonic + CHECKPOINT_EVERY;
            let checkpoint = store.checkpoint(self.core.state(&self.boot_id));
            self.progress.checkpoint_error = checkpoint.err().map(|error| error.to_string());
        }
    }

    /// Ticks until `stop` receives or its sender is dropped. Then makes a last tick, stores everything and returns what
    /// the next sampler takes over. `fed` is called after every tick but the last (the watchdog).
    pub fn run(
        mut self,
        publish: &watch::Sender<Arc<Snapshot>>,
        stop: &Receiver<()>,
        mut fed: impl FnMut(&Snapshot),
    ) -> Ended {
        let mut due = Stamp::now().monotonic;
        loop {
            let snapshot = self.tick();
            fed(&snapshot);
            publish.send_replace(snapshot);
            due += self.interval;
            let now = Stamp::now().monotonic;
            if due < now {
                // A tick took too long, or the machine was suspended: missed ticks are skipped.
                due = now;
            }
            match stop.recv_timeout(Duration::from_nanos((due - now).0)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Stops all meters before any is dropped, so that the sessions of several BMCs are closed in parallel.
        self.meters.stop();
        let snapshot = self.tick();
        publish.send_replace(snapshot);
        if let Some(store) = &mut self.store
            && let Err(error) = store.checkpoint(self.core.state(&self.boot_id))
        {
            tracing::error!("totals are not kept: {error}");
        }
        self.end()
    }

    /// Ends the sampler and returns what the next one takes over.
    pub fn end(self) -> Ended {
        Ended { core: self.core, observers: Some(self.observers) }
    }
}

impl Progress {
    /// What is not kept of the totals, and why.
    fn store_trouble(&self) -> Option<String> {
        match (&self.journal_error, &self.checkpoint_error) {
            (None, None) => None,
            (Some(error), None) => Some(format!("{error}; a crash loses the totals of up to a minute")),
            (None, Some(error)) => Some(format!("{error}; totals of this run will not survive a reboot")),
            (Some(one), Some(other)) if one == other => Some(format!("{one}; {LOST}")),
            (Some(one), Some(other)) => Some(format!("{one}; {other}; {LOST}")),
        }
    }
}

/// The last logged health of each source, and the time of the last log line for a change of reason alone.
#[derive(Default)]
struct Logged(BTreeMap<(String, SourceRole), (Health, Option<Nanos>)>);

impl Logged {
    /// Whether the source must be logged now. If so, marks it as logged.
    fn is_due(&mut self, source: &SourceState, now: Nanos) -> bool {
        let key = (source.source.clone(), source.role);
        let again = match self.0.get(&key) {
            None => None,
            Some((health, _)) if *health == source.health => return false,
            Some((health, _)) if health.as_str() != source.health.as_str() => None,
            Some((_, Some(at))) if now - *at < REASON_EVERY => return false,
            Some(_) => Some(now),
        };
        self.0.insert(key, (source.health.clone(), again));
        true
    }

    /// Forgets a source that has nothing to tell any more, so that it is told again. Whether it was logged.
    fn forget(&mut self, source: &str, role: SourceRole) -> bool {
        self.0.remove(&(source.to_owned(), role)).is_some()
    }
}

fn log_health(source: &SourceState) {
    // Reasons quote firmware, drivers and managers.
    let (name, why) = (&*safe(&source.source), &*safe(source.health.why()));
    let (role, state) = (source.role.as_str(), source.health.as_str());
    match source.health {
        Health::Healthy | Health::Unsupported(_) => {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            tracing::info!("_source" = name, "_role" = role, "_state" = state, "{role} {name}: {state}{why}")
        }
        Health::Starting(_) | Health::Degraded(_) => {
            tracing::warn!("_source" = name, "_role" = role, "_state" = state, "{role} {name}: {state}: {why}")
        }
        // It answers, and other meters stand in.
        Health::Failed(_) if why.starts_with(NO_POWER) => {
            tracing::warn!("_source" = name, "_role" = role, "_state" = state, "{role} {name}: {state}: {why}")
        }
        Health::Failed(_) => {
            tracing::error!("_source" = name, "_role" = role, "_state" = state, "{role} {name}: {state}: {why}")
        }
    }
}

/// CPU time of this process so far, user and system: getrusage(2).
fn own_cpu() -> Nanos {
    let nanos = |time: TimeVal| time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1000;
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or_else(|_| Nanos::default(), |usage| Nanos(nanos(usage.user_time()) + nanos(usage.system_time())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_changes_at_every_tick_is_no_flood() {
        let mut logged = Logged::default();
        let mut due = |health: Health, second: u64| {
            let source = SourceState::new("hwmon", SourceRole::Meter, health);
            logged.is_due(&source, Nanos(second * Nanos::SECOND.0))
        };
        let degraded = |value: u64| Health::Degraded(format!("{value} is no power"));
        assert!(due(Health::Healthy, 1));
        assert!(due(degraded(1), 2));
        assert!(due(degraded(2), 3), "the first other reason is news");
        let lines = (4..200).filter(|second| due(degraded(*second), *second)).count();
        assert_eq!(lines, 3);
        assert!(due(Health::Failed("gone".into()), 203), "another state is told at once");
        assert!(due(Health::Healthy, 204) && !due(Health::Healthy, 205));
        assert!(due(degraded(1), 206) && due(Health::Healthy, 207), "each change of state is told");
    }

    #[test]
    fn a_reason_that_was_held_back_is_told_when_its_time_comes() {
        let mut logged = Logged::default();
        let mut due = |why: &str, second: u64| {
            let health = Health::Failed(why.into());
            let source = SourceState::new("redfish", SourceRole::Meter, health);
            logged.is_due(&source, Nanos(second * Nanos::SECOND.0))
        };
        assert!(due("no answer", 1) && due("no TCP connection", 2) && !due("wrong password", 3));
        assert!(!due("wrong password", 61) && due("wrong password", 62) && !due("wrong password", 63));
    }
}
