//! The node and every object with its numbers, as plain data made from one snapshot. Knows no message and no caller.

use super::tree;
use crate::export::zones::Zones;
use crate::model::billing::Base;
use crate::model::billing::IdlePolicy;
use crate::model::domain::{Quality, Zone};
use crate::model::entity::{Kind, Labels, VmLabels};
use crate::model::snapshot::{Energy, Host, Role, Row, Snapshot, SourceView, State};
use crate::model::source::Stamp;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::vm::Vm;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::sync::Arc;
use zbus::ObjectPath;

/// Stands for an unknown number, as in systemd's API.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// The interface of an object. A process has properties but no object, as there are too many processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Iface {
    Manager,
    Unit,
    Machine,
    Container,
    Job,
    Tenant,
    Process,
}

impl Iface {
    /// The interfaces of objects below the manager.
    pub const OBJECTS: [Self; 5] = [Self::Unit, Self::Machine, Self::Container, Self::Job, Self::Tenant];

    /// The interface's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manager => "org.jouled1.Manager",
            Self::Unit => "org.jouled1.Unit",
            Self::Machine => "org.jouled1.Machine",
            Self::Container => "org.jouled1.Container",
            Self::Job => "org.jouled1.Job",
            Self::Tenant => "org.jouled1.Tenant",
            Self::Process => "org.jouled1.Process",
        }
    }
}

/// Power by zone.
type PowerByZone = [Microwatts; Zone::COUNT];

/// Energy and power of one object, or of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub energy: Energy,
    /// Dynamic and idle power, of the zones that have power (see [`Shown::power`]); `None`: not known yet.
    pub power: Option<[PowerByZone; 2]>,
    /// Energy over the zones of the billing base.
    pub total: Option<Microjoules>,
    /// Power over the zones of the billing base.
    pub total_power: Option<Microwatts>,
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub iface: Iface,
    pub kind: Kind,
    /// Empty for a process.
    pub path: String,
    pub labels: Labels,
    /// Labels of the pod that it is in; `None`: it is in none that has a series.
    pub pod: Option<Labels>,
    pub state: State,
    /// Start of its counter, CLOCK_REALTIME.
    pub since: Nanos,
    pub numbers: Numbers,
}

impl Object {
    /// A label by its name; empty where the kind has no such label.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name)
    }

    /// The path of the object on the bus.
    pub fn object_path(&self) -> ObjectPath<'_> {
        // `tree` escaped the parts of the path, so it is valid.
        ObjectPath::from_str_unchecked(&self.path)
    }
}

/// A zone that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub zone: Zone,
    /// Whether every domain of the zone has power now.
    pub power: bool,
}

/// The whole tree with all numbers, made from one snapshot.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub host: Arc<Host>,
    pub at: Stamp,
    pub estimated: bool,
    /// The zones whose energy is attributed to entities.
    pub zones: Vec<Shown>,
    /// The zones of the billing base.
    pub base: Vec<Zone>,
    /// Time of the last reading of each zone, CLOCK_REALTIME.
    pub read_at: Vec<(Zone, Nanos)>,
    pub node: Numbers,
    /// Energy and power of the whole machine as the authority measures them.
    pub platform: Option<(Microjoules, Option<Microwatts>)>,
    /// Zones with an estimate, and the interval that holds their true power in 90 % of cases: the sums of both ends
    /// over the zone's domains. Empty in the coarse view.
    pub intervals: Vec<(Zone, Microwatts, Microwatts)>,
    pub sources: Vec<SourceView>,
    pub vms: Arc<[Vm]>,
    /// Sorted by path.
    pub objects: Vec<Object>,
    /// The VMs that run, sorted by id.
    pub processes: Vec<(u32, Object)>,
}

