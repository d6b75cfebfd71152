//! From a configuration to a running daemon: open sources, bind every door, first snapshot, ready, reload, stop. Decides no numbers.

pub mod args;
pub mod log;
pub mod meters;
mod parts;
pub mod privileges;
pub mod record;
pub mod sampler;
mod service_manager;
mod sources;
pub mod store;

pub use sources::{Others, open};

use crate::config::{Config, ConfigError, LogLevel};
use crate::export::Snapshots;
use crate::model::snapshot::Snapshot;
use crate::run::sampler::{Ended, Sampler};
use anyhow::{Context, Result};
use parts::{Part, Parts};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// Everything has to end within this time after SIGTERM.
const GRACE: Duration = Duration::from_millis(1500);
/// A tick that is under way may take so long when a sampler is to make way for another. A meter that hangs takes longer: then the service manager
/// starts jouled anew.
const TICK: Duration = Duration::from_secs(20);

/// The same configuration within this time is one reload.
const TWICE: Duration = Duration::from_secs(2);

/// What the daemon is given by the program that it is in.
pub struct Program {
    /// Reads the configuration, as the program was told to.
    pub load: Box<dyn Fn() -> Result<Config, ConfigError>>,
    /// Changes what is logged.
    pub set_level: Box<dyn Fn(LogLevel)>,
    /// A recording to make.
    pub record: Option<PathBuf>,
}

/// Runs until SIGTERM, SIGINT, or until something ends that should not. SIGHUP reads the configuration again.
///
/// # Errors
/// Where a door that the configuration names cannot be opened, or a task fails.
pub async fn run(config: Config, program: Program) -> Result<()> {
    // First of all: from now on a signal waits until it is its turn.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let opened = tokio::select! {
        opened = Daemon::open(config, program) => opened?,
        // Whatever hangs must not keep the process: the store has what earlier runs kept.
        () = either(&mut terminate, &mut interrupt) => return Ok(()),
    };
    let (mut daemon, snapshots) = opened;
    tokio::select! {
        started = daemon.start(&Part::ALL) => started?,
        () = either(&mut terminate, &mut interrupt) => return Ok(()),
    }
    tokio::spawn(service_manager::tell(snapshots, daemon.note.subscribe()));
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

/// All that runs, and by which configuration.
struct Daemon {
    config: Config,
    program: Program,
    others: Others,
    publish: Arc<watch::Sender<Arc<Snapshot>>>,
    /// Opened, and not started yet.
    sampler: Option<Sampler>,
    sampling: Option<Sampling>,
    parts: Parts,
    /// What `systemctl status` shows beside what is measured.
    note: watch::Sender<String>,
    /// What the last reload read, and when it was done.
    tried: Option<(Result<Config, String>, Instant)>,
}

impl Daemon {
    async fn open(config: Config, program: Program) -> Result<(Self, Snapshots)> {
        let others = Others::default();
        let activated = service_manager::sockets()?;
        let (of, record, told) = (config.clone(), program.record.clone(), others.clone());
        let opening = spawn_blocking(move || open(&of, record.as_deref(), &told, None));
        let sampler = opening.await.context("opening sources failed")??;
        let (publish, snapshots) = watch::channel(Arc::new(sampler.core.blank()));
        let daemon = Self {
            parts: Parts::new(snapshots.clone(), others.clone(), activated),
            config,
            program,
            others,
            publish: Arc::new(publish),
            sampler: Some(sampler),
            sampling: None,
            note: watch::Sender::new(String::new()),
            tried: None,
        };
        Ok((daemon, snapshots))
    }

