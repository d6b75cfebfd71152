//! The manager's methods: one table, from which calls are dispatched and the introspection XML is made.

use super::call::{Call, CallError, said};
use super::properties::{Subject, all};
use super::tree;
use super::view::{Iface, Object, UNKNOWN, View};
use super::{report, statement};
use crate::model::entity::{Kind, UserUnitLabels};
use crate::model::usage::ProcessKey;
use crate::sys::safe_text::safe;
use zbus::{Message, ObjectPath};

/// Argument names and D-Bus signatures.
type Arguments = &'static [(&'static str, &'static str)];

/// A method.
pub(super) struct Method {
    pub of: Iface,
    pub name: &'static str,
    pub takes: Arguments,
    pub gives: Arguments,
    pub doc: &'static str,
    pub call: fn(&Call<'_>) -> Result<Message, CallError>,
}

const LIST: Arguments = &[("objects", "a(sott)")];
const OBJECT: Arguments = &[("object", "o")];

/// Every method.
pub(super) const METHODS: &[Method] = &[
    Method {
        of: Iface::Manager,
        name: "ListUnits",
        takes: &[],
        gives: LIST,
        doc: "Units and slices of the system's service manager: name, object, energy in microjoules, power in microwatts (as \
              EnergyMicrojoules and PowerMicrowatts of the object). Slices include what is in them.",
        call: |call| {
            call.takes_nothing()?;
            list(call, |object| matches!(object.kind, Kind::Unit | Kind::Slice).then(|| object.labels.id()))
        },
    },
    Method {
        of: Iface::Manager,
        name: "ListUserUnits",
        takes: &[("uid", "u")],
        gives: LIST,
        doc: "Units of a user's service manager, as ListUnits; none where it does not run.",
        call: |call| {
            let body = call.message.body();
            let uid: u32 = call.arguments(&body, "u", "uid")?;
            let uid = uid.to_string();
            list(call, |object| {
                (object.kind == Kind::UserUnit && object.label("user") == uid).then(|| object.labels.id())
            })
        },
    },
    Method {
        of: Iface::Manager,
        name: "ListMachines",
        takes: &[],
        gives: LIST,
        doc: "Virtual machines: name (the id where it has none), object, energy in microjoules, power in microwatts.",
        call: |call| {
            call.takes_nothing()?;
            list(call, |object| (object.iface == Iface::Machine).then(|| object.name_or_id("vm_name")))
        },
    },
    Method {
        of: Iface::Manager,
        name: "ListContainers",
        takes: &[],
        gives: LIST,
        doc: "Containers: name (the id where it has none), object, energy in microjoules, power in microwatts.",
        call: |call| {
            call.takes_nothing()?;
            list(call, |object| (object.iface == Iface::Container).then(|| object.name_or_id("container_name")))
        },
    },
    Method {
        of: Iface::Manager,
        name: "ListJobs",
        takes: &[],
        gives: LIST,
        doc: "Jobs of batch systems and schedulers: id, object, energy in microjoules, power in microwatts. The path has the manager.",
        call: |call| {
            call.takes_nothing()?;
            list(call, |object| (object.iface == Iface::Job).then(|| object.label("job_id")))
        },
    },
    Method {
        of: Iface::Manager,
        name: "ListTenants",
        takes: &[],
        gives: LIST,
        doc: "Tenants, as the rules in jouled.toml say, and \"unassigned\" for the rest; empty without rules: name, object, energy in \
              microjoules, power in microwatts.",
        call: |call| {
            call.takes_nothing()?;
            list(call, |object| (object.iface == Iface::Tenant).then(|| object.label("tenant")))
        },
    },
    Method {
        of: Iface::Manager,
        name: "GetUnit",
        takes: &[("name", "s")],
        gives: OBJECT,
        doc: "The object of a unit or slice of the system's service manager, by its full name: ssh.service.",
        call: |call| {
            let body = call.message.body();
            let name: &str = call.arguments(&body, "s", "name")?;
            call.reply_path(call.view.object(&tree::unit(name)).ok_or_else(|| no_unit(name))?)
        },
    },
    Method {
        of: Iface::Manager,
        name: "GetUserUnit",
        takes: &[("uid", "u"), ("name", "s")],
        gives: OBJECT,
        doc: "The object of a unit of a user's service manager.",
        call: |call| {
            let body = call.message.body();
            let (uid, name): (u32, &str) = call.arguments(&body, "us", "uid, name")?;
            call.reply_path(call.view.object(&tree::user_unit(&uid.to_string(), name)).ok_or_else(|| no_unit(name))?)
        },
    },
    Method {
        of: Iface::Manager,
        name: "GetUnitByPID",
        takes: &[("pid", "u")],
        gives: OBJECT,
        doc: "The object of the unit that a process is in: its user's service manager's where it is in one of those, else the system's; the \
              innermost slice where it is in no unit. 0: the caller's own.",
        call: |call| {
            let body = call.message.body();
            let pid = own(call, call.arguments(&body, "u", "pid")?)?;
            let place = (call.facts.place_of)(pid).ok_or_else(|| no_process(pid, "there is no such process"))?;
            let path = |wanted: Kind| {
                let labels = place.entities.iter().rev().find(|labels| labels.kind() == wanted)?;
                Some(match UserUnitLabels::of(labels) {
                    Some(UserUnitLabels { unit, user, .. }) => tree::user_unit(user, unit),
                    None => tree::unit(labels.id()),
                })
            };
            let paths = [Kind::UserUnit, Kind::Unit, Kind::Slice].into_iter().filter_map(path);
            let object = paths.map(|path| call.view.object(&path)).next().flatten();
            let why = format!("process {pid} is in {}, of which no unit is known", said(&place.cgroup));
            call.reply_path(object.ok_or_else(|| CallError::new("org.jouled1.NoSuchUnit", why))?)
        },
    },
    Method {
        of: Iface::Manager,
        name: "GetMachine",
        takes: &[("machine", "s")],
        gives: OBJECT,
        doc: "The object of a virtual machine, by its id, its UUID, or its name where no other has the same right to it.",
        call: |call| {
            let body = call.message.body();
            let word: &str = call.arguments(&body, "s", "machine")?;
            call.reply_path(machine(call.view, word)?)
        },
    },
    Method {
        of: Iface::Manager,
        name: "GetContainer",
        takes: &[("container", "s")],
        gives: OBJECT,
        doc: "The object of a container, by its id, the first 12 or more characters of it, or its name; the latter two where no other has the \
              same.",
        call: |call| {
            let body = call.message.body();
            let word: &str = call.arguments(&body, "s", "container")?;
            call.reply_path(container(call.view, word)?)
        },
    },
    Method {
        of: Iface::Manager,
        name: "GetJob",
        takes: &[("manager", "s"), ("id", "s")],
        gives: OBJECT,
        doc: "The object of a job, by its manager (slurm, pbs, oar, nomad, htcondor) and its id there. Of several with one id, the one \
              that runs, else the last.",
        call: |call| {
            let body = call.message.body();
            let (manager, id): (&str, &str) = call.arguments(&body, "ss", "manager, id")?;
            call.reply_path(call.view.object(&tree::job(manager, id)).ok_or_else(|| {
                let why = format!("there is no job {} of {}; ListJobs lists those there are", said(id), said(manager));
                CallError::new("org.jouled1.NoSuchJob", why)
            })?)
        },
    },
    Method {
        of: Iface::Manager,
        name: "GetTenant",
        takes: &[("name", "s")],
        gives: OBJECT,
        doc: "The object of a tenant, by its name.",
        call: |call| {
            let body = call.message.body();
            let name: &str = call.arguments(&body, "s", "name")?;
            call.reply_path(call.view.object(&tree::tenant(name)).ok_or_else(|| {
                let why = format!("there is no tenant {}; ListTenants lists those there are", said(name));
                CallError::new("org.jouled1.NoSuchTenant", why)
            })?)
        },
    },
    Method {
        of: Iface::Manager,
        name: "GetProcess",
        takes: &[("pid", "u")],
        gives: &[("properties", "a{sv}")],
        doc: "The numbers of a process: PID, Comm, State, EnergyMicrojoules, PowerMicrowatts, EnergyByZone, PowerByZone, Since, Estimated, \
              UpdatedAt, as objects have them. Everybody may ask of processes that are wholly their own; root and the group jouled of all. 0: the caller's own.",
        call: process,
    },
    Method {
        of: Iface::Manager,
        name: "GetReport",
        takes: report::TAKES,
        gives: report::GIVES,
        doc: report::DOC,
        // The session answers it from the history. This is the answer where there is no session.
        call: |call| report::query(call).and_then(|_| Err(no_history())),
    },
    Method {
        of: Iface::Manager,
        name: "GetStatement",
        takes: statement::TAKES,
        gives: statement::GIVES,
        doc: statement::DOC,
        // As GetReport.
        call: |call| statement::query(call).and_then(|_| Err(no_history())),
    },
];

impl Object {
    fn name_or_id(&self, name: &str) -> &str {
        Some(self.label(name)).filter(|name| !name.is_empty()).unwrap_or_else(|| self.labels.id())
    }
}

fn list<'v>(call: &'v Call<'_>, name: impl Fn(&'v Object) -> Option<&'v str>) -> Result<Message, CallError> {
    let row = |object: &'v Object| -> Option<(String, ObjectPath<'v>, u64, u64)> {
        let numbers = &object.numbers;
        let (energy, power) =
            (numbers.total.map_or(UNKNOWN, |energy| energy.0), numbers.total_power.map_or(UNKNOWN, |power| power.0));
        Some((safe(name(object)?), object.object_path(), energy, power))
    };
    let rows: Vec<_> = call.view.objects.iter().filter_map(row).collect();
    call.reply(&(rows,))
}

