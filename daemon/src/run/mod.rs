//! The life of the daemon: open sources, bind services, first tick, ready, reload, stop. Decides no numbers.
//!
//! A reload (SIGHUP) restarts what the new configuration changes: the sampler where [`SourceSettings`] differ, and
//! each service (`services`) whose settings differ. Where the new configuration cannot be used, what was stopped
//! starts again with the old one.

pub mod args;
pub mod log;
pub mod meters;
pub mod models;
pub mod privileges;
pub mod record;
pub mod sampler;
mod service_manager;
mod services;
mod sources;
pub mod store;
mod supervisor;

pub use sources::{Reports, SourceSettings, Start, open};

use crate::config::{Config, ConfigError, LogLevel};
use crate::export::Snapshots;
use crate::model::snapshot::Snapshot;
use crate::run::sampler::Ended;
use crate::run::sampler::Sampler;
use anyhow::{Context, Result};
use services::{SERVICES, Service, Shared};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use supervisor::Supervisor;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// Services and the sampler have this time to end after SIGTERM.
const GRACE: Duration = Duration::from_millis(1500);
/// How long a reload waits for a tick that is under way. A meter that hangs for longer ends jouled, and the service
/// manager starts it again.
const TICK: Duration = Duration::from_secs(20);
/// A second SIGHUP with the same configuration within this time is part of the first: systemd sends SIGHUP and runs
/// `ExecReload=` as well.
const SAME_RELOAD: Duration = Duration::from_secs(2);

/// What the program provides to the daemon.
pub struct Program {
    /// Reads the configuration; the command line takes precedence in it.
    pub load: Box<dyn Fn() -> Result<Config, ConfigError>>,
    /// Changes the level of the log.
    pub set_level: Box<dyn Fn(LogLevel)>,
    /// A recording to make: the path of a new file.
    pub record: Option<PathBuf>,
}

/// Checks the files that the configuration names beside itself (`--check-config`): the web configuration with its
/// certificates. A note where it is not there yet: a configuration may be checked before all is installed.
///
/// # Errors
/// Where the start would refuse one of them.
pub fn check(config: &Config) -> Result<Option<String>> {
    services::check(config)
}

/// Sets the allocator for a small daemon. To be called first of all, before there are threads.
pub fn limit_memory() {
    crate::sys::malloc::limit();
}

/// Runs until SIGTERM, SIGINT, or until a service or the sampler fails. SIGHUP reads the configuration again.
///
/// # Errors
/// Where a source or service that the configuration demands cannot be opened, or a task fails.
pub async fn run(config: Config, program: Program) -> Result<()> {
    // Before anything else: from now on signals are queued instead of ending the process.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let opened = tokio::select! {
        opened = Daemon::open(config, program) => opened?,
        // Opening may hang. Nothing has to be saved: the store still holds the totals of earlier runs.
        () = either(&mut terminate, &mut interrupt) => return Ok(()),
    };
    let (mut daemon, snapshots) = opened;
    tokio::select! {
        started = daemon.start(&SERVICES) => started?,
        () = either(&mut terminate, &mut interrupt) => return Ok(()),
    }
    tokio::spawn(service_manager::report_status(snapshots, daemon.note.subscribe()));
    service_manager::ready();

    let failed = loop {
        tokio::select! {
            () = either(&mut terminate, &mut interrupt) => break None,
            _ = hangup.recv() => {
                service_manager::reloading();
                tokio::select! {
                    reloaded = daemon.reload() => if let Err(error) = reloaded { break Some(error) },
                    () = either(&mut terminate, &mut interrupt) => break None,
                }
                service_manager::ready();
            }
            why = daemon.failed() => break Some(anyhow::Error::msg(why)),
        }
    };
    tracing::info!("stopping");
    service_manager::stopping();
    daemon.stop().await;
    failed.map_or(Ok(()), Err)
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// The sampler's thread.
struct Sampling {
    stop: mpsc::Sender<()>,
    done: JoinHandle<Ended>,
}

/// What a new configuration restarts.
struct Change {
    sampler: bool,
    services: Vec<&'static Service>,
}

impl Change {
    fn between(old: &Config, new: &Config) -> Self {
        Self {
            sampler: SourceSettings::of(old) != SourceSettings::of(new),
            services: SERVICES.into_iter().filter(|service| service.differs(old, new)).collect(),
        }
    }

