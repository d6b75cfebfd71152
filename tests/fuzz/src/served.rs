//! What operators write and clients ask: configuration, HTTP requests, D-Bus calls.

use crate::attribution::{PATHS, sample};
use crate::text::{is_safe, lossy};
use crate::tree::Tree;
use arbitrary::{Arbitrary, Unstructured};
use axum::body::Body;
use axum::http::{HeaderValue, Request};
use jouled::config::Config;
use jouled::entity::path;
use jouled::export::dbus::{self, Facts, Owner, Place};
use jouled::export::guest::{GuestConfig, Guests, HostFacts};
use jouled::export::http::web_config::WebConfig;
use jouled::export::http::SharedTexts;
use jouled::export::prometheus::PrometheusOptions;
use jouled::export::push::Board;
use jouled::model::billing::IdlePolicy;
use jouled::model::snapshot::Snapshot;
use jouled::model::source::Stamp;
use jouled::model::units::Nanos;
use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use tokio::sync::watch;
use tower::ServiceExt;

static SAMPLE: LazyLock<Arc<Snapshot>> = LazyLock::new(sample);

/// jouled.toml.
pub fn config(data: &[u8]) {
    let tree = Tree::new();
    tree.write("jouled.toml", data);
    if let Err(error) = Config::load(Some(&tree.path().join("jouled.toml")), |_| {}) {
        assert!(!error.to_string().is_empty());
    }
}

/// The web configuration and the PEM files that it names: a list of files, of which `web.yml` is the one.
pub fn web_config(data: &[u8]) {
    let tree = Tree::new();
    tree.fill(data);
    if let Ok(config) = WebConfig::load(&tree.path().join("web.yml")) {
        config.tls();
        config.reload();
    }
}

/// The routes of the daemon, on the sample.
struct Pages {
    runtime: tokio::runtime::Runtime,
    router: axum::Router,
    _snapshots: watch::Sender<Arc<Snapshot>>,
}

fn pages() -> Pages {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let host = HostFacts {
        machine_id: "0".repeat(32),
        boot_id: "0".repeat(32),
        idle: IdlePolicy::Apart,
        alive: Arc::new(|_| false),
        procfs: "/nonexistent".into(),
        connections: 1,
    };
    let (sender, snapshots) = watch::channel(Arc::clone(&SAMPLE));
    let guests = Guests::new(GuestConfig::default(), host);
    let (texts, options) = (SharedTexts::default(), PrometheusOptions::default());
    let router = jouled::export::http::router(&texts, snapshots, options, guests, Board::default(), Stamp::default);
    Pages { runtime, router, _snapshots: sender }
}

thread_local!(static PAGES: RefCell<Option<Pages>> = const { RefCell::new(None) });

/// A request: line by line the method, the path, then headers.
pub fn http(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let method = lines.next().unwrap_or_default();
    let uri = lossy(lines.next().unwrap_or(b"/metrics")).into_owned();
    let mut request = Request::builder().method(method).uri(uri);
    for line in lines.take(16) {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        let Ok(value) = HeaderValue::from_bytes(value.strip_prefix(b":").unwrap_or(value)) else { continue };
        request = request.header(name, value);
    }
    let Ok(request) = request.body(Body::empty()) else { return };
    PAGES.with_borrow_mut(|kept| {
        let Pages { runtime, router, .. } = kept.get_or_insert_with(pages);
        let answer = runtime.block_on(router.clone().oneshot(request)).unwrap();
        assert!(answer.status().as_u16() != 500, "a fault of jouled's own");
    });
}

#[derive(Arbitrary, Debug)]
enum Arguments {
    None,
    Text(String),
    Texts(String, String),
    Number(u32),
    NumberText(u32, String),
    Property(String, String, u32),
    Pairs(Vec<(String, String)>),
}

#[derive(Arbitrary, Debug)]
struct Call {
    place: Result<u8, String>,
    interface: Result<u8, String>,
    member: Result<u8, String>,
    arguments: Arguments,
    root: bool,
}

const OBJECTS: [&str; 8] = [
    "/org/jouled1",
    "/",
    "/org",
    "/org/jouled1/unit",
    "/org/jouled1/unit/a_2eservice",
    "/org/jouled1/machine",
    "/org/jouled1/user",
    "/org/jouled1/container/x",
];
const INTERFACES: [&str; 6] = [
    "org.jouled1.Manager",
    "org.freedesktop.DBus.Properties",
    "org.freedesktop.DBus.Introspectable",
    "org.freedesktop.DBus.ObjectManager",
    "org.freedesktop.DBus.Peer",
    "org.jouled1.Unit",
];
const MEMBERS: [&str; 15] = [
    "Get",
    "GetAll",
    "Set",
    "Introspect",
    "GetManagedObjects",
    "GetUnit",
    "GetUserUnit",
    "GetUnitByPID",
    "GetProcess",
    "ListUserUnits",
    "GetMachine",
    "GetContainer",
    "GetJob",
    "GetTenant",
    "Ping",
];

/// A method call on the bus: answered, with safe words where it is refused.
pub fn dbus(data: &[u8]) {
    let Ok(call) = Call::arbitrary(&mut Unstructured::new(data)) else { return };
    let pick = |from: &[&str], one: Result<u8, String>| {
        one.map_or_else(|text| text, |at| from[usize::from(at) % from.len()].to_owned())
    };
    let place = pick(&OBJECTS, call.place);
    let (interface, member) = (pick(&INTERFACES, call.interface), pick(&MEMBERS, call.member));
    if zbus::ObjectPath::try_from(place.as_str()).is_err()
        || zbus::names::InterfaceName::try_from(interface.as_str()).is_err()
        || zbus::names::MemberName::try_from(member.as_str()).is_err()
    {
        return;
    }
    let builder = zbus::Message::method_call(place, member).sender(":1.7").destination(dbus::NAME);
    let builder = builder.interface(interface);
    let message = match call.arguments {
        Arguments::None => builder.build(&()),
        Arguments::Text(one) => builder.build(&one),
        Arguments::Texts(one, other) => builder.build(&(one, other)),
        Arguments::Number(one) => builder.build(&one),
        Arguments::NumberText(one, other) => builder.build(&(one, other)),
        Arguments::Property(one, other, value) => builder.build(&(one, other, zbus::Variant::from(value))),
        Arguments::Pairs(pairs) => builder.build(&pairs),
    };
    let Ok(message) = message else { return };
    let cgroup = |pid: u32| PATHS[pid as usize % PATHS.len()].to_owned();
    let facts = Facts {
        place_of: Arc::new(move |pid| Some(Place { cgroup: cgroup(pid), entities: path::entities(&cgroup(pid)) })),
        owner_of: Arc::new(|pid| Some(Owner { uids: vec![pid % 2 * 1000; 4], began: Nanos(1) })),
        machine_id: "0".repeat(32),
        reports: Default::default(),
    };
    let answer = dbus::answer(&SAMPLE, &message, if call.root { 0 } else { 1000 }, &facts).unwrap();
    if answer.message_type() == zbus::message::Type::Error {
        let why: String = answer.body().deserialize().unwrap();
        assert!(is_safe(&why), "{why:?}");
    }
}