impl View {
    /// The fine view of a snapshot, to the microjoule.
    pub fn of(snapshot: &Snapshot) -> Self {
        let zones = Zones::new(snapshot);
        let base = Base::of(snapshot);
        let of_base = || zones.billed(&base);
        // A zone without a current domain has energy and no power. It does not hide the power of the other zones.
        let past = |zone: Zone| snapshot.domains.iter().all(|view| view.domain.zone != zone || view.past);
        let base_has_power =
            of_base().any(|view| view.power.is_some()) && of_base().all(|view| view.power.is_some() || past(view.zone));
        let maker = Maker { base: &base, base_has_power };
        let mut node = Numbers { power: Some(Default::default()), ..Numbers::default() };
        for view in zones.charged() {
            let at = view.zone.index();
            (node.energy.dynamic[at], node.energy.idle[at]) = (view.energy.active, view.energy.idle);
            if let (Some(power), Some([dynamic, idle])) = (view.power, &mut node.power) {
                let of_idle = view.idle_power.unwrap_or_default();
                (dynamic[at], idle[at]) = (power - of_idle, of_idle);
            }
        }
        let sums = base.node(snapshot);
        node.total = (!base.zones().is_empty()).then_some(sums.energy.total);
        node.total_power = sums.power.filter(|_| base_has_power);
        let authority = snapshot.domains.iter().filter(|view| view.role == Role::Authority);
        let platform = authority
            .map(|view| (view.energy.total, view.power))
            .reduce(|(energy, power), (more, and)| (energy + more, power.zip(and).map(|(power, and)| power + and)));
        Self {
            host: Arc::clone(&snapshot.host),
            at: snapshot.at,
            estimated: base.quality(snapshot) == Some(Quality::Estimated),
            zones: zones.charged().map(|view| Shown { zone: view.zone, power: view.power.is_some() }).collect(),
            base: of_base().map(|view| view.zone).collect(),
            read_at: read_at(snapshot),
            node,
            platform,
            intervals: intervals(snapshot),
            sources: snapshot.sources.clone(),
            vms: Arc::clone(&snapshot.vms),
            objects: objects(snapshot, &maker),
            processes: processes(snapshot, &maker),
        }
    }

    /// Time of the last reading of a zone, CLOCK_MONOTONIC; `None` where no domain of the zone is read now.
    pub fn read(&self, zone: Zone) -> Option<Nanos> {
        let (_, at) = self.read_at.iter().find(|(read, _)| *read == zone)?;
        Some(self.at.monotonic - (self.at.realtime - *at))
    }

    /// The object at a path.
    pub fn object(&self, path: &str) -> Option<&Object> {
        self.objects.binary_search_by(|object| object.path.as_str().cmp(path)).ok().and_then(|at| self.objects.get(at))
    }

    /// The objects below a path, sorted by path.
    pub fn below(&self, path: &str) -> &[Object] {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let from = self.objects.partition_point(|object| object.path < prefix);
        let rest = self.objects.get(from..).unwrap_or_default();
        let count = rest.partition_point(|object| object.path.starts_with(&prefix));
        rest.get(..count).unwrap_or_default()
    }

    /// A running process, by process id.
    pub fn process(&self, pid: u32) -> Option<&Object> {
        let at = self.processes.binary_search_by_key(&pid, |(pid, _)| *pid).ok()?;
        self.processes.get(at).map(|(_, object)| object)
    }

    /// Whether idle energy is shared, so that entities have a part of it.
    pub fn hands_out_idle(&self) -> bool {
        self.host.idle != IdlePolicy::Apart
    }
}

/// Turns rows of the snapshot into objects.
struct Maker<'a> {
    base: &'a Base,
    base_has_power: bool,
}

impl Maker<'_> {
    fn object(&self, iface: Iface, kind: Kind, path: String, row: &Row) -> Object {
        let total = (!self.base.zones().is_empty()).then(|| self.base.energy(&row.energy));
        let total_power = self.base_has_power.then(|| self.base.power(&row.whole_power()));
        Object {
            iface,
            kind,
            path,
            labels: row.labels.clone(),
            pod: None,
            state: row.state,
            since: row.since,
            numbers: Numbers { energy: row.energy, power: Some([row.power, row.idle_power]), total, total_power },
        }
    }
}

fn read_at(snapshot: &Snapshot) -> Vec<(Zone, Nanos)> {
    let at = snapshot.at;
    let last = |zone: Zone| {
        let now = snapshot.domains.iter().filter(|view| view.domain.zone == zone && !view.past);
        // A zone is the sum of its domains, so it is as old as the oldest of their readings.
        let read = now.filter_map(|view| view.read_at).min()?;
        Some((zone, at.realtime - (at.monotonic - read)))
    };
    Zone::ALL.into_iter().filter_map(last).collect()
}

/// Both ends of the power of zones with an estimate. What is measured there counts at both ends.
fn intervals(snapshot: &Snapshot) -> Vec<(Zone, Microwatts, Microwatts)> {
    let of = |zone: Zone| {
        let now = || snapshot.domains.iter().filter(move |view| view.domain.zone == zone && !view.past);
        now().any(|view| view.interval.is_some()).then_some(())?;
        let ends = now().map(|view| match (view.power?, view.interval) {
            (_, Some(interval)) => Some((interval.low, interval.high)),
            (power, None) => Some((power, power)),
        });
        let add = |(low, high), (more, and)| (low + more, high + and);
        let (low, high) = ends.collect::<Option<Vec<_>>>()?.into_iter().reduce(add)?;
        Some((zone, low, high))
    };
    Zone::ALL.into_iter().filter_map(of).collect()
}