fn machine<'v>(view: &'v View, word: &str) -> Result<&'v Object, CallError> {
    let machines = || view.objects.iter().filter(|object| object.iface == Iface::Machine);
    let by_id = |id: &str| machines().find(|object| object.label("vm_id").eq_ignore_ascii_case(id));
    let by_uuid = || {
        let mut vms =
            view.vms.iter().filter(|vm| vm.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(word)));
        let vm = vms.next().filter(|_| vms.next().is_none())?;
        by_id(&vm.id)
    };
    if let Some(found) = by_id(word).or_else(by_uuid).or_else(|| view.object(&tree::machine(word))) {
        return Ok(found);
    }
    let why = match machines().filter(|object| object.label("vm_name") == word).count() {
        0 => format!("there is no virtual machine {}; ListMachines lists those there are", said(word)),
        some => {
            format!("{some} virtual machines are called {}: ask by id, as ListMachines has it in the path", said(word))
        }
    };
    Err(CallError::new("org.jouled1.NoSuchMachine", why))
}

fn container<'v>(view: &'v View, word: &str) -> Result<&'v Object, CallError> {
    if let Some(found) = view.object(&tree::container(word)) {
        return Ok(found);
    }
    let containers = || view.objects.iter().filter(|object| object.iface == Iface::Container);
    let only = |wanted: &dyn Fn(&Object) -> bool| {
        let mut found = containers().filter(|object| wanted(object));
        found.next().filter(|_| found.next().is_none())
    };
    let named = || only(&|object| !word.is_empty() && object.label("container_name") == word);
    let begins = || only(&|object| word.len() >= 12 && object.label("container_id").starts_with(word));
    named().or_else(begins).ok_or_else(|| {
        let why =
            format!("there is no container {}, or there are several; ListContainers lists those there are", said(word));
        CallError::new("org.jouled1.NoSuchContainer", why)
    })
}