    /// Binds `parts`, then ticks if there is a sampler to start, then serves.
    async fn start(&mut self, parts: &[Part]) -> Result<()> {
        let bound = self.parts.bind(parts, &self.config).await?;
        if let Some(sampler) = self.sampler.take() {
            service_manager::watchdog(self.config.interval.0);
            let mut snapshots = self.publish.subscribe();
            let (stop, stopped) = mpsc::channel();
            let publish = Arc::clone(&self.publish);
            let done = spawn_blocking(move || sampler.run(&publish, &stopped, |_| service_manager::fed()));
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
        self.parts.start(bound);
        Ok(())
    }

    /// Reads the configuration again and begins anew what it changes. One that cannot be used changes nothing: what was
    /// stopped for it begins again as it was.
    ///
    /// # Errors
    /// Where jouled cannot go on, not even with the configuration that it had.
    async fn reload(&mut self) -> Result<()> {
        let config = (self.program.load)().map_err(|error| error.to_string());
        // systemd sends SIGHUP itself and runs ExecReload=, too.
        if self.tried.as_ref().is_some_and(|(tried, at)| at.elapsed() < TWICE && *tried == config) {
            return Ok(());
        }
        let refused = match config.clone() {
            Ok(config) => match self.apply(config).await? {
                Ok(changed) => {
                    tracing::info!("configuration read again: {changed}");
                    None
                }
                Err(why) => Some(format!("{why:#}")),
            },
            Err(why) => Some(why),
        };
        self.tried = Some((config, Instant::now()));
        self.note.send_replace(match refused {
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

    /// Goes over to `new`; says what began anew, or why all is as before.
    async fn apply(&mut self, new: Config) -> Result<Result<String>> {
        let anew: Vec<Part> = Part::ALL.into_iter().filter(|part| part.differs(&self.config, &new)).collect();
        let measuring = measures_otherwise(&self.config, &new);
        let mut names: Vec<&str> = anew.iter().map(|part| part.as_str()).collect();
        if measuring {
            names.insert(0, "measuring");
        }
        let changed =
            if names.is_empty() { "nothing begins anew".into() } else { format!("{} began anew", names.join(", ")) };

        if let Err(why) = self.parts.prepare(&new) {
            return Ok(Err(why));
        }
        self.parts.stop(&anew, GRACE).await;
        let mut ended = if measuring { Some(self.end_sampling().await?) } else { None };
        if let Some(ended) = &mut ended
            && !sources::same_observers(&self.config, &new)
        {
            ended.observers = None;
        }
        let old = std::mem::replace(&mut self.config, new);
        let opened = self.open_anew(&mut ended).await;
        let outcome = match opened {
            Ok(()) => self.start(&anew).await,
            Err(error) => Err(error),
        };
        if let Err(why) = outcome {
            self.config = old;
            // One that was opened and could not start, for a door that could not be had, gives back what it took.
            if let Some(sampler) = self.sampler.take() {
                ended = Some(sampler.end());
            } else if measuring && ended.is_none() {
                return Err(why);
            }
            let back = async {
                self.open_anew(&mut ended).await?;
                self.start(&anew).await
            };
            back.await.with_context(|| {
                format!("neither the new configuration can be used ({why:#}) nor the old one any more")
            })?;
            return Ok(Err(why));
        }
        (self.program.set_level)(self.config.log_level);
        Ok(Ok(changed))
    }

    /// Opens a sampler where one made way, of which `ended` is left; it stays only where that fails. Scrapes are answered meanwhile.
    async fn open_anew(&mut self, ended: &mut Option<Ended>) -> Result<()> {
        let Some(mut left) = ended.take() else { return Ok(()) };
        let (config, others) = (self.config.clone(), self.others.clone());
        let opening = spawn_blocking(move || (open(&config, None, &others, Some(&mut left)), left));
        match opening.await.context("opening sources failed")? {
            (Ok(sampler), _) => self.sampler = Some(sampler),
            (Err(why), left) => {
                *ended = Some(left);
                return Err(why);
            }
        }
        Ok(())
    }

    async fn end_sampling(&mut self) -> Result<Ended> {
        service_manager::patience();
        if self.program.record.take().is_some() {
            tracing::warn!("the recording ends here: it is of one configuration");
        }
        let Some(sampling) = &mut self.sampling else { anyhow::bail!("no sampler runs") };
        let _ = sampling.stop.send(());
        let ended = timeout(TICK, &mut sampling.done).await;
        self.sampling = None;
        ended
            .with_context(|| format!("a tick takes longer than {TICK:?}: a meter or a disk hangs"))?
            .context("the sampler failed")
    }

    /// Waits for something to end that should not.
    async fn failed(&mut self) -> String {
        let Some(sampling) = &mut self.sampling else { return "no sampler runs".into() };
        tokio::select! {
            why = self.parts.failed() => why,
            ended = &mut sampling.done => ended.err().map_or_else(|| "the sampler ended by itself".into(), |error| error.to_string()),
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
                tracing::warn!("the last tick did not end in {GRACE:?} and was left");
            }
        };
        tokio::join!(sampling, self.parts.stop(&Part::ALL, GRACE));
    }
}

/// Whether sources have to be opened anew when `old` becomes `new`.
fn measures_otherwise(old: &Config, new: &Config) -> bool {
    let roots =
        |config: &Config| (config.runtime_dir(), config.state_dir(), config.sysfs.clone(), config.procfs.clone());
    let host = |config: &Config| (config.interval, config.node_name.clone(), config.limits());
    roots(old) != roots(new)
        || host(old) != host(new)
        || (&old.meter, &old.usage, &old.attribution) != (&new.meter, &new.usage, &new.attribution)
}

#[cfg(test)]
mod tests;
