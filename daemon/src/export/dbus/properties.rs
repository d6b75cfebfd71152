//! The properties: one table, from which Get, GetAll, GetManagedObjects, PropertiesChanged and the introspection XML
//! are made. Sends nothing.

use super::view::{Iface, Numbers, Object, Shown, UNKNOWN, View};
use crate::model::domain::Zone;
use crate::model::entity::Details;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::sys::safe_text::safe;
use std::collections::BTreeMap;
use zbus::Variant;

/// The value of annotation org.freedesktop.DBus.Property.EmitsChangedSignal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emits {
    /// The property never changes while the object exists.
    Const,
    /// PropertiesChanged carries the new value.
    True,
    /// The property changes without a signal.
    False,
}

impl Emits {
    /// The value of the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Const => "const",
            Self::True => "true",
            Self::False => "false",
        }
    }
}

/// Where a property is read from: the view, and an object of it, or `None` for the manager.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub view: &'a View,
    pub object: Option<&'a Object>,
}

impl<'a> Subject<'a> {
    fn numbers(&self) -> &'a Numbers {
        self.object.map_or(&self.view.node, |object| &object.numbers)
    }

    fn pod(&self, name: &str) -> &'a str {
        self.object.and_then(|object| object.pod.as_ref()).map_or("", |pod| pod.get(name))
    }

    fn label(&self, name: &str) -> &'a str {
        self.object.map_or("", |object| object.label(name))
    }
}