/// The process id of an argument: 0 means the caller's own process, as in systemd's API.
fn own(call: &Call<'_>, pid: u32) -> Result<u32, CallError> {
    match pid {
        0 => call.caller.pid.ok_or_else(|| no_process(pid, "the bus does not say which process asks")),
        pid => Ok(pid),
    }
}

fn process(call: &Call<'_>) -> Result<Message, CallError> {
    let body = call.message.body();
    let pid = own(call, call.arguments(&body, "u", "pid")?)?;
    if !call.caller.fine {
        let denied = || {
            let why = format!("process {pid} is not wholly yours: root and the group jouled may ask of all processes");
            CallError::new("org.freedesktop.DBus.Error.AccessDenied", why)
        };
        let owner = (call.facts.owner_of)(pid).ok_or_else(|| no_process(pid, "there is no such process"))?;
        let uid = call.caller.uid.ok_or_else(denied)?;
        if owner.uids.is_empty() || owner.uids.iter().any(|other| *other != uid) {
            return Err(denied());
        }
        // The pid may have been reused since the snapshot. Start times are compared on CLOCK_BOOTTIME, which is never
        // set.
        if owner.began + ProcessKey::CLOCK_TICK > call.view.at.boottime {
            return Err(no_process(pid, NO_SERIES));
        }
    }
    let object = call.view.process(pid).ok_or_else(|| no_process(pid, NO_SERIES))?;
    call.reply(&all(Iface::Process, Subject { view: call.view, object: Some(object) }))
}

const NO_SERIES: &str =
    "it has no numbers of its own: it has not run yet, or is not among the busiest (processes in [series])";

fn no_history() -> CallError {
    CallError::new("org.jouled1.NoHistory", "no history is kept here")
}

fn no_unit(name: &str) -> CallError {
    let why = format!(
        "there is no unit {} here, or it has drawn nothing yet: names are whole, as ssh.service; ListUnits lists those there are",
        said(name)
    );
    CallError::new("org.jouled1.NoSuchUnit", why)
}

fn no_process(pid: u32, why: &str) -> CallError {
    CallError::new("org.jouled1.NoSuchProcess", format!("process {pid}: {why}"))
}
