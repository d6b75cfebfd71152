//! org.jouled1 on the system bus: the energy of every unit, machine, container, job and tenant, for every program on
//! this host. Reads the last snapshot; starts no measurement and changes nothing.
//!
//! # The interface
//!
//! Members are only ever added. `18446744073709551615` (UINT64_MAX) stands for an unknown number; times are
//! microseconds of CLOCK_REALTIME. Every object also has org.freedesktop.DBus.Peer, Introspectable and Properties.
//! `systemd/interfaces/` has the introspection XML with the documentation of each member, made from the tables in
//! [`methods`] and [`properties`].
//!
//! | object | interface | entity |
//! |---|---|---|
//! | `/org/jouled1` | `org.jouled1.Manager`, `org.freedesktop.DBus.ObjectManager` | this machine |
//! | `/org/jouled1/unit/NAME` | `org.jouled1.Unit` | a unit or slice of the system's service manager |
//! | `/org/jouled1/user/UID/unit/NAME` | `org.jouled1.Unit` | a unit of a user's service manager |
//! | `/org/jouled1/machine/NAME` | `org.jouled1.Machine` | a virtual machine, by name or id (see `view`) |
//! | `/org/jouled1/container/ID` | `org.jouled1.Container` | a container |
//! | `/org/jouled1/job/MANAGER/ID` | `org.jouled1.Job` | a job (the last one with its id) |
//! | `/org/jouled1/tenant/NAME` | `org.jouled1.Tenant` | a tenant |
//!
//! Names are escaped as systemd escapes them: `ssh.service` is `ssh_2eservice`, user 1000 is `_31000`, the empty name
//! is `_`.
//!
//! ```text
//! org.jouled1.Manager
//!   ListUnits()            → a(sott) name, object, energy in µJ, power in µW   ListMachines() and ListContainers() likewise
//!   ListUserUnits(u uid)   → a(sott)
//!   GetUnit(s name) → o         GetUserUnit(u uid, s name) → o     GetUnitByPID(u pid; 0: own) → o    org.jouled1.NoSuchUnit, NoSuchProcess
//!   GetMachine(s id, UUID or name) → o                                                      org.jouled1.NoSuchMachine
//!   GetContainer(s id, its beginning, or name) → o                                          org.jouled1.NoSuchContainer
//!   ListJobs() → a(sott)        GetJob(s manager, s id) → o                                 org.jouled1.NoSuchJob
//!   ListTenants() → a(sott)     GetTenant(s name) → o                                       org.jouled1.NoSuchTenant
//!   GetProcess(u pid; 0: own) → a{sv}   PID u, Comm s, State s and the numbers below                org.jouled1.NoSuchProcess, AccessDenied
//!   GetReport(t from, t until, s by, s step, u limit) → a(tssa{ss}a{sv}), a(tta{sv})   see `report`    org.jouled1.NoHistory, AccessDenied
//!   GetStatement(t from, t until, s kind, s name) → a(sa{ss}a{sv})                     see `statement` org.jouled1.NoHistory, AccessDenied
//!   Version s, NodeName s, IntervalUSec t
//!   Sources a(sssst) name, role, state, reason, last read;  ZonesReadAt a(st) zone, when;
//!   EstimateByZone a(stt) zone, lowest and highest power
//!   and the numbers below, without State and Since
//! org.jouled1.Unit       Id s, Slice s, User u (4294967295: the system's)
//! org.jouled1.Machine    Id s, Name s, UUID s, Hypervisor s
//! org.jouled1.Container  Id s, Name s, Runtime s, Pod s, Image s, ComposeProject s, ComposeService s, Labels a{ss}
//! org.jouled1.Job        Id s, Manager s, JobName s, UserName s, Account s, Partition s
//! org.jouled1.Tenant     Id s
//! the numbers            State s ("running", "terminated"), EnergyMicrojoules t, PowerMicrowatts t, EnergyByZone a(sst),
//!                        PowerByZone a(sst) zone, mode ("dynamic", "idle"; the manager's platform: "total"), value;
//!                        Since t, Estimated b, UpdatedAt t
//! ```
//!
//! Errors of org.freedesktop.DBus.Error: UnknownObject, UnknownInterface, UnknownMethod, UnknownProperty, InvalidArgs,
//! PropertyReadOnly, AccessDenied (GetProcess of another user's process, GetReport and GetStatement of entities without
//! an object), LimitsExceeded (a user who asks too much, a call that is too long).
//!
//! # Resolution by caller
//!
//! Root, jouled's own user and members of group `jouled` get every tick, to the microjoule (the fine view). All other
//! callers, and all signals, get the resolution of the guest profile `default` (the coarse view): every 10 s, in whole
//! joules, with power as the mean of those 10 s. PropertiesChanged, InterfacesAdded and InterfacesRemoved report
//! changes once in 10 s, spread over these 10 s.
//!
//! # Why a dispatcher of its own
//!
//! The object tree is a function of the snapshot, so no object is registered. `busctl tree` on a host with thousands of
//! units costs only its own answer, and a tick costs nothing. One task ([`session`]) handles all messages and never
//! waits for a caller.

