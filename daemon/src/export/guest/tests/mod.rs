//! Tests of the guest channel over Unix sockets: a made-up host, and guests that are this process.

mod acpi;
mod epochs;
mod folders;
mod hostile;
mod hybrid;
mod identity;

use super::*;
use crate::export::prometheus::tests::{row, snapshot as sample};
use crate::model::billing::IdlePolicy;
use crate::model::domain::Zone;
use crate::model::entity::Kind;
use crate::model::snapshot::{Row, Snapshot, State};
use crate::model::units::{Microjoules, Nanos};
use crate::model::usage::ProcessKey;
use crate::model::vm::{Vm, Vmm};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// A VM: number `n` of the host.
pub(super) fn vm(n: u32) -> Vm {
    Vm {
        id: format!("00000000-0000-0000-0000-{n:012}"),
        name: format!("vm{n}"),
        hypervisor: "kvm".into(),
        uuid: Some(format!("00000000-0000-0000-0000-{n:012}")),
        vmm: Vmm::Firecracker,
        process: ProcessKey { pid: std::process::id(), start: 1000 + u64::from(n) },
        vcpus: Some(2),
        cid: Some(100 + n),
        vhost_user: Vec::new(),
        pci: Vec::new(),
        vouched: true,
        manager: String::new(),
        state: String::new(),
        title: String::new(),
        profile: None,
        details: Default::default(),
    }
}

/// A host with VMs and what each was charged in the package zone.
pub(super) struct Host {
    pub vms: BTreeMap<u32, (Vm, u64)>,
    pub snapshot: Snapshot,
}

impl Host {
    pub fn new(vms: impl IntoIterator<Item = Vm>) -> Self {
        let vms = vms.into_iter().enumerate().map(|(n, vm)| (n as u32, (vm, 0))).collect();
        let mut host = Self { vms, snapshot: sample() };
        host.tick(0);
        host.meet();
        host
    }

    pub fn row(vm: &Vm, energy: u64) -> Row {
        let mut row = row(Kind::Vm, &[&vm.id, &vm.name, &vm.hypervisor], 0, State::Running);
        row.energy.dynamic[Zone::Package.index()] = Microjoules(energy);
        row
    }

    /// Makes the list of VMs anew.
    pub fn meet(&mut self) {
        self.snapshot.vms = self.vms.values().map(|(vm, _)| vm.clone()).collect();
    }

    pub fn charge(&mut self, vm: u32, energy: u64) {
        self.vms.get_mut(&vm).unwrap().1 += energy;
    }

    /// Time goes on by so many milliseconds; all domains are read.
    pub fn tick(&mut self, millis: u64) -> Arc<Snapshot> {
        let time = Nanos(millis * 1_000_000);
        let at = &mut self.snapshot.at;
        (at.monotonic, at.boottime, at.realtime) = (at.monotonic + time, at.boottime + time, at.realtime + time);
        let now = at.monotonic;
        self.snapshot.domains.iter_mut().for_each(|view| view.read_at = Some(now));
        self.snapshot.ticks += 1;
        let rows = self.vms.values().map(|(vm, energy)| Self::row(vm, *energy)).collect();
        self.snapshot.kinds[Kind::Vm.index()].rows = rows;
        Arc::new(self.snapshot.clone())
    }
}

/// Guests of a host where every process lives, except those that were said to have ended.
pub(super) fn guests(config: GuestConfig) -> (Guests, Arc<Mutex<Vec<ProcessKey>>>) {
    let dead = Arc::new(Mutex::new(Vec::new()));
    let of = Arc::clone(&dead);
    let host = HostFacts {
        machine_id: "0123456789abcdef".into(),
        boot_id: "boot".into(),
        idle: IdlePolicy::Apart,
        alive: Arc::new(move |process| !of.lock().unwrap().contains(&process)),
        procfs: "/proc".into(),
        connections: 10_000,
    };
    (Guests::new(config, host), dead)
}

/// The channel of a host without VMs.
pub(in crate::export) fn nobody() -> Guests {
    guests(GuestConfig::default()).0
}

