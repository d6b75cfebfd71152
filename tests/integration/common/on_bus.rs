//! org.jouled1 on a private bus, with made-up snapshots, and a client for it. No daemon, no meter.

use super::Bus;
use jouled::export::HealthBoard;
use jouled::export::dbus::{self, DbusConfig, DbusMode, Facts, NAME};
use jouled::model::snapshot::Snapshot;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zbus::connection::Builder;
use zbus::export::futures_core::Stream;
use zbus::{Address, Connection, Message, MessageStream, OwnedVariant};

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The D-Bus export with made-up snapshots, on a thread and runtime of its own, as in jouled.
pub struct Served {
    /// The channel for the next snapshot.
    pub publish: watch::Sender<Arc<Snapshot>>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    /// Serves `first`, then what is published, until this is dropped.
    pub fn start(bus: &Bus, first: Snapshot) -> Self {
        let (publish, snapshots) = watch::channel(Arc::new(first));
        let (stop, address) = (CancellationToken::new(), bus.address.clone());
        let stopped = stop.clone();
        let facts = Facts {
            place_of: Arc::new(|_| None),
            owner_of: Arc::new(|_| None),
            machine_id: "0".repeat(32),
            reports: Default::default(),
        };
        let config = DbusConfig { mode: DbusMode::On, ..DbusConfig::default() };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let address = move || Address::try_from(address.as_str());
                let served = dbus::bind(config, facts, HealthBoard::default().slot(dbus::SOURCE), address.clone())
                    .await
                    .unwrap();
                ready.send(()).unwrap();
                served.serve(address, snapshots, stopped).await;
            });
        });
        is_ready.recv().unwrap();
        Self { publish, stop, thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// A runtime as jouled's.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A client of the bus.
pub struct Client(pub Connection);

impl Client {
    /// Connects to this bus.
    pub async fn new(bus: &Bus) -> Self {
        let connection = Builder::address(bus.address.as_str()).method_timeout(super::PATIENCE).build();
        Self(connection.await.unwrap())
    }

    /// Calls a method of jouled.
    pub async fn call<B: serde::Serialize + zbus::DynamicType>(
        &self,
        path: &str,
        interface: &str,
        member: &str,
        body: &B,
    ) -> zbus::Result<Message> {
        self.0.call_method(Some(NAME), path, Some(interface), member, body).await
    }

    /// Gets a property.
    pub async fn get(&self, path: &str, interface: &str, property: &str) -> OwnedVariant {
        let reply = self.call(path, PROPERTIES, "Get", &(interface, property)).await.unwrap();
        reply.body().deserialize().unwrap()
    }

    /// Energy of a unit in µJ.
    pub async fn energy(&self, path: &str) -> u64 {
        u64::try_from(self.get(path, "org.jouled1.Unit", "EnergyMicrojoules").await).unwrap()
    }
}

/// The next message of a stream.
pub async fn next(stream: &mut MessageStream) -> Message {
    let next = std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context));
    tokio::time::timeout(super::PATIENCE, next).await.unwrap().unwrap().unwrap()
}

/// A method call to jouled, to be changed before it is sent.
pub fn request(path: &str, interface: &str, member: &str) -> zbus::message::Builder<'static> {
    Message::method_call(path.to_owned(), member.to_owned()).destination(NAME).interface(interface.to_owned())
}
