//! The exports as services: guest channel, metrics page, joulectl's socket, powercap mirror, system bus, job log.

use super::listeners::Listeners;
use super::{ModelSettings, Registration, Serve, Shared, serve};
use crate::config::Config;
use crate::entity::{cgroups, path};
use crate::export::dbus::{self, DbusConfig};
use crate::export::guest::{self, GuestConfig, Guests, HostFacts};
use crate::export::history::{self, Reports};
use crate::export::http::web_config::WebConfig;
use crate::export::job_log::{self, JobLog, JobsConfig};
use crate::export::models;
use crate::export::page::{self, PageConfig, PageUse};
use crate::export::powercap::{Mirror, PowercapOptions};
use crate::export::prometheus::{Dialects, PrometheusOptions};
use crate::export::push::{self, Receiver};
use crate::export::{control, http};
use crate::footprint::CarbonConfig;
use crate::history::HistoryConfig;
use crate::history::report::Declared;
use crate::model::billing::IdlePolicy;
use crate::model::source::Stamp;
use crate::model::values::Use;
use crate::run::sources::{boot_id, machine_id};
use crate::sys::{proc_pid, unix_socket};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zbus::Address;

/// `[export.guest]`: each VM is served its own energy.
pub(super) struct GuestChannel;

/// Also part of the settings of services that show the VMs of the channel, so that these restart with it.
#[derive(Clone, PartialEq)]
pub(super) struct GuestSettings {
    channel: GuestConfig,
    /// Part of what guests read: the policy for idle energy.
    idle: IdlePolicy,
    procfs: PathBuf,
}

impl Registration for GuestChannel {
    const NAME: &'static str = "guest channel";
    type Settings = GuestSettings;

    fn settings(config: &Config) -> GuestSettings {
        GuestSettings {
            channel: config.export.guest.clone(),
            idle: config.attribution.idle,
            procfs: config.procfs.clone(),
        }
    }

    async fn bind(settings: GuestSettings, shared: &mut Shared) -> Result<Option<Serve>> {
        let guests = settings.guests();
        let channel = guest::bind(guests.clone())?;
        shared.guests = Some(guests);
        if !settings.channel.any() {
            return Ok(None);
        }
        let snapshots = shared.snapshots.clone();
        Ok(Some(serve(move |stop| channel.serve(snapshots, stop))))
    }
}

impl GuestSettings {
    fn guests(&self) -> Guests {
        let (boot_id, machine_id, procfs) = (boot_id(&self.procfs), machine_id(), self.procfs.clone());
        let host = HostFacts {
            machine_id: if machine_id.is_empty() { boot_id.clone() } else { machine_id },
            boot_id,
            idle: self.idle,
            alive: Arc::new(move |process| proc_pid::process(&procfs, process.pid) == Some(process)),
            procfs: self.procfs.clone(),
            connections: if self.channel.any_transport() { guest::connections() } else { 0 },
        };
        Guests::new(self.channel.clone(), host)
    }

    /// The VMs of the running channel.
    fn running(&self, shared: &mut Shared) -> Guests {
        shared.guests.get_or_insert_with(|| self.guests()).clone()
    }
}

/// `listen` and `[export.prometheus]`: the metrics page.
pub(super) struct MetricsPage;

#[derive(PartialEq)]
pub(super) struct PageSettings {
    listen: Vec<SocketAddr>,
    web_config_file: Option<PathBuf>,
    options: PrometheusOptions,
    page: PageConfig,
    guests: GuestSettings,
    /// `None`: the page has no models.
    models: Option<ModelSettings>,
}

impl Registration for MetricsPage {
    const NAME: &'static str = "metrics page";
    type Settings = PageSettings;

    fn settings(config: &Config) -> PageSettings {
        PageSettings {
            listen: config.listen.clone(),
            web_config_file: config.export.web_config_file.clone(),
            options: config.export.prometheus.clone(),
            page: config.export.page,
            guests: GuestChannel::settings(config),
            models: config.export.models.serve.then(|| ModelSettings::of(config)),
        }
    }

    async fn bind(settings: PageSettings, shared: &mut Shared) -> Result<Option<Serve>> {
        let web = web_config(settings.web_config_file.as_deref())?.map(Arc::new);
        let listeners = shared.listeners.take(&settings.listen)?;
        let scheme = if web.as_ref().is_some_and(|web| web.tls().is_some()) { "https" } else { "http" };
        let addresses = listeners.iter().map(|listener| listener.local_addr()).collect::<Result<Vec<_>, _>>()?;
        let guests = settings.guests.running(shared);
        let (texts, snapshots) = (http::SharedTexts::default(), shared.snapshots.clone());
        let levels = settings.options.levels.clone();
        let router = http::router(
            &texts,
            snapshots.clone(),
            settings.options,
            guests.clone(),
            shared.receivers.clone(),
            Stamp::now,
        );
        let router = router.merge(history::routes(shared.history.clone(), shared.snapshots.clone()));
        let router = match &settings.models {
            Some(models) => router.merge(models::http::routes(shared.models(models))),
            None => router,
        };
        let feed = (settings.page.wanted == PageUse::On).then(|| Arc::clone(&shared.page));
        Ok(Some(serve(move |stop| async move {
            for address in addresses {
                if feed.is_some() {
                    tracing::info!("the page to look at is {scheme}://{address}/");
                }
                tracing::info!("metrics at {scheme}://{address}/metrics");
            }
            match feed {
                Some(feed) => {
                    let router = router.merge(page::routes(&texts, Arc::clone(&feed), guests, stop.clone()));
                    tokio::join!(feed.run(snapshots, levels, stop.clone()), http::serve(listeners, router, web, stop));
                }
                None => http::serve(listeners, router.merge(http::bare(&texts, snapshots)), web, stop).await,
            }
        })))
    }
}

