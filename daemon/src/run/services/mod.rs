//! The services that run beside the sampler: exports, and the endpoints on which managers of VMs report. One
//! registration for each.
//!
//! A service is registered by implementing [`Registration`] and adding a line to [`SERVICES`]. It is bound with its
//! [`Settings`](Registration::Settings) and sees nothing else of the configuration, and a reload restarts it where
//! its settings changed. So a key that a service uses is compared at a reload, and a key that is not compared cannot
//! be used.
//!
//! [`super::supervisor`] starts and stops services; it knows none of them.

mod exports;
mod listeners;
mod managers;

use self::listeners::Listeners;
use super::models;
use super::sources::Reports;
use crate::config::Config;
use crate::export::Snapshots;
use crate::export::guest::Guests;
use crate::export::history::Reports as EnergyReports;
use crate::export::models::SharedModels;
use crate::export::page::Feed;
use crate::export::push::Board;
use crate::meter::Roots;
use crate::model::values::Use;
use crate::power_model::kepler::models::Models;
use anyhow::Result;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// All services, in the order in which they are bound.
pub(super) static SERVICES: [&Service; 11] = [
    &Service::of::<exports::GuestChannel>(),
    &Service::of::<exports::MetricsPage>(),
    &Service::of::<exports::ControlSocket>(),
    &Service::of::<managers::InventorySocket>(),
    &Service::of::<managers::Machined>(),
    &Service::of::<exports::PowercapMirror>(),
    &Service::of::<exports::SystemBus>(),
    &Service::of::<exports::Estimator>(),
    &Service::of::<exports::JobLines>(),
    &Service::of::<exports::History>(),
    &Service::of::<exports::Push>(),
];

/// One service: its name, its piece of the configuration, and how it is bound. Its health, where it has one, is set
/// in `bind` or later through its slot on the board of [`Reports::exports`].
trait Registration {
    /// What the log calls it.
    const NAME: &'static str;
    /// All of the configuration that it uses.
    type Settings: PartialEq;

    /// Its piece of the configuration.
    fn settings(config: &Config) -> Self::Settings;

    /// Opens what it serves on, and whatever else can fail. `None`: the settings do not want it to run.
    async fn bind(settings: Self::Settings, shared: &mut Shared) -> Result<Option<Serve>>;
}

/// What a service does once it is bound: it runs until the token is cancelled.
pub(super) type Serve = Box<dyn FnOnce(CancellationToken) -> Task + Send>;
/// A running service.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

fn serve<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Serve {
    Box::new(move |stop| Box::pin(run(stop)))
}

type Binding<'a> = Pin<Box<dyn Future<Output = Result<Option<Serve>>> + 'a>>;

/// A registered service.
pub(super) struct Service {
    /// What the log calls it.
    pub name: &'static str,
    differs: fn(&Config, &Config) -> bool,
    bind: for<'a> fn(&Config, &'a mut Shared) -> Binding<'a>,
}

impl Service {
    const fn of<R: Registration + 'static>() -> Self {
        Self {
            name: R::NAME,
            differs: |old, new| R::settings(old) != R::settings(new),
            bind: |config, shared| Box::pin(R::bind(R::settings(config), shared)),
        }
    }

    /// Whether it has to be restarted when `old` is replaced by `new`.
    pub fn differs(&self, old: &Config, new: &Config) -> bool {
        (self.differs)(old, new)
    }

    /// Opens what it serves on. `None`: the configuration does not want it to run.
    ///
    /// # Errors
    /// Where the configuration names something that cannot be had.
    pub async fn bind(&self, config: &Config, shared: &mut Shared) -> Result<Option<Serve>> {
        (self.bind)(config, shared).await
    }
}

/// What reading the models needs of the configuration, for the services that serve them.
#[derive(Clone, PartialEq)]
struct ModelSettings {
    sources: models::Sources,
    roots: Roots,
}

impl ModelSettings {
    fn of(config: &Config) -> Self {
        let roots = Roots { sysfs: config.sysfs.clone(), procfs: config.procfs.clone() };
        let models = &config.export.models;
        let sources = models::Sources {
            folders: models.folders.clone(),
            trusted_keys: models.trusted_keys.clone(),
            require_signatures: models.require_signatures,
        };
        Self { sources, roots }
    }