    /// For the log.
    fn words(&self) -> String {
        let sampler = self.sampler.then_some("measuring");
        let names: Vec<&str> = sampler.into_iter().chain(self.services.iter().map(|service| service.name)).collect();
        if names.is_empty() { "nothing restarted".to_owned() } else { format!("restarted: {}", names.join(", ")) }
    }
}

/// What became of a configuration that was read again.
enum Reload {
    /// It is in force.
    Done(Change),
    /// It cannot be used, and the one before is in force.
    Rejected(anyhow::Error),
}

/// Everything that runs, and the configuration that it runs with.
struct Daemon {
    config: Config,
    program: Program,
    reports: Reports,
    publish: Arc<watch::Sender<Arc<Snapshot>>>,
    /// Opened, and not started yet.
    sampler: Option<Sampler>,
    sampling: Option<Sampling>,
    services: Supervisor,
    /// What `systemctl status` shows before what is measured: why the last reload was rejected.
    note: watch::Sender<String>,
    /// The configuration that the last reload read (or why it could not), and when.
    last_reload: Option<(Result<Config, String>, Instant)>,
}

impl Daemon {
    async fn open(config: Config, program: Program) -> Result<(Self, Snapshots)> {
        let reports = Reports::default();
        let activated = service_manager::sockets()?;
        let (settings, record, reported) = (SourceSettings::of(&config), program.record.clone(), reports.clone());
        let read = config.clone();
        let opening = spawn_blocking(move || {
            // Before the first tick: it may be one without a meter.
            let models = services::read_models(&read, &reported);
            open(&settings, record.as_deref(), &reported, &mut Start::Fresh).map(|sampler| (models, sampler))
        });
        let (models, sampler) = opening.await.context("opening sources failed")??;
        let (publish, snapshots) = watch::channel(Arc::new(sampler.core.blank()));
        let daemon = Self {
            services: Supervisor::new(Shared::new(snapshots.clone(), reports.clone(), activated, models)),
            config,
            program,
            reports,
            publish: Arc::new(publish),
            sampler: Some(sampler),
            sampling: None,
            note: watch::Sender::new(String::new()),
            last_reload: None,
        };
        Ok((daemon, snapshots))
    }

    /// Binds `services`, starts an opened sampler and waits for its first tick, then lets the services serve.
    async fn start(&mut self, services: &[&Service]) -> Result<()> {
        let bound = self.services.bind(services, &self.config).await?;
        if let Some(sampler) = self.sampler.take() {
            service_manager::watchdog(self.config.interval.0);
            let mut snapshots = self.publish.subscribe();
            let (stop, stopped) = mpsc::channel();
            let publish = Arc::clone(&self.publish);
            let done = spawn_blocking(move || sampler.run(&publish, &stopped, |_| service_manager::feed_watchdog()));
            let sampling = self.sampling.insert(Sampling { stop, done });
            tokio::select! {
                _ = snapshots.changed() => {}
                ended = &mut sampling.done => {
                    self.sampling = None;
                    ended.context("the sampler failed at its first tick")?;
                    anyhow::bail!("the sampler ended at its first tick");
                }
            }
        }
        self.services.start(bound);
        Ok(())
    }

    /// Reads the configuration again and restarts what it changes. A configuration that cannot be used is rejected:
    /// what was stopped for it starts again with the one before.
    ///
    /// # Errors
    /// Where jouled cannot go on, not even with the configuration that it had.
    async fn reload(&mut self) -> Result<()> {
        let config = (self.program.load)().map_err(|error| error.to_string());
        if self.last_reload.as_ref().is_some_and(|(last, at)| at.elapsed() < SAME_RELOAD && *last == config) {
            return Ok(());
        }
        let rejected = match config.clone() {
            Ok(config) => match self.apply(config).await? {
                Reload::Done(change) => {
                    tracing::info!("configuration read again; {}", change.words());
                    None
                }
                Reload::Rejected(why) => Some(format!("{why:#}")),
            },
            Err(why) => Some(why),
        };
        self.last_reload = Some((config, Instant::now()));
        self.note.send_replace(match rejected {
            None => String::new(),
            Some(why) => {
                for line in why.lines() {
                    tracing::error!("configuration not reloaded, the one before stays in force: {line}");
                }
                format!("configuration not reloaded: {}", why.lines().collect::<Vec<_>>().join("; "))
            }
        });
        Ok(())
    }

