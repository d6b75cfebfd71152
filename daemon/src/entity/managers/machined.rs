//! Follows systemd-machined over D-Bus (org.freedesktop.machine1) for the VMs that are registered with it. Never starts
//! it, changes nothing.

use super::{MACHINES_MAX, Managers, printable};
use crate::entity::inventory::{Class, KnownMachine};
use crate::model::source::Health;
use crate::sys::backoff::Backoff;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use zbus::connection::Builder;
use zbus::export::futures_core::Stream;
use zbus::fdo::DBusProxy;
use zbus::message::{Message, Type};
use zbus::names::{OwnedUniqueName, WellKnownName};
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant};

const SERVICE: &str = "org.freedesktop.machine1";
const MANAGER: &str = "org.freedesktop.machine1.Manager";
const MACHINE: &str = "org.freedesktop.machine1.Machine";
const OBJECT: &str = "/org/freedesktop/machine1";

/// Time limit of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two attempts to reach the bus: the first, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Signals that are queued during a call. If more come, nothing is read, the call times out, and the session starts
/// again.
const SIGNALS_MAX: Option<NonZeroUsize> = NonZeroUsize::new(4096);
/// Longest text kept, in bytes.
const TEXT_MAX: usize = 256;

/// Follows systemd-machined until `stop`, on the bus that `bus` builds ([`Builder::system`]); connects again when the
/// bus is gone.
pub async fn follow(managers: Arc<Managers>, bus: impl Fn() -> Builder<'static>, stop: CancellationToken) {
    // The first attempt counts as a failure: without a bus, the first pause is 2 s.
    let mut backoff = Backoff::new(RETRY_PAUSES.0, RETRY_PAUSES.1);
    backoff.pause();
    let followed = async {
        loop {
            let mut reached = false;
            let health = match session(bus(), &managers, &mut reached).await {
                Ok(never) => match never {},
                Err(error) if reached => Health::Failed(format!("the system bus: {}", error_text(&error))),
                Err(error) => Health::Unsupported(format!("no system bus: {}", error_text(&error))),
            };
            managers.set_machined(Vec::new(), health);
            if reached {
                backoff.reset();
            }
            sleep(backoff.pause()).await;
        }
    };
    stop.run_until_cancelled(followed).await;
}

/// One connection, until it fails. `reached` is set once it is known whether systemd-machined runs, and with which
/// machines.
async fn session(
    bus: Builder<'static>,
    managers: &Managers,
    reached: &mut bool,
) -> zbus::Result<std::convert::Infallible> {
    let timed_out = |_| zbus::Error::InputOutput(Arc::new(std::io::ErrorKind::TimedOut.into()));
    let bus = timeout(CALL_TIMEOUT, bus.method_timeout(CALL_TIMEOUT).build()).await.map_err(timed_out)??;
    let dbus = DBusProxy::new(&bus).await?;
    // Subscribes first: what changes while machines are listed is read again.
    let signals = |rule: MatchRule<'static>| MessageStream::for_match_rule(rule, &bus, SIGNALS_MAX);
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(SERVICE).interface(MANAGER).path(OBJECT).build()?;
    let mut changes = signals(rule).await?;
    let rule = MatchRule::builder().msg_type(Type::Signal).sender("org.freedesktop.DBus").member("NameOwnerChanged");
    let mut owners = signals(rule.arg(0, SERVICE).build()?).await?;
    loop {
        let owner = dbus.get_name_owner(WellKnownName::from_static_str(SERVICE)?.into()).await;
        let mut machines = match &owner {
            Ok(owner) => list(&bus, owner).await?,
            Err(_) => BTreeMap::new(),
        };
        *reached = true;
        loop {
            let health = match owner {
                Ok(_) => Health::Healthy,
                Err(_) => Health::Unsupported(
                    "systemd-machined does not run: it does when a machine is registered with it".into(),
                ),
            };
            managers.set_machined(machines.values().cloned().collect(), health);
            tokio::select! {
                changed = next(&mut owners) => {
                    changed?;
                    break;
                }
                change = next(&mut changes) => if let Ok(owner) = &owner {
                    apply(&bus, owner, &change?, &mut machines).await?;
                }
            }
        }
    }
}

async fn list(bus: &Connection, owner: &OwnedUniqueName) -> zbus::Result<BTreeMap<String, KnownMachine>> {
    // A call to the unique name does not activate the service.
    let reply = bus.call_method(Some(owner), OBJECT, Some(MANAGER), "ListMachines", &()).await?;
    let listed: Vec<(String, String, String, OwnedObjectPath)> = reply.body().deserialize()?;
    let mut machines = BTreeMap::new();
    for (_, class, _, path) in listed {
        if class == "vm"
            && machines.len() < MACHINES_MAX
            && let Some(known) = read(bus, owner, &path).await?
        {
            machines.insert(path.to_string(), known);
        }
    }
    Ok(machines)
}

async fn apply(
    bus: &Connection,
    owner: &OwnedUniqueName,
    change: &Message,
    machines: &mut BTreeMap<String, KnownMachine>,
) -> zbus::Result<()> {
    let header = change.header();
    let Some(member) = header.member() else { return Ok(()) };
    if !matches!(member.as_str(), "MachineNew" | "MachineRemoved") {
        return Ok(());
    }
    let (_, path): (String, OwnedObjectPath) = change.body().deserialize()?;
    machines.remove(path.as_str());
    if member.as_str() == "MachineNew"
        && machines.len() < MACHINES_MAX
        && let Some(known) = read(bus, owner, &path).await?
    {
        machines.insert(path.to_string(), known);
    }
    Ok(())
}

/// Reads a machine; `None`: it is gone, or not a VM.
async fn read(bus: &Connection, owner: &OwnedUniqueName, path: &OwnedObjectPath) -> zbus::Result<Option<KnownMachine>> {
    let reply = bus.call_method(Some(owner), path, Some("org.freedesktop.DBus.Properties"), "GetAll", &MACHINE).await;
    match reply {
        Ok(reply) => Ok(from_properties(&reply.body().deserialize()?)),
        Err(zbus::Error::MethodError(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The properties of a machine: see org.freedesktop.machine1(5).
fn from_properties(properties: &HashMap<String, OwnedVariant>) -> Option<KnownMachine> {
    let text = |name: &str| {
        let value = properties.get(name).and_then(|value| <&str>::try_from(value).ok());
        value.map_or_else(String::new, |value| printable(value, TEXT_MAX))
    };
    let number = |name: &str| properties.get(name).and_then(|value| u32::try_from(value).ok());
    let id: Vec<u8> = properties.get("Id").and_then(|id| Vec::try_from(id.clone()).ok()).unwrap_or_default();
    let set = id.len() == 16 && id.iter().any(|byte| *byte != 0);
    (text("Class") == "vm").then(|| KnownMachine {
        manager: "machined".into(),
        name: text("Name"),
        uuid: set.then(|| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        state: text("State"),
        // Since systemd 256; 0 or all ones where it is not known.
        cid: number("VSockCID").filter(|cid| (3..u32::MAX).contains(cid)),
        leader: number("Leader").filter(|pid| *pid != 0),
        class: Class::Vm,
        ..KnownMachine::default()
    })
}

async fn next(stream: &mut MessageStream) -> zbus::Result<Message> {
    let message = std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await;
    message.unwrap_or_else(|| Err(zbus::Error::InputOutput(Arc::new(std::io::ErrorKind::UnexpectedEof.into()))))
}

fn error_text(error: &zbus::Error) -> String {
    printable(&error.to_string(), TEXT_MAX)
}