    /// Whether anything uses the models: the estimate, or an export of them.
    fn are_used(config: &Config) -> bool {
        config.meter.estimate.r#use != Use::Never || config.export.models.any()
    }

    /// `said`: the lines that the log has already; those of files that still are as they were are not repeated.
    fn read(&self, said: &mut models::Lines) -> Arc<Models> {
        let (models, lines) = models::read(&self.sources, &self.roots);
        for (act, line) in lines.difference(said) {
            if *act {
                tracing::warn!("models: {line}");
            } else {
                tracing::info!("models: {line}");
            }
        }
        *said = lines;
        Arc::new(models)
    }
}

/// Power models that were read.
#[derive(Default)]
pub(super) struct ReadModels {
    /// `None`: nothing uses them.
    models: Option<Arc<Models>>,
    /// What the log says of their files.
    said: models::Lines,
}

/// Reads the files of models, where anything uses them, and hands those of jouled to the estimate.
pub(super) fn read_models(config: &Config, reports: &Reports) -> ReadModels {
    let mut said = models::Lines::new();
    let models = ModelSettings::are_used(config).then(|| ModelSettings::of(config).read(&mut said));
    if let Some(models) = &models {
        reports.installed.send_replace(models::installed(models));
    }
    ReadModels { models, said }
}

/// What services share, and what outlives a restart of one of them.
pub(super) struct Shared {
    snapshots: Snapshots,
    reports: Reports,
    listeners: Listeners,
    /// The VMs of the guest channel, which the metrics page and joulectl's socket show as well.
    guests: Option<Guests>,
    /// Power models, read at the start and at each reload. `None`: nothing needed them yet.
    models: Option<watch::Sender<Arc<Models>>>,
    /// What the log says of their files.
    said_of_models: models::Lines,
    /// Reports of the history, which the metrics page and joulectl's socket answer.
    history: EnergyReports,
    /// What the page shows: its curves outlive a reload.
    page: Arc<Feed>,
    /// What became of samples for receivers, which the metrics page shows; it goes on over a reload.
    receivers: Board,
}

impl Shared {
    /// `activated`: listeners of the metrics page that the service manager passed. They replace those of the
    /// configuration.
    pub fn new(snapshots: Snapshots, reports: Reports, activated: Vec<TcpListener>, models: ReadModels) -> Self {
        Self {
            snapshots,
            reports,
            listeners: Listeners::new(activated),
            guests: None,
            models: models.models.map(watch::Sender::new),
            said_of_models: models.said,
            history: EnergyReports::default(),
            page: Arc::default(),
            receivers: Board::default(),
        }
    }

    /// The models, which are read where nothing needed them before.
    fn models(&mut self, config: &ModelSettings) -> SharedModels {
        let said = &mut self.said_of_models;
        self.models.get_or_insert_with(|| watch::Sender::new(config.read(said))).subscribe()
    }

    /// Reads the files of models again, where they are in use.
    pub fn read_models_again(&mut self, config: &Config) {
        if self.models.is_none() && !ModelSettings::are_used(config) {
            return;
        }
        let models = ModelSettings::of(config).read(&mut self.said_of_models);
        self.reports.installed.send_replace(models::installed(&models));
        match &self.models {
            Some(known) => drop(known.send_replace(models)),
            None => self.models = Some(watch::Sender::new(models)),
        }
    }

    /// Checks what a reload fails at most often, before anything is stopped for it.
    ///
    /// # Errors
    /// Where TLS and passwords of the metrics page cannot be used, or its new addresses cannot be listened on.
    pub fn prepare(&mut self, config: &Config) -> Result<()> {
        exports::prepare(config, &mut self.listeners)
    }
}

/// Checks the files that the configuration of services names.
///
/// # Errors
/// Where the start would refuse one of them.
pub(super) fn check(config: &Config) -> Result<Option<String>> {
    exports::check(config)
}