/// A property.
pub(super) struct Property {
    pub name: &'static str,
    pub signature: &'static str,
    pub emits: Emits,
    /// The interfaces that have it.
    pub of: &'static [Iface],
    pub doc: &'static str,
    pub get: fn(Subject<'_>) -> Variant<'static>,
}

use Iface::{Container, Job, Machine, Manager, Process, Tenant, Unit};

const ALL: &[Iface] = &[Manager, Unit, Machine, Container, Job, Tenant, Process];
const ENTITIES: &[Iface] = &[Unit, Machine, Container, Job, Tenant, Process];

/// Every property of every interface.
pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "Version",
        signature: "s",
        emits: Emits::Const,
        of: &[Manager],
        doc: "jouled's version.",
        get: |of| text(&of.view.host.version),
    },
    Property {
        name: "NodeName",
        signature: "s",
        emits: Emits::True,
        of: &[Manager],
        doc: "The name of this machine, as in metrics.",
        get: |of| text(&of.view.host.node_name),
    },
    Property {
        name: "IntervalUSec",
        signature: "t",
        emits: Emits::True,
        of: &[Manager],
        doc: "Time between two ticks in microseconds: how often root and the group jouled see new numbers. Others see them every 10 s.",
        get: |of| (of.view.host.interval.0 / 1000).into(),
    },
    Property {
        name: "Id",
        signature: "s",
        emits: Emits::Const,
        of: &[Unit, Machine, Container, Job, Tenant],
        doc: "What the object is called: the unit's or slice's name; the machine's UUID, or a word made of its process where it has none of \
              its own; the container's id; the job's id; the tenant's name. Control characters are escaped as \\u{1b}.",
        get: |of| match of.object {
            Some(object) if object.iface == Job => text(object.label("job_id")),
            object => text(object.map_or("", |object| object.labels.id())),
        },
    },
    Property {
        name: "Manager",
        signature: "s",
        emits: Emits::Const,
        of: &[Job],
        doc: "Who runs the job: \"slurm\", \"pbs\", \"oar\", \"nomad\" or \"htcondor\".",
        get: |of| text(of.label("manager")),
    },
    Property {
        name: "JobName",
        signature: "s",
        emits: Emits::True,
        of: &[Job],
        doc: "The job's name, which its owner chose; empty where it is not known. Control characters are escaped as \\u{1b}.",
        get: |of| text(of.label("job_name")),
    },
    Property {
        name: "UserName",
        signature: "s",
        emits: Emits::True,
        of: &[Job],
        doc: "The name of the job's user, else the number; empty where it is not known.",
        get: |of| text(of.label("user")),
    },
    Property {
        name: "Account",
        signature: "s",
        emits: Emits::True,
        of: &[Job],
        doc: "The account that the job says it is charged to: OAR's project, Nomad's namespace; empty where it is not known.",
        get: |of| text(of.label("account")),
    },
    Property {
        name: "Partition",
        signature: "s",
        emits: Emits::True,
        of: &[Job],
        doc: "The partition or queue that the job says it is in; empty where it is not known.",
        get: |of| text(of.label("partition")),
    },
    Property {
        name: "Slice",
        signature: "s",
        emits: Emits::Const,
        of: &[Unit],
        doc: "The slice that the unit is in; the parent's name where it is a slice itself, empty for the root slice.",
        get: |of| match of.object.map(|object| object.kind) {
            Some(crate::model::entity::Kind::Slice) => text(&parent_slice(of.label("slice"))),
            _ => text(of.label("slice")),
        },
    },
    Property {
        name: "User",
        signature: "u",
        emits: Emits::Const,
        of: &[Unit],
        doc: "The user whose service manager has the unit, by number; 4294967295 for the system's service manager.",
        get: |of| of.label("user").parse().unwrap_or(u32::MAX).into(),
    },
    Property {
        name: "Name",
        signature: "s",
        emits: Emits::False,
        of: &[Machine, Container],
        doc: "The machine's or container's name, empty where it has none. Whoever started it chose it: several may have the same. Control \
              characters are escaped as \\u{1b}.",
        get: |of| text(&format!("{}{}", of.label("vm_name"), of.label("container_name"))),
    },
    Property {
        name: "UUID",
        signature: "s",
        emits: Emits::False,
        of: &[Machine],
        doc: "The UUID that the machine's own command line or manager states, empty where it has none or does not run. Two machines may \
              claim the same; Id is one machine's alone.",
        get: |of| {
            // `vms` is sorted by id.
            let vm = of.view.vms.binary_search_by(|vm| vm.id.as_str().cmp(of.label("vm_id")));
            let vm = vm.ok().and_then(|at| of.view.vms.get(at));
            text(vm.and_then(|vm| vm.uuid.as_deref()).unwrap_or_default())
        },
    },
    Property {
        name: "Hypervisor",
        signature: "s",
        emits: Emits::Const,
        of: &[Machine],
        doc: "\"kvm\", or \"qemu\" where QEMU emulates the processor.",
        get: |of| text(of.label("hypervisor")),
    },
    Property {
        name: "Project",
        signature: "s",
        emits: Emits::False,
        of: &[Machine],
        doc: "The project (tenant) that the machine belongs to, as its manager says: OpenStack's project, OpenNebula's group; empty where it is \
              not known. Where it becomes known late, the object is removed and added again.",
        get: |of| text(of.label("project")),
    },
    Property {
        name: "ProjectId",
        signature: "s",
        emits: Emits::False,
        of: &[Machine],
        doc: "The id of that project in its manager, empty where it is not known.",
        get: |of| text(of.label("project_id")),
    },
    Property {
        name: "Owner",
        signature: "s",
        emits: Emits::False,
        of: &[Machine],
        doc: "The manager's user who owns the machine, empty where it is not known. It is no user of this host.",
        get: |of| text(of.label("user")),
    },
    Property {
        name: "Flavor",
        signature: "s",
        emits: Emits::False,
        of: &[Machine],
        doc: "The name of the machine's size in OpenStack (flavor), empty where it is not known.",
        get: |of| text(of.label("flavor")),
    },
    Property {
        name: "Runtime",
        signature: "s",
        emits: Emits::Const,
        of: &[Container],
        doc: "What runs the container: \"docker\", \"containerd\", \"crio\", \"podman\", \"kata\", \"buildkit\", \"lxc\", \"systemd-nspawn\", \"kubepods\"; empty if the cgroup does not say it.",
        get: |of| text(of.label("runtime")),
    },
    Property {
        name: "Pod",
        signature: "s",
        emits: Emits::Const,
        of: &[Container],
        doc: "The id of the Kubernetes pod that the container is in, empty where it is in none.",
        get: |of| text(of.label("pod_id")),
    },
    Property {
        name: "PodName",
        signature: "s",
        emits: Emits::False,
        of: &[Container],
        doc: "The name of that pod, empty where it is not known. Where it becomes known late, the object is removed and added again.",
        get: |of| text(of.pod("pod_name")),
    },
    Property {
        name: "PodNamespace",
        signature: "s",
        emits: Emits::False,
        of: &[Container],
        doc: "The namespace of that pod, empty where it is not known.",
        get: |of| text(of.pod("pod_namespace")),
    },
    Property {
        name: "Image",
        signature: "s",
        emits: Emits::False,
        of: &[Container],
        doc: "The image that the container was made from, as its runtime says (jouled-containers); empty where it is not known. Where it \
              becomes known late, the object is removed and added again.",
        get: |of| text(of.label("image")),
    },
    Property {
        name: "ComposeProject",
        signature: "s",
        emits: Emits::False,
        of: &[Container],
        doc: "The project of Docker Compose that the container belongs to, empty where it belongs to none.",
        get: |of| text(of.label("compose_project")),
    },
    Property {
        name: "ComposeService",
        signature: "s",
        emits: Emits::False,
        of: &[Container],
        doc: "The service of that project, empty where it belongs to none.",
        get: |of| text(of.label("compose_service")),
    },
    Property {
        name: "Labels",
        signature: "a{ss}",
        emits: Emits::False,
        of: &[Container],
        doc: "The labels of the container that jouled-containers was told to report, as its runtime has them.",
        get: |of| {
            let details = of.object.into_iter().flat_map(|object| object.labels.details());
            let labels = details.filter_map(|(name, value)| Some((name.strip_prefix(Details::LABEL)?, value)));
            let labels: BTreeMap<String, String> =
                labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            labels.into()
        },
    },
    Property {
        name: "PID",
        signature: "u",
        emits: Emits::Const,
        of: &[Process],
        doc: "The process id.",
        get: |of| of.label("pid").parse().unwrap_or(0_u32).into(),
    },
    Property {
        name: "Comm",
        signature: "s",
        emits: Emits::False,
        of: &[Process],
        doc: "The process's own short name. Control characters are escaped as \\u{1b}.",
        get: |of| text(of.label("comm")),
    },
    Property {
        name: "State",
        signature: "s",
        emits: Emits::True,
        of: ENTITIES,
        doc: "\"running\", or \"terminated\": it ended, and its last numbers stay for a while.",
        get: |of| text(of.object.map_or("", |object| object.state.as_str())),
    },
    Property {
        name: "EnergyMicrojoules",
        signature: "t",
        emits: Emits::True,
        of: ALL,
        doc: "Energy in microjoules since Since (the manager's: ever counted here) in the billing base, which counts everything once: \
              packages, memory where it is metered apart, GPUs, and what a platform meter sees beyond those; dynamic and idle together. \
              Never falls. 18446744073709551615: not known.",
        get: |of| of.numbers().total.map_or(UNKNOWN, |energy| energy.0).into(),
    },
    Property {
        name: "PowerMicrowatts",
        signature: "t",
        emits: Emits::True,
        of: ALL,
        doc: "Mean power in microwatts in the billing base: over the last window of each zone for root and the group jouled (a second for \
              RAPL, half a minute or more for a BMC), over the last 10 s for others, from the energy that they were told. \
              18446744073709551615: not known, as where one of the meters gives none.",
        get: |of| of.numbers().total_power.map_or(UNKNOWN, |power| power.0).into(),
    },
    Property {
        name: "EnergyByZone",
        signature: "a(sst)",
        emits: Emits::True,
        of: ALL,
        doc: "Energy in microjoules by zone (package, core, uncore, dram, psys, gpu, other) and mode (dynamic: from its own work; idle: its \
              part of the energy drawn at rest; of the manager: all that was drawn by work, and at rest). Zones contain each other: never add them up. The manager has also (platform, total): what \
              the platform meter that is believed saw as a whole. A zone that is not there is not known.",
        get: |of| energy_by_zone(of).into(),
    },
    Property {
        name: "PowerByZone",
        signature: "a(sst)",
        emits: Emits::True,
        of: ALL,
        doc: "Mean power in microwatts by zone and mode, as PowerMicrowatts. 18446744073709551615: not known.",
        get: |of| power_by_zone(of).into(),
    },
    Property {
        name: "Since",
        signature: "t",
        emits: Emits::Const,
        of: ENTITIES,
        doc: "When the counter began, in microseconds of CLOCK_REALTIME. Another value: another counter, which began at zero.",
        get: |of| of.object.map_or(UNKNOWN, |object| microseconds(object.since)).into(),
    },
    Property {
        name: "Estimated",
        signature: "b",
        emits: Emits::True,
        of: ALL,
        doc: "Whether a model's guess is in EnergyMicrojoules now, rather than measurements alone.",
        get: |of| of.view.estimated.into(),
    },
    Property {
        name: "UpdatedAt",
        signature: "t",
        emits: Emits::False,
        of: ALL,
        doc: "When these numbers were taken, in microseconds of CLOCK_REALTIME. A zone may have been read before that: see ZonesReadAt of \
              the manager.",
        get: |of| microseconds(of.view.at.realtime).into(),
    },
    Property {
        name: "ZonesReadAt",
        signature: "a(st)",
        emits: Emits::False,
        of: &[Manager],
        doc: "When the meters of each zone were read last, in microseconds of CLOCK_REALTIME: energy of a slow meter (a BMC) is charged \
              when its reading comes.",
        get: |of| {
            let zones = of.view.read_at.iter().map(|(zone, at)| (zone.as_str(), microseconds(*at)));
            zones.collect::<Vec<_>>().into()
        },
    },
    Property {
        name: "EstimateByZone",
        signature: "a(stt)",
        emits: Emits::False,
        of: &[Manager],
        doc: "Zones whose power is an estimate: the ends of the interval that holds the true power in 90 % of cases, in microwatts, over \
              the last window. Empty where all is measured; only root and the group jouled are told.",
        get: |of| {
            let zones = of.view.intervals.iter().map(|(zone, low, high)| (zone.as_str(), low.0, high.0));
            zones.collect::<Vec<_>>().into()
        },
    },
    Property {
        name: "Sources",
        signature: "a(sssst)",
        emits: Emits::True,
        of: &[Manager],
        doc: "Every source: name, role (meter, usage, entity, export and others), state (healthy, degraded, failed, unsupported), the reason in \
              words (empty where healthy), and when it last gave something, in microseconds of CLOCK_REALTIME; 18446744073709551615: \
              never, or not that kind of source.",
        get: |of| {
            let at = of.view.at;
            let sources = of.view.sources.iter().map(|source| {
                let read = source.read_at.map_or(UNKNOWN, |read| microseconds(at.realtime - (at.monotonic - read)));
                (
                    safe(&source.source),
                    safe(source.role.as_str()),
                    source.health.as_str(),
                    safe(source.health.why()),
                    read,
                )
            });
            sources.collect::<Vec<_>>().into()
        },
    },
];