fn objects(snapshot: &Snapshot, maker: &Maker<'_>) -> Vec<Object> {
    let mut objects = Vec::new();
    let mut add = |iface, kind: Kind, path: &dyn Fn(&Labels) -> String| {
        let rows = snapshot.kind(kind).rows.iter();
        objects.extend(rows.map(|row| maker.object(iface, kind, path(&row.labels), row)));
    };
    for kind in [Kind::Unit, Kind::Slice] {
        add(Iface::Unit, kind, &|labels| tree::unit(labels.id()));
    }
    add(Iface::Unit, Kind::UserUnit, &|labels| tree::user_unit(labels.get("user"), labels.get("unit")));
    add(Iface::Container, Kind::Container, &|labels| tree::container(labels.id()));
    add(Iface::Job, Kind::Job, &|labels| tree::job(labels.get("manager"), labels.get("job_id")));
    add(Iface::Tenant, Kind::Tenant, &|labels| tree::tenant(labels.id()));
    let named = named(snapshot);
    add(Iface::Machine, Kind::Vm, &|labels| {
        let (id, name) = (labels.id(), labels.get("vm_name"));
        tree::machine(if named.get(name) == Some(&id) { name } else { id })
    });
    // Several entities may have had one name. The name means the running one, else the latest.
    objects.sort_by(|a, b| a.path.cmp(&b.path).then_with(|| rank(a).cmp(&rank(b))));
    objects.dedup_by(|later, kept| later.path == kept.path);
    let pods: FxHashMap<&str, &Labels> =
        snapshot.kind(Kind::Pod).rows.iter().map(|row| (row.labels.id(), &row.labels)).collect();
    for object in objects.iter_mut().filter(|object| object.kind == Kind::Container) {
        object.pod = pods.get(object.label("pod_id")).map(|labels| (*labels).clone());
    }
    objects
}

fn rank(object: &Object) -> (bool, Reverse<Nanos>) {
    (object.state != State::Running, Reverse(object.since))
}

/// The VM (by id) that each name belongs to. Any user can give a VM any name, so: a name of a VM in a machine scope
/// belongs to no VM outside of one, and a name that is the id or UUID of another VM belongs to none.
fn named(snapshot: &Snapshot) -> FxHashMap<&str, &str> {
    let vms: FxHashMap<&str, &Vm> = snapshot.vms.iter().map(|vm| (vm.id.as_str(), vm)).collect();
    let rows = &snapshot.kind(Kind::Vm).rows;
    let ids: FxHashSet<String> = rows.iter().map(|row| row.labels.id().to_ascii_lowercase()).collect();
    let uuids: FxHashSet<String> =
        snapshot.vms.iter().filter_map(|vm| vm.uuid.as_deref()).map(str::to_ascii_lowercase).collect();
    // By name: the best claim so far, and the VM that has it; `None` where several VMs have it.
    let mut best: FxHashMap<&str, (u8, Option<&str>)> = FxHashMap::default();
    for row in rows {
        let Some(VmLabels { vm_id: id, vm_name: name, .. }) = VmLabels::of(&row.labels) else { continue };
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || ids.contains(&lower) || uuids.contains(&lower) {
            continue;
        }
        let vouched = vms.get(id).is_some_and(|vm| vm.vouched);
        let claim = u8::from(row.state == State::Running) * (1 + u8::from(vouched));
        let known = best.entry(name).or_insert((claim, Some(id)));
        if claim > known.0 {
            *known = (claim, Some(id));
        } else if claim == known.0 && known.1 != Some(id) {
            known.1 = None;
        }
    }
    best.into_iter().filter_map(|(name, (_, id))| Some((name, id?))).collect()
}

fn processes(snapshot: &Snapshot, maker: &Maker<'_>) -> Vec<(u32, Object)> {
    let rows = snapshot.kind(Kind::Process).rows.iter().filter(|row| row.state == State::Running);
    let object = |row: &Row| {
        let pid = row.labels.id().parse().ok()?;
        Some((pid, maker.object(Iface::Process, Kind::Process, String::new(), row)))
    };
    let mut processes: Vec<_> = rows.filter_map(object).collect();
    // Of two processes with one id, the later started after the other had ended.
    processes.sort_by_key(|(pid, object)| (*pid, Reverse(object.since)));
    processes.dedup_by_key(|(pid, _)| *pid);
    processes
}