    /// Goes over to `new`, or stays with the configuration before.
    ///
    /// # Errors
    /// Where neither can be used.
    async fn apply(&mut self, new: Config) -> Result<Reload> {
        let change = Change::between(&self.config, &new);
        if let Err(why) = self.services.prepare(&new) {
            return Ok(Reload::Rejected(why));
        }
        self.services.stop(&change.services, GRACE).await;
        let mut start = if change.sampler { Some(self.end_sampling(&new).await?) } else { None };
        let old = std::mem::replace(&mut self.config, new);
        match self.restart(&change, &mut start).await {
            Ok(()) => {
                self.services.read_models_again(&self.config);
                (self.program.set_level)(self.config.log_level);
                Ok(Reload::Done(change))
            }
            Err(why) => {
                self.config = old;
                self.restart_as_before(&change, start, why).await.map(Reload::Rejected)
            }
        }
    }

    /// Opens what a sampler needs that goes on from `start`, where there is one, and starts it and the services of
    /// `change`.
    async fn restart(&mut self, change: &Change, start: &mut Option<Start>) -> Result<()> {
        self.open_sampler(start).await?;
        self.start(&change.services).await
    }

    /// Starts what was stopped for a configuration that failed because of `why`.
    async fn restart_as_before(
        &mut self,
        change: &Change,
        mut start: Option<Start>,
        why: anyhow::Error,
    ) -> Result<anyhow::Error> {
        if let Some(sampler) = self.sampler.take() {
            // It was opened and could not start, as a service could not be bound: it returns what it took.
            start = Some(Start::from(sampler.end()));
        } else if change.sampler && start.is_none() {
            return Err(why);
        }
        self.restart(change, &mut start)
            .await
            .with_context(|| format!("neither the new configuration can be used ({why:#}) nor the old one any more"))?;
        Ok(why)
    }

    /// Opens a sampler that goes on from `start`, which is left only where that fails. Scrapes are answered meanwhile.
    async fn open_sampler(&mut self, start: &mut Option<Start>) -> Result<()> {
        let Some(mut taken) = start.take() else { return Ok(()) };
        let (settings, reports) = (SourceSettings::of(&self.config), self.reports.clone());
        let opening = spawn_blocking(move || (open(&settings, None, &reports, &mut taken), taken));
        match opening.await.context("opening sources failed")? {
            (Ok(sampler), _) => self.sampler = Some(sampler),
            (Err(why), left) => {
                *start = Some(left);
                return Err(why);
            }
        }
        Ok(())
    }

    /// Stops the sampler; what it leaves, as far as a sampler with the configuration `new` can use it.
    async fn end_sampling(&mut self, new: &Config) -> Result<Start> {
        service_manager::extend_watchdog();
        if self.program.record.take().is_some() {
            tracing::warn!("the recording ends here: a recording has one configuration");
        }
        let Some(sampling) = &mut self.sampling else { anyhow::bail!("no sampler runs") };
        let _ = sampling.stop.send(());
        let ended = timeout(TICK, &mut sampling.done).await;
        self.sampling = None;
        let ended = ended
            .with_context(|| format!("a tick takes longer than {TICK:?}: a meter or a disk hangs"))?
            .context("the sampler failed")?;
        let same = SourceSettings::of(&self.config).same_observers(&SourceSettings::of(new));
        Ok(if same { Start::from(ended) } else { Start::from(ended).without_observers() })
    }

    /// Waits until the sampler or a service ends by itself, which none should; says which, and why.
    async fn failed(&mut self) -> String {
        let Some(sampling) = &mut self.sampling else { return "no sampler runs".into() };
        tokio::select! {
            why = self.services.failed() => why,
            ended = &mut sampling.done => match ended {
                Ok(_) => "the sampler ended by itself".into(),
                Err(error) => error.to_string(),
            },
        }
    }

    async fn stop(&mut self) {
        if let Some(sampling) = &self.sampling {
            let _ = sampling.stop.send(());
        }
        let sampling = async {
            if let Some(sampling) = &mut self.sampling
                && !sampling.done.is_finished()
                && timeout(GRACE, &mut sampling.done).await.is_err()
            {
                tracing::warn!("the last tick did not end in {GRACE:?} and is abandoned");
            }
        };
        tokio::join!(sampling, self.services.stop(&SERVICES, GRACE));
    }
}

#[cfg(test)]
mod tests;