mod call;
mod caller;
mod config;
mod dispatch;
mod grain;
mod history;
mod introspect;
mod methods;
mod properties;
mod report;
mod session;
mod signals;
mod socket;
mod statement;
mod tree;
mod view;

pub use config::{DbusConfig, DbusMode};

use super::Snapshots;
use super::history::Reports;
use crate::export::HealthSlot;
use crate::model::snapshot::Snapshot;
use crate::model::source::Health;
use crate::sys::backoff::Backoff;
use caller::{Caller, Trusted};
use session::{Link, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use zbus::{Address, Message};

/// The name on the bus.
pub const NAME: &str = "org.jouled1";
/// The name of this export among the sources.
pub const SOURCE: &str = "dbus";
/// Time after which a call to the bus has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pauses between attempts to reach the bus: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Longest error text of the bus that is shown in the health, in characters.
const TEXT: usize = 256;

/// The users of a process, and its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Real, effective, saved and file system user id.
    pub uids: Vec<u32>,
    /// Start of the process, CLOCK_BOOTTIME.
    pub began: crate::model::units::Nanos,
}

/// The place of a process in the cgroup tree.
pub struct Place {
    /// Path of its cgroup, from the cgroup root.
    pub cgroup: String,
    /// Labels of the entities that the path names.
    pub entities: Vec<crate::model::entity::Labels>,
}

/// Facts that are not in a snapshot, about a process that a caller names. Each function reads a file of /proc that
/// cannot block.
#[derive(Clone)]
pub struct Facts {
    /// The place of a process now; `None` where there is no such process.
    pub place_of: Arc<dyn Fn(u32) -> Option<Place> + Send + Sync>,
    /// The users and the start of a process; `None` where there is no such process.
    pub owner_of: Arc<dyn Fn(u32) -> Option<Owner> + Send + Sync>,
    /// machine-id(5), for Peer.GetMachineId.
    pub machine_id: String,
    /// The history.
    pub reports: Reports,
}

/// Answers one method call from `snapshot` alone, without a bus and without budgets: with an error reply where it
/// cannot be answered. `uid` is the caller's; the fine view is answered from, whoever that is.
///
/// # Errors
/// The reply does not fit into a message.
pub fn answer(snapshot: &Snapshot, message: &Message, uid: u32, facts: &Facts) -> zbus::Result<Message> {
    let caller = Caller { uid: Some(uid), pid: None, fine: uid == 0 };
    let call = call::Call { message, header: &message.header(), view: &view::View::of(snapshot), caller, facts };
    dispatch::answer(&call, &dispatch::Xml::default())
}

/// `use = "on"`, and the name could not be acquired.
#[derive(Debug, thiserror::Error)]
#[error("export.dbus.use: no {NAME} on the system bus: {0}; or set use = \"auto\"")]
pub struct BindError(String);

/// The D-Bus export.
pub struct Dbus {
    config: DbusConfig,
    facts: Facts,
    link: Option<Link>,
    health: HealthSlot,
}