/// The properties of an interface.
pub(super) fn of(iface: Iface) -> impl Iterator<Item = &'static Property> {
    PROPERTIES.iter().filter(move |property| property.of.contains(&iface))
}

/// A property by its name.
pub(super) fn find(iface: Iface, name: &str) -> Option<&'static Property> {
    of(iface).find(|property| property.name == name)
}

fn text(text: &str) -> Variant<'static> {
    Variant::from(safe(text))
}

fn microseconds(time: Nanos) -> u64 {
    time.0 / 1000
}

const MODES: [&str; 2] = ["dynamic", "idle"];
/// The mode of energy that is not divided into dynamic and idle.
const TOTAL: &str = "total";

/// Whether a zone and mode is listed for this subject. Idle energy of an entity is listed only where a policy shares
/// idle energy, or has shared it.
fn is_shown(of: Subject<'_>, zone: Zone, idle: bool) -> bool {
    let has_idle = || of.numbers().energy.idle.get(zone.index()).is_some_and(|energy| *energy > Microjoules::ZERO);
    !idle || of.object.is_none() || of.view.hands_out_idle() || has_idle()
}

fn energy_by_zone(of: Subject<'_>) -> Vec<(&'static str, &'static str, u64)> {
    let energy = &of.numbers().energy;
    let by_mode = |zone: Zone, idle: bool| if idle { energy.idle[zone.index()] } else { energy.dynamic[zone.index()] };
    let mut rows = by_zone(of, |shown, idle| by_mode(shown.zone, idle).0);
    if let (None, Some((energy, _))) = (of.object, of.view.platform) {
        rows.push((Zone::Platform.as_str(), TOTAL, energy.0));
    }
    rows
}

