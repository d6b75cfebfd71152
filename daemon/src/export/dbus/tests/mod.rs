//! What the bus is told, without a bus: here what the tests share.

mod calls;
mod reports;
mod resolution;
mod views;

use super::call::Call;
use super::caller::{BURST, Callers, Parked, RATE, STRANGER};
use super::dispatch::{self, Xml};
use super::grain::coarse;
use super::properties::{self, PROPERTIES, Subject};
use super::signals::Signals;
use super::view::{Iface, UNKNOWN, View};
use super::*;
use crate::export::prometheus::tests as sample;
use crate::model::billing::IdlePolicy;
use crate::model::domain::Zone;
use crate::model::entity::Kind;
use crate::model::snapshot::{Row, Snapshot, State};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::vm::Vm;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;
use zbus::fdo::ConnectionCredentials;
use zbus::names::UniqueName;
use zbus::{Message, OwnedObjectPath, OwnedVariant, Variant};

const ROOT: Caller = Caller { uid: Some(0), pid: Some(1), fine: true };
const USER: Caller = Caller { uid: Some(1000), pid: Some(4713), fine: false };
const QUANTUM: Microjoules = Microjoules(1_000_000);

fn facts() -> Facts {
    let cgroup = |pid| match pid {
        1 => Some("/system.slice/nginx.service".to_owned()),
        2 => Some("/user.slice/user-1000.slice/user@1000.service/session.slice/pipewire.service".to_owned()),
        3 => Some("/".to_owned()),
        4 => Some("/system.slice".to_owned()),
        _ => None,
    };
    let owner = |pid| {
        let uids = match pid {
            4713 => vec![1000; 4],
            // A program that runs with another's rights.
            4712 => vec![1000, 0, 0, 0],
            // Began after the numbers of that id.
            4711 => return Some(Owner { uids: vec![1000; 4], began: Nanos(98_999_000_000) }),
            1 => vec![0; 4],
            _ => return None,
        };
        Some(Owner { uids, began: Nanos(1) })
    };
    let place = move |pid| {
        let cgroup: String = cgroup(pid)?;
        let entities = crate::entity::path::entities(&cgroup);
        Some(Place { cgroup, entities })
    };
    Facts {
        place_of: Arc::new(place),
        owner_of: Arc::new(owner),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        reports: Default::default(),
    }
}

fn call(path: &str, interface: &str, member: &str) -> zbus::message::Builder<'static> {
    let call = Message::method_call(path.to_owned(), member.to_owned()).sender(":1.7").destination(NAME);
    if interface.is_empty() { call } else { call.interface(interface.to_owned()) }
}

/// The answer to a call.
fn ask(view: &View, caller: Caller, message: &Message) -> Message {
    let header = message.header();
    let call = Call { message, header: &header, view, caller, facts: &facts() };
    dispatch::answer(&call, &Xml::default()).unwrap()
}

/// The error's name, less what all have, and its words.
fn error(answer: &Message) -> (String, String) {
    let header = answer.header();
    let name = header.error_name().unwrap_or_else(|| panic!("no error: {answer:?}")).as_str();
    (name.replace("org.freedesktop.DBus.Error.", ""), answer.body().deserialize::<String>().unwrap())
}

fn view() -> View {
    View::of(&sample::with_platform())
}

fn get(view: &View, path: &str, iface: Iface, name: &str) -> OwnedVariant {
    let call = call(path, "org.freedesktop.DBus.Properties", "Get").build(&(iface.name(), name)).unwrap();
    let answer = ask(view, ROOT, &call);
    assert_eq!(answer.message_type(), zbus::message::Type::MethodReturn, "{path} {name}: {:?}", answer.body());
    answer.body().deserialize().unwrap()
}

fn number(view: &View, path: &str, iface: Iface, name: &str) -> u64 {
    u64::try_from(get(view, path, iface, name)).unwrap()
}

fn rows(snapshot: &mut Snapshot, kind: Kind) -> &mut Vec<Row> {
    &mut snapshot.kinds[kind.index()].rows
}