fn web_config(file: Option<&Path>) -> Result<Option<WebConfig>> {
    Ok(file.map(WebConfig::load).transpose()?)
}

/// Checks the files that the exports are configured by, without opening anything.
/// Returns a note where one is not there yet.
pub(super) fn check(config: &Config) -> Result<Option<String>> {
    let file = config.export.web_config_file.as_deref();
    match file.filter(|file| !file.exists()) {
        Some(missing) => {
            Ok(Some(format!("{}: there is no such file; jouled does not start without it", missing.display())))
        }
        None => web_config(file).map(|_| None),
    }
}

/// Tries what the metrics page may fail at, before anything is stopped.
pub(super) fn prepare(config: &Config, listeners: &mut Listeners) -> Result<()> {
    let settings = MetricsPage::settings(config);
    web_config(settings.web_config_file.as_deref())?;
    listeners.prepare(&settings.listen)
}

/// `[control]`: joulectl's socket.
pub(super) struct ControlSocket;

#[derive(PartialEq)]
pub(super) struct ControlSettings {
    socket: PathBuf,
    mode: u32,
    guests: GuestSettings,
}

impl Registration for ControlSocket {
    const NAME: &'static str = "joulectl's socket";
    type Settings = ControlSettings;

    fn settings(config: &Config) -> ControlSettings {
        ControlSettings { socket: config.socket(), mode: config.control.mode.0, guests: GuestChannel::settings(config) }
    }

    async fn bind(settings: ControlSettings, shared: &mut Shared) -> Result<Option<Serve>> {
        let control = control::bind(&settings.socket, settings.mode)?;
        let (snapshots, guests) = (shared.snapshots.clone(), settings.guests.running(shared));
        let reports = shared.history.clone();
        Ok(Some(serve(move |stop| {
            tracing::info!("joulectl's socket is {}", settings.socket.display());
            control.serve(snapshots, guests, reports, stop)
        })))
    }
}

/// `[export.powercap]`: the powercap mirror.
pub(super) struct PowercapMirror;

impl Registration for PowercapMirror {
    const NAME: &'static str = "powercap mirror";
    type Settings = PowercapOptions;

    fn settings(config: &Config) -> PowercapOptions {
        config.export.powercap.clone()
    }

    async fn bind(settings: PowercapOptions, shared: &mut Shared) -> Result<Option<Serve>> {
        let Some(path) = &settings.path else { return Ok(None) };
        let mirror = Mirror::open(path, &settings).context("no powercap mirror ([export.powercap] path)")?;
        let snapshots = shared.snapshots.clone();
        Ok(Some(serve(move |stop| {
            tracing::info!("powercap mirror at {}", mirror.root().display());
            mirror.serve(snapshots, stop)
        })))
    }
}

/// `[export.dbus]`: org.jouled1 on the system bus.
pub(super) struct SystemBus;

#[derive(PartialEq)]
pub(super) struct BusSettings {
    dbus: DbusConfig,
    /// Callers ask about processes.
    procfs: PathBuf,
}

impl Registration for SystemBus {
    const NAME: &'static str = "org.jouled1 on the bus";
    type Settings = BusSettings;

    fn settings(config: &Config) -> BusSettings {
        BusSettings { dbus: config.export.dbus.clone(), procfs: config.procfs.clone() }
    }

    async fn bind(settings: BusSettings, shared: &mut Shared) -> Result<Option<Serve>> {
        let health = shared.reports.exports.slot(dbus::SOURCE);
        let bus =
            dbus::bind(settings.dbus, process_facts(&settings.procfs, shared.history.clone()), health, Address::system)
                .await?;
        let snapshots = shared.snapshots.clone();
        Ok(Some(serve(move |stop| bus.serve(Address::system, snapshots, stop))))
    }
}

/// `estimator` of `[export.models]`: the socket of Kepler's estimator.
pub(super) struct Estimator;

#[derive(PartialEq)]
pub(super) struct EstimatorSettings {
    socket: PathBuf,
    mode: u32,
    models: ModelSettings,
}

impl Registration for Estimator {
    const NAME: &'static str = "estimator's socket";
    type Settings = Option<EstimatorSettings>;

