//! org.jouled1 with made snapshots on a bus of a test's own, and somebody who asks it. No daemon, no meter.

use super::Bus;
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

/// The export with made snapshots, in a thread and runtime of its own, as jouled has it.
pub struct Served {
    /// Where the next one goes.
    pub publish: watch::Sender<Arc<Snapshot>>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    /// Serves `first` until this is dropped.
    pub fn start(bus: &Bus, first: Snapshot) -> Self {
        let (publish, snapshots) = watch::channel(Arc::new(first));
        let (stop, address) = (CancellationToken::new(), bus.address.clone());
        let stopped = stop.clone();
        let facts = Facts { cgroup_of: Arc::new(|_| None), owner_of: Arc::new(|_| None), machine_id: "0".repeat(32) };
        let config = DbusConfig { mode: DbusMode::On, ..DbusConfig::default() };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let address = move || Address::try_from(address.as_str());
                let served =
                    dbus::bind(config, facts, jouled::run::Others::default().exports, address.clone()).await.unwrap();
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

/// As jouled has it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Somebody who asks.
pub struct Client(pub Connection);

impl Client {
    /// On this bus.
    pub async fn new(bus: &Bus) -> Self {
        let connection = Builder::address(bus.address.as_str()).method_timeout(super::PATIENCE).build();
        Self(connection.await.unwrap())
    }

    /// A call to jouled.
    pub async fn call<B: serde::Serialize + zbus::DynamicType>(
        &self,
        path: &str,
        interface: &str,
        member: &str,
        body: &B,
    ) -> zbus::Result<Message> {
        self.0.call_method(Some(NAME), path, Some(interface), member, body).await
    }

    /// A property.
    pub async fn get(&self, path: &str, interface: &str, property: &str) -> OwnedVariant {
        let reply = self.call(path, PROPERTIES, "Get", &(interface, property)).await.unwrap();
        reply.body().deserialize().unwrap()
    }

    /// A unit's energy in µJ.
    pub async fn energy(&self, path: &str) -> u64 {
        u64::try_from(self.get(path, "org.jouled1.Unit", "EnergyMicrojoules").await).unwrap()
    }
}

/// The next message of a stream.
pub async fn next(stream: &mut MessageStream) -> Message {
    let next = std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context));
    tokio::time::timeout(super::PATIENCE, next).await.unwrap().unwrap().unwrap()
}

/// A call that is to be changed before it is sent.
pub fn request(path: &str, interface: &str, member: &str) -> zbus::message::Builder<'static> {
    Message::method_call(path.to_owned(), member.to_owned()).destination(NAME).interface(interface.to_owned())
}