/// The channel over real sockets.
pub(super) struct Server {
    pub host: Host,
    pub guests: Guests,
    pub dead: Arc<Mutex<Vec<ProcessKey>>>,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub fn start(config: GuestConfig, mut host: Host) -> Self {
        let (guests, dead) = guests(config);
        let (snapshots, receiver) = watch::channel(host.tick(0));
        let stop = CancellationToken::new();
        let task = tokio::spawn(bind(guests.clone()).unwrap().serve(receiver, stop.clone()));
        Self { host, guests, dead, snapshots, stop, task }
    }

    pub fn tick(&mut self, millis: u64) {
        self.snapshots.send_replace(self.host.tick(millis));
    }

    pub async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(2), self.task).await.unwrap().unwrap();
    }
}

/// Connects as soon as the socket is there.
pub(super) async fn dial(path: &Path) -> UnixStream {
    for _ in 0..500 {
        if let Ok(stream) = UnixStream::connect(path).await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody listens at {}", path.display())
}

/// One request: status and body.
pub(super) async fn get(mut io: UnixStream, path: &str) -> (u16, String) {
    io.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// AF_VSOCK as far as this machine may have it: a Unix socket whose clients' names say their CID and port.
pub(super) struct Cids {
    pub server: Server,
    dir: tempfile::TempDir,
    dialled: std::cell::Cell<u32>,
}

struct CidListener(tokio::net::UnixListener);

impl axum::serve::Listener for CidListener {
    type Io = UnixStream;
    type Addr = (u32, u32);

    async fn accept(&mut self) -> (UnixStream, (u32, u32)) {
        let (io, peer) = self.0.accept().await.unwrap();
        let name = peer.as_pathname().unwrap().file_name().unwrap().to_str().unwrap();
        let mut numbers = name.split('.').map(|number| number.parse().unwrap());
        (io, (numbers.next().unwrap(), numbers.next().unwrap()))
    }

    fn local_addr(&self) -> io::Result<(u32, u32)> {
        Ok((2, 28282))
    }
}

impl Cids {
    pub fn start(config: GuestConfig, host: Host) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(config, host);
        let listener = CidListener(tokio::net::UnixListener::bind(dir.path().join("2.28282")).unwrap());
        let (all, known) = (server.guests.clone(), server.guests.clone());
        let who = move |_: &UnixStream, peer: &(u32, u32)| known.by_cid(peer.0, peer.1);
        tokio::spawn(accept::accept(listener, all, who, server.stop.clone()));
        Self { server, dir, dialled: Default::default() }
    }

    pub async fn dial_from(&self, cid: u32, port: u32) -> UnixStream {
        self.dialled.set(self.dialled.get() + 1);
        let me = self.dir.path().join(format!("{cid}.{port}.{}", self.dialled.get()));
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&me).unwrap();
        let io = socket.connect(self.dir.path().join("2.28282")).await.unwrap();
        std::fs::remove_file(me).unwrap();
        io
    }

    pub async fn dial(&self, cid: u32) -> UnixStream {
        self.dial_from(cid, 50_000).await
    }

    /// The object that a CID is given.
    pub async fn energy(&self, cid: u32) -> serde_json::Value {
        let (status, body) = get(self.dial(cid).await, "/v1/energy").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// Whether the other side closed the connection, having said nothing.
pub(super) async fn closed(mut io: UnixStream) -> bool {
    let mut byte = [0];
    matches!(
        tokio::time::timeout(Duration::from_secs(5), io.read(&mut byte)).await.expect("still open"),
        Ok(0) | Err(_)
    )
}

/// Lets everything that can go on go on.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

/// The lines of a stream, without HTTP's chunks.
pub(super) struct Stream(BufReader<UnixStream>);

impl Stream {
    pub async fn open(mut io: UnixStream) -> Self {
        // HTTP/1.0: the body is not chunked, so that lines are lines.
        io.write_all(b"GET /v1/stream HTTP/1.0\r\n\r\n").await.unwrap();
        let mut lines = BufReader::new(io);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).await.unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200"), "{head}");
        Self(lines)
    }

    /// The next object; `None`: the stream ended.
    pub async fn next(&mut self) -> Option<serde_json::Value> {
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), self.0.read_line(&mut line)).await.expect("no line");
        (read.unwrap_or(0) > 0).then(|| serde_json::from_str(&line).unwrap())
    }
}