fn power_by_zone(of: Subject<'_>) -> Vec<(&'static str, &'static str, u64)> {
    let power = &of.numbers().power;
    let by_mode = |shown: &Shown, idle: bool| {
        let power = power.as_ref().filter(|_| shown.power)?;
        Some(power[usize::from(idle)][shown.zone.index()])
    };
    let told = |power: Option<Microwatts>| power.map_or(UNKNOWN, |power| power.0);
    let mut rows = by_zone(of, |shown, idle| told(by_mode(shown, idle)));
    if let (None, Some((_, power))) = (of.object, of.view.platform) {
        rows.push((Zone::Platform.as_str(), TOTAL, told(power)));
    }
    rows
}

fn by_zone(of: Subject<'_>, value: impl Fn(&Shown, bool) -> u64) -> Vec<(&'static str, &'static str, u64)> {
    let modes = |shown: &'_ Shown| [false, true].map(|idle| (*shown, idle));
    let all = of.view.zones.iter().flat_map(modes).filter(|(shown, idle)| is_shown(of, shown.zone, *idle));
    all.map(|(shown, idle)| (shown.zone.as_str(), MODES[usize::from(idle)], value(&shown, idle))).collect()
}

/// systemd.slice(5): `a-b.slice` is in `a.slice`, and that is in the root slice.
fn parent_slice(slice: &str) -> String {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    match stem.rsplit_once('-') {
        _ if slice == "-.slice" || slice.is_empty() => String::new(),
        Some((parent, _)) if !parent.is_empty() => format!("{parent}.slice"),
        _ => "-.slice".into(),
    }
}

/// All properties of an interface, with their values.
pub(super) fn all(iface: Iface, subject: Subject<'_>) -> BTreeMap<&'static str, Variant<'static>> {
    of(iface).map(|property| (property.name, (property.get)(subject))).collect()
}

/// Values by interface and property.
pub(super) type Interfaces = BTreeMap<&'static str, BTreeMap<&'static str, Variant<'static>>>;

/// One object as ObjectManager lists it: its own interface only, as the standard ones have no properties.
pub(super) fn interfaces(view: &View, object: &Object) -> Interfaces {
    [(object.iface.name(), all(object.iface, Subject { view, object: Some(object) }))].into()
}