/// Connects now where `use = "on"`; else [`Dbus::serve`] connects. Sets `health` from now on.
///
/// # Errors
/// Where `use = "on"` and the name cannot be acquired.
pub async fn bind(
    config: DbusConfig,
    facts: Facts,
    health: HealthSlot,
    bus: impl Fn() -> zbus::Result<Address>,
) -> Result<Dbus, BindError> {
    let link = match config.mode {
        DbusMode::On => match Link::open(bus()).await {
            Ok(link) if link.owns => Some(link),
            Ok(_) => return Err(BindError(taken())),
            Err(error) => return Err(BindError(refused(&error).unwrap_or_else(|| words(&error)))),
        },
        DbusMode::Auto | DbusMode::Off => None,
    };
    health.set(match config.mode {
        DbusMode::Off => Health::Unsupported("not wanted: use = \"off\" in [export.dbus]".into()),
        DbusMode::On => Health::Healthy,
        DbusMode::Auto => Health::Unsupported("not asked yet".into()),
    });
    Ok(Dbus { config, facts, link, health })
}

impl Dbus {
    /// Answers calls until `stop`, on the bus at the address that `bus` returns ([`Address::system`]). Reconnects when
    /// the connection ends.
    pub async fn serve(
        self,
        bus: impl Fn() -> zbus::Result<Address>,
        mut snapshots: Snapshots,
        stop: CancellationToken,
    ) {
        let Self { config, facts, mut link, health } = self;
        let owns = |owns: bool| health.set(if owns { Health::Healthy } else { Health::Failed(taken()) });
        let served = async {
            if config.mode == DbusMode::Off {
                return std::future::pending().await;
            }
            let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
            loop {
                let opened = match link.take() {
                    Some(link) => Ok(link),
                    None => Link::open(bus()).await,
                };
                health.set(match opened {
                    Ok(link) => {
                        backoff.reset();
                        owns(link.owns);
                        let trusted = trusted(&config.group).await;
                        let snapshot = Arc::clone(&snapshots.borrow_and_update());
                        let session = Session::new(&facts, trusted, snapshot, link.owns);
                        match session.run(link, &mut snapshots, owns).await {
                            Ok(never) => match never {},
                            Err(error) => Health::Failed(format!("the system bus: {}", words(&error))),
                        }
                    }
                    Err(error) => Health::Unsupported(
                        refused(&error).unwrap_or_else(|| format!("no system bus: {}", words(&error))),
                    ),
                });
                sleep(backoff.pause()).await;
            }
        };
        stop.run_until_cancelled(served).await;
    }
}

fn taken() -> String {
    format!("{NAME} is another process's: `busctl status {NAME}` shows which; jouled has it when that one ends")
}

/// The message where the bus' policy denies the name; `None` for other errors.
fn refused(error: &zbus::Error) -> Option<String> {
    use zbus::fdo::Error::AccessDenied;
    let denied = match error {
        zbus::Error::FDO(error) => matches!(**error, AccessDenied(_)),
        zbus::Error::MethodError(name, ..) => name.as_str() == "org.freedesktop.DBus.Error.AccessDenied",
        _ => false,
    };
    denied.then(|| {
        format!(
            "the bus lets this user not have the name {NAME}: its policy, /usr/share/dbus-1/system.d/{NAME}.conf, lets the users jouled and \
             root (after it is installed: systemctl reload dbus)"
        )
    })
}

fn words(error: &zbus::Error) -> String {
    crate::sys::safe_text::safe(&error.to_string()).chars().take(TEXT).collect()
}

/// The user and group that get the fine view. The group is looked up at each connection, as a package that is installed
/// later may create it.
async fn trusted(group: &str) -> Trusted {
    let uid = rustix::process::geteuid().as_raw();
    let group = group.to_owned();
    // On a blocking thread: group names may come from a slow server (LDAP).
    let gid = tokio::task::spawn_blocking(move || crate::sys::users::gid_of(&group)).await.ok().flatten();
    Trusted { uid, gid }
}

#[cfg(test)]
mod tests;
