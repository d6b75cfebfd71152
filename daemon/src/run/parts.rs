//! The parts that tell others, each by its own piece of the configuration: bound, run, stopped, and begun anew where that piece changed. Samples
//! nothing.

use super::sources::{self, Others};
use crate::config::Config;
use crate::entity::managers;
use crate::export::guest::{self, Guests};
use crate::export::http::web_config::WebConfig;
use crate::export::powercap::Mirror;
use crate::export::{Snapshots, control, dbus, http};
use crate::model::source::{Health, Stamp};
use crate::sys::unix_socket;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use zbus::Address;
use zbus::connection::Builder;

/// A part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// The guest channel.
    Guests,
    /// The metrics page.
    Page,
    /// joulectl's socket.
    Control,
    /// jouled-libvirt's socket.
    Inventory,
    /// systemd-machined.
    Machined,
    /// The powercap mirror.
    Mirror,
    /// org.jouled1 on the system bus.
    Bus,
}

impl Part {
    /// All, in the order in which they are bound.
    pub const ALL: [Self; 7] =
        [Self::Guests, Self::Page, Self::Control, Self::Inventory, Self::Machined, Self::Mirror, Self::Bus];

    /// What it is called in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guests => "guest channel",
            Self::Page => "metrics page",
            Self::Control => "joulectl's socket",
            Self::Inventory => "inventory socket",
            Self::Machined => "systemd-machined",
            Self::Mirror => "powercap mirror",
            Self::Bus => "org.jouled1 on the bus",
        }
    }

    /// Whether it has to begin anew when `old` becomes `new`.
    pub fn differs(self, old: &Config, new: &Config) -> bool {
        let guests = || Self::Guests.differs(old, new);
        match self {
            Self::Guests => {
                let of =
                    |config: &Config| (config.export.guest.clone(), config.attribution.idle, config.procfs.clone());
                of(old) != of(new)
            }
            Self::Page => {
                let of = |config: &Config| {
                    (config.listen.clone(), config.export.prometheus.clone(), config.export.web_config_file.clone())
                };
                guests() || of(old) != of(new)
            }
            Self::Control => guests() || (old.socket(), old.control.mode) != (new.socket(), new.control.mode),
            Self::Inventory => {
                let of = |config: &Config| {
                    (config.inventory_socket(), config.inventory.mode, config.inventory.users.clone())
                };
                of(old) != of(new)
            }
            Self::Machined => old.inventory.machined != new.inventory.machined,
            Self::Mirror => old.export.powercap != new.export.powercap,
            Self::Bus => (&old.export.dbus, &old.procfs) != (&new.export.dbus, &new.procfs),
        }
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Serve = Box<dyn FnOnce(CancellationToken) -> Task + Send>;

/// A part that holds its doors, and does not serve yet.
pub(super) struct Bound {
    part: Part,
    serve: Option<Serve>,
}

/// All that runs.
pub(super) struct Parts {
    snapshots: Snapshots,
    others: Others,
    /// Listeners for the metrics page that the service manager gave: they take the place of those that are configured.
    activated: Vec<TcpListener>,
    /// Listeners for the metrics page, by address as configured: kept as long as these are, so that no scraper is refused meanwhile.
    listeners: Vec<(SocketAddr, TcpListener)>,
    guests: Option<Guests>,
    tasks: JoinSet<()>,
    running: HashMap<Part, (AbortHandle, CancellationToken)>,
    /// Of one that ended by itself while others were being stopped.
    fault: Option<String>,
}

impl Parts {
    /// Nothing runs yet.
    pub fn new(snapshots: Snapshots, others: Others, activated: Vec<TcpListener>) -> Self {
        Self {
            snapshots,
            others,
            activated,
            listeners: Vec::new(),
            guests: None,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            fault: None,
        }
    }

    /// Opens the doors of some parts.
    ///
    /// # Errors
    /// Where one that the configuration names cannot be had; then none is kept.
    pub async fn bind(&mut self, parts: &[Part], config: &Config) -> Result<Vec<Bound>> {
        let mut bound = Vec::new();
        for part in parts {
            bound.push(Bound { part: *part, serve: self.bind_one(*part, config).await? });
        }
        Ok(bound)
    }

    async fn bind_one(&mut self, part: Part, config: &Config) -> Result<Option<Serve>> {
        let snapshots = self.snapshots.clone();
        Ok(Some(match part {
            Part::Guests => {
                let guests = sources::guests(config);
                let channel = guest::bind(guests.clone())?;
                self.guests = Some(guests);
                if !config.export.guest.any() {
                    return Ok(None);
                }
                Box::new(move |stop| Box::pin(channel.serve(snapshots, stop)))
            }
            Part::Page => {
                let web = config.export.web_config_file.as_deref().map(WebConfig::load).transpose()?.map(Arc::new);
                let listeners = self.listeners(&config.listen)?;
                let scheme = if web.as_ref().is_some_and(|web| web.tls().is_some()) { "https" } else { "http" };
                let addresses =
                    listeners.iter().map(|listener| listener.local_addr()).collect::<Result<Vec<_>, _>>()?;
                let router = http::router(snapshots, config.export.prometheus.clone(), self.guests(config), Stamp::now);
                Box::new(move |stop| {
                    addresses.iter().for_each(|address| tracing::info!("metrics at {scheme}://{address}/metrics"));
                    Box::pin(http::serve(listeners, router, web, stop))
                })
            }
            Part::Control => {
                let socket = config.socket();
                let control = control::bind(make_parent(&socket)?, config.control.mode.0)?;
                let guests = self.guests(config);
                Box::new(move |stop| {
                    tracing::info!("joulectl's socket is {}", socket.display());
                    Box::pin(control.serve(snapshots, guests, stop))
                })
            }
            Part::Inventory => {
                let door = unix_socket::bind(make_parent(&config.inventory_socket())?, config.inventory.mode.0)?;
                let (managers, users) = (Arc::clone(&self.others.managers), config.inventory.users.clone());
                Box::new(move |stop| Box::pin(managers::socket::serve(door, managers, users, stop)))
            }
            Part::Machined if config.inventory.machined => {
                let managers = Arc::clone(&self.others.managers);
                Box::new(move |stop| Box::pin(managers::machined::follow(managers, Builder::system, stop)))
            }
            Part::Machined => {
                let why = "not wanted: machined = false in [inventory]".into();
                self.others.managers.set_machined(Vec::new(), Health::Unsupported(why));
                return Ok(None);
            }
            Part::Mirror => {
                let powercap = &config.export.powercap;
                let Some(path) = &powercap.path else { return Ok(None) };
                let mirror = Mirror::open(path, powercap).context("no powercap mirror ([export.powercap] path)")?;
                Box::new(move |stop| {
                    tracing::info!("powercap mirror at {}", mirror.root().display());
                    Box::pin(mirror.serve(snapshots, stop))
                })
            }
            Part::Bus => {
                let (facts, exports) = (sources::process_facts(config), Arc::clone(&self.others.exports));
                let bus = dbus::bind(config.export.dbus.clone(), facts, exports, Address::system).await?;
                Box::new(move |stop| Box::pin(bus.serve(Address::system, snapshots, stop)))
            }
        }))
    }

    fn listeners(&mut self, addresses: &[SocketAddr]) -> Result<Vec<tokio::net::TcpListener>> {
        if !self.activated.is_empty() {
            return http::take(&self.activated).context("sockets of the service manager (jouled.socket)");
        }
        self.listeners.retain(|(address, _)| addresses.contains(address));
        self.listen(&self.missing(addresses))?;
        let listeners =
            addresses.iter().filter_map(|wanted| self.listeners.iter().find(|(address, _)| address == wanted));
        Ok(http::take(listeners.map(|(_, listener)| listener))?)
    }

    /// Those addresses that are not listened on.
    fn missing(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        addresses
            .iter()
            .filter(|wanted| self.listeners.iter().all(|(address, _)| address != *wanted))
            .copied()
            .collect()
    }

    fn listen(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        for (address, listener) in addresses.iter().zip(http::bind(addresses)?) {
            self.listeners.push((*address, listener.into_std()?));
        }
        Ok(())
    }

    /// Before anything is stopped for `config`: whether what is refused most often can be had.
    ///
    /// # Errors
    /// Where the page's TLS and passwords cannot be used, or its new addresses cannot be listened on.
    pub fn prepare(&mut self, config: &Config) -> Result<()> {
        config.export.web_config_file.as_deref().map(WebConfig::load).transpose()?;
        let missing = self.missing(&config.listen);
        // One on the port of another can be had only when that is given up.
        let shared = missing.iter().any(|new| self.listeners.iter().any(|(old, _)| old.port() == new.port()));
        if self.activated.is_empty() && !shared { self.listen(&missing) } else { Ok(()) }
    }

    fn guests(&mut self, config: &Config) -> Guests {
        self.guests.get_or_insert_with(|| sources::guests(config)).clone()
    }

    /// Begins to serve.
    pub fn start(&mut self, bound: Vec<Bound>) {
        for Bound { part, serve } in bound {
            let Some(serve) = serve else { continue };
            let stop = CancellationToken::new();
            let task = self.tasks.spawn(serve(stop.clone()));
            self.running.insert(part, (task, stop));
        }
    }

    /// Ends some parts, and all that they hold; what does not end within `grace` is broken off, and told of.
    pub async fn stop(&mut self, parts: &[Part], grace: Duration) {
        let mut ending: HashMap<Id, (Part, AbortHandle)> = HashMap::new();
        for part in parts {
            if let Some((task, stop)) = self.running.remove(part) {
                stop.cancel();
                ending.insert(task.id(), (*part, task));
            }
        }
        let ended = async {
            while !ending.is_empty() {
                let Some(ended) = self.tasks.join_next_with_id().await else { break };
                if ending.remove(&id_of(&ended)).is_none() {
                    self.fault = self.fault.take().or(fault(&self.running, ended));
                }
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            for (part, task) in ending.values() {
                tracing::warn!("{} did not end in {grace:?} and is broken off", part.as_str());
                task.abort();
            }
        }
    }

    /// Waits for a part that ends by itself, which none should; says which and why.
    pub async fn failed(&mut self) -> String {
        if let Some(fault) = self.fault.take() {
            return fault;
        }
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else { std::future::pending().await };
            if let Some(fault) = fault(&self.running, ended) {
                return fault;
            }
        }
    }
}

/// Which part that runs ended so; `None`: one that was told to, and took long.
fn fault(
    running: &HashMap<Part, (AbortHandle, CancellationToken)>,
    ended: Result<(Id, ()), JoinError>,
) -> Option<String> {
    let id = id_of(&ended);
    let part = running.iter().find(|(_, (task, _))| task.id() == id).map(|(part, _)| part.as_str())?;
    Some(match ended {
        Ok(_) => format!("{part}: ended by itself"),
        Err(error) => format!("{part}: {error}"),
    })
}

fn id_of(ended: &Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    }
}

fn make_parent(socket: &Path) -> Result<&Path> {
    if let Some(dir) = socket.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    Ok(socket)
}