    fn settings(config: &Config) -> Option<EstimatorSettings> {
        let (of, models) = (&config.export.models, ModelSettings::of(config));
        of.estimator.clone().map(|socket| EstimatorSettings { socket, mode: of.mode.0, models })
    }

    async fn bind(settings: Option<EstimatorSettings>, shared: &mut Shared) -> Result<Option<Serve>> {
        let Some(EstimatorSettings { socket: path, mode, models }) = settings else { return Ok(None) };
        let socket = unix_socket::bind(&path, mode)?;
        let models = shared.models(&models);
        Ok(Some(serve(move |stop| {
            tracing::info!("the estimator's socket is {}", path.display());
            models::estimator::serve(socket, models, stop)
        })))
    }
}

/// `[[export.push]]`: metrics that are sent to receivers.
pub(super) struct Push;

#[derive(PartialEq)]
pub(super) struct PushSettings {
    receivers: Vec<Receiver>,
    folder: PathBuf,
    /// Names on the metrics page.
    dialects: Dialects,
}

impl Registration for Push {
    const NAME: &'static str = "push";
    /// `None`: nothing is sent.
    type Settings = Option<PushSettings>;

    fn settings(config: &Config) -> Option<PushSettings> {
        let receivers = config.export.push.clone();
        let dialects = config.export.prometheus.dialects;
        (!receivers.is_empty()).then(|| PushSettings { receivers, folder: config.state_dir(), dialects })
    }

    async fn bind(settings: Option<PushSettings>, shared: &mut Shared) -> Result<Option<Serve>> {
        let Some(PushSettings { receivers, folder: state_dir, dialects }) = settings else {
            shared.receivers.keep(&[]);
            return Ok(None);
        };
        let (board, health) = (shared.receivers.clone(), shared.reports.exports.clone());
        let common = push::Common { state_dir, dialects, board, health };
        let snapshots = shared.snapshots.clone();
        Ok(Some(serve(move |stop| {
            receivers.iter().for_each(|receiver| tracing::info!("metrics are sent to {}", receiver.authority()));
            push::serve(receivers, common, snapshots, stop)
        })))
    }
}

/// `[export.jobs]`: a line for each job at its end.
pub(super) struct JobLines;

impl Registration for JobLines {
    const NAME: &'static str = "job log";
    type Settings = JobsConfig;

    fn settings(config: &Config) -> JobsConfig {
        config.export.jobs.clone()
    }

    async fn bind(settings: JobsConfig, shared: &mut Shared) -> Result<Option<Serve>> {
        let JobsConfig { log } = settings;
        if log == JobLog::Off {
            return Ok(None);
        }
        let (health, snapshots) = (shared.reports.exports.slot(job_log::SOURCE), shared.snapshots.clone());
        Ok(Some(serve(move |stop| job_log::serve(log, snapshots, health, stop))))
    }
}

/// `[history]`: energy over time, kept on this machine.
pub(super) struct History;

#[derive(PartialEq)]
pub(super) struct HistorySettings {
    config: HistoryConfig,
    folder: PathBuf,
    declared: Declared,
}

impl Registration for History {
    const NAME: &'static str = "history";
    type Settings = HistorySettings;

    fn settings(config: &Config) -> HistorySettings {
        let CarbonConfig { embodied_kg, lifetime_years, .. } = config.carbon;
        let declared = Declared { pue: config.report.pue, embodied_kg, lifetime_years };
        HistorySettings { config: config.history, folder: config.state_dir(), declared }
    }

    async fn bind(settings: HistorySettings, shared: &mut Shared) -> Result<Option<Serve>> {
        shared.history.declare(settings.declared);
        if settings.config.wanted == Use::Never {
            return Ok(Some(serve(move |stop| history::off(settings.folder, stop))));
        }
        let (health, snapshots) = (shared.reports.exports.slot(history::SOURCE), shared.snapshots.clone());
        let (reports, limit) = (shared.history.clone(), u64::from(settings.config.size_mb) * 1_000_000);
        Ok(Some(serve(move |stop| history::serve(settings.folder, limit, reports, snapshots, health, stop))))
    }
}

/// What callers on the bus may ask about a process.
fn process_facts(procfs: &Path, reports: Reports) -> dbus::Facts {
    let (for_cgroup, for_owner) = (procfs.to_owned(), procfs.to_owned());
    let owner_of = move |pid| {
        let process = || proc_pid::process(&for_owner, pid);
        let (before, uids) = (process()?, proc_pid::uids(&for_owner, pid));
        // The pid may be reused between the two reads.
        (process() == Some(before)).then(|| dbus::Owner { uids, began: before.began() })
    };
    let place_of = move |pid| {
        let cgroup = cgroups::path_of(&for_cgroup, pid)?;
        Some(dbus::Place { entities: path::entities(&cgroup), cgroup })
    };
    dbus::Facts { place_of: Arc::new(place_of), owner_of: Arc::new(owner_of), machine_id: machine_id(), reports }
}
