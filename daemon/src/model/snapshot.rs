//! The snapshot: everything that jouled tells anybody, as of the last tick. Plain data; whoever reads it changes
//! nothing.

use crate::model::billing::IdlePolicy;
use crate::model::domain::{Domain, NodeEnergy, Zone};
use crate::model::entity::{Kind, Labels, WrongLabels};
use crate::model::platform::{PlatformChoice, PlatformKind};
use crate::model::source::{Health, PciAddress, SourceRole, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{Counted, Used};
use crate::model::vm::Vm;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

/// Energy by zone.
pub type ByZone = [Microjoules; Zone::COUNT];

/// Cumulative energy of an entity, by zone and mode. Zones overlap (package contains core): never add them up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Energy {
    /// From its own work.
    pub dynamic: ByZone,
    /// Its part of the idle energy, where a policy hands that out; else zero.
    pub idle: ByZone,
}

impl Energy {
    /// Adds another energy to this one.
    pub fn add(&mut self, other: &Self) {
        for zone in 0..Zone::COUNT {
            self.dynamic[zone] += other.dynamic[zone];
            self.idle[zone] += other.idle[zone];
        }
    }

    /// Takes another energy, which is part of this one, away.
    pub fn subtract(&mut self, other: &Self) {
        for zone in 0..Zone::COUNT {
            self.dynamic[zone] = self.dynamic[zone] - other.dynamic[zone];
            self.idle[zone] = self.idle[zone] - other.idle[zone];
        }
    }

    /// All zones and modes together: to compare entities by, not to show.
    pub fn sum(&self) -> Microjoules {
        self.dynamic.iter().chain(&self.idle).copied().sum()
    }
}

/// Whether an entity still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It exists.
    Running,
    /// It ended; its last numbers stay for a while.
    Terminated,
}

impl State {
    /// Kepler's `state` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Terminated => "terminated",
        }
    }
}

/// One entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its labels. Serialised as the values alone, in the order of [`Kind::label_names`]: the kind is
    /// [`KindView::kind`].
    #[serde(serialize_with = "label_values")]
    pub labels: Labels,
    /// Whether it still exists.
    pub state: State,
    /// What its series show: energy charged since the series began.
    pub energy: Energy,
    /// Mean power from its own work, over the last window of each zone.
    pub power: [Microwatts; Zone::COUNT],
    /// Mean power of its part of the idle energy.
    pub idle_power: [Microwatts; Zone::COUNT],
    /// Use charged since the series began.
    pub used: Used,
    /// When the series began, CLOCK_REALTIME.
    pub since: Nanos,
}

impl Row {
    /// Mean power by zone, dynamic and idle together.
    pub fn whole_power(&self) -> [Microwatts; Zone::COUNT] {
        std::array::from_fn(|zone| self.power[zone] + self.idle_power[zone])
    }
}

fn label_values<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    labels.values().serialize(serializer)
}

/// All entities of one kind. `rows` + `rest` + `ended` + `parked` is everything that was ever charged to the kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedKindView")]
pub struct KindView {
    /// Which kind.
    pub kind: Kind,
    /// Those with a series of their own.
    pub rows: Vec<Row>,
    /// What those without a series of their own were charged.
    pub rest: Energy,
    /// What series that are no longer shown had reached.
    pub ended: Energy,
    /// What series of living entities that made room for busier ones had reached. Falls when one is shown again: a
    /// gauge.
    pub parked: Energy,
    /// Mean power, by zone, of those without a series, dynamic and idle together.
    pub rest_power: [Microwatts; Zone::COUNT],
}

/// As read, before the rows' numbers of labels are checked against the kind.
#[derive(Deserialize)]
struct UncheckedKindView {
    kind: Kind,
    rows: Vec<UncheckedRow>,
    rest: Energy,
    ended: Energy,
    parked: Energy,
    rest_power: [Microwatts; Zone::COUNT],
}

#[derive(Deserialize)]
struct UncheckedRow {
    labels: Arc<[String]>,
    state: State,
    energy: Energy,
    power: [Microwatts; Zone::COUNT],
    idle_power: [Microwatts; Zone::COUNT],
    used: Used,
    since: Nanos,
}

impl TryFrom<UncheckedKindView> for KindView {
    type Error = WrongLabels;
    fn try_from(view: UncheckedKindView) -> Result<Self, WrongLabels> {
        let UncheckedKindView { kind, rows, rest, ended, parked, rest_power } = view;
        let row = |row: UncheckedRow| {
            let UncheckedRow { labels, state, energy, power, idle_power, used, since } = row;
            Ok(Row { labels: Labels::new(kind, labels)?, state, energy, power, idle_power, used, since })
        };
        let rows = rows.into_iter().map(row).collect::<Result<_, WrongLabels>>()?;
        Ok(Self { kind, rows, rest, ended, parked, rest_power })
    }
}

/// What is known of the energy drawn at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleFloor {
    /// Power at zero load.
    pub power: Microwatts,
    /// The true value is believed to be within this much of it (one standard error).
    pub uncertainty: Microwatts,
    /// How it is known.
    pub from: IdleFrom,
}

/// Where an idle floor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleFrom {
    /// The configuration.
    Configured,
    /// The model that the domain's energy is estimated by.
    Model,
    /// Learned from power against utilisation on this machine.
    Learned,
    /// Not enough seen yet: the ratio of idle to full power of processors of this kind.
    Prior,
}

impl IdleFrom {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Model => "model",
            Self::Learned => "learned",
            Self::Prior => "prior",
        }
    }
}

/// What a domain is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It is part of the sum that counts everything once: a package, memory outside of it, a GPU, the remainder.
    Billed,
    /// It is a part of something that is billed: shown, never added to it.
    Breakdown,
    /// The platform meter that is believed: what it sees beyond the components is the remainder, zone `other`.
    Authority,
    /// Another meter of the platform: compared with the one that is believed.
    Comparison,
    /// Nothing now: its energy is of an earlier time.
    Past,
}

impl Role {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Billed => "billed",
            Self::Breakdown => "breakdown",
            Self::Authority => "authority",
            Self::Comparison => "comparison",
            Self::Past => "past",
        }
    }
}

/// Two meters that should see the same, or one that should see no more than the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Which: a kind of platform meter, or `components`, all of them together.
    pub source: String,
    /// Compared with which: the authority.
    pub against: String,
    /// By how much it says more, in millionths; less than zero: it says less.
    pub off_ppm: i64,
    /// What both may be off by, as their makers say.
    pub allowed_ppm: u32,
}

impl Comparison {
    /// A comparison.
    pub fn new(source: &str, against: &str, off_ppm: i64, allowed_ppm: u32) -> Self {
        Self { source: source.into(), against: against.into(), off_ppm, allowed_ppm }
    }

    /// Whether they say the same, as well as they can.
    pub fn agrees(&self) -> bool {
        self.off_ppm.unsigned_abs() <= u64::from(self.allowed_ppm)
    }
}

/// Which platform meter is believed, and whether the others agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformView {
    /// What the configuration says: `auto`, `none` or a kind of meter.
    pub choice: PlatformChoice,
    /// The kind of meter that is believed now; `None`: there is none, or none is wanted.
    pub authority: Option<PlatformKind>,
    /// The other meters against it, over the last minute or more.
    pub comparisons: Vec<Comparison>,
    /// GPUs of VMs that have no meter: their energy is in zone `other`, and so that is charged to nobody.
    pub unmetered: Vec<PciAddress>,
    /// No meter is believed because this is a VM whose host reports what it drew, and the choice is `auto`.
    #[serde(default)]
    pub host_reports: bool,
}

/// One domain: its energy and power, and how it is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    /// Which domain.
    pub domain: Arc<Domain>,
    /// What it is used for.
    pub role: Role,
    /// Whether shares of its last window are by a rule (slices of a MIG GPU), not by use that was seen.
    pub shares_estimated: bool,
    /// It gives no energy now: it is an earlier run's and has not been seen in this one, or another meter stands in for
    /// it; `error` says which. Its energy stays in the totals, as it does in those of the entities that were charged.
    pub past: bool,
    /// Energy since the domain's totals began. In JSON its four fields are fields of the domain.
    #[serde(flatten)]
    pub energy: NodeEnergy,
    /// Mean power over the last window; `None` while there is none (first tick, gap, failed).
    pub power: Option<Microwatts>,
    /// The idle part of `power`.
    pub idle_power: Option<Microwatts>,
    /// Idle floor in use.
    pub floor: Option<IdleFloor>,
    /// When it was last read, CLOCK_MONOTONIC; `None`: never.
    pub read_at: Option<Nanos>,
    /// Why the last read gave nothing; empty where it did.
    pub error: String,
    /// Intervals that could not be measured (suspend, reset, implausible jump), and their time.
    pub gaps: u64,
    /// Time that was not measured.
    pub gap_time: Nanos,
}

impl DomainView {
    /// Whether its energy is not shared out itself: that of a platform meter.
    pub fn undivided(&self) -> bool {
        self.domain.zone == Zone::Platform
    }
}

/// A source and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// Name: `rapl-perf`, `rapl-powercap`, `vsock`, `estimate`, `bpf`, `procfs`.
    pub source: String,
    /// What it does.
    pub role: SourceRole,
    /// How it is. Never [`Health::Starting`]: that is shown as `degraded`.
    pub health: Health,
    /// One line for people, on what it is connected to and how; empty where there is nothing to say.
    pub detail: String,
    /// When it last gave something, CLOCK_MONOTONIC; `None`: never.
    pub read_at: Option<Nanos>,
}

/// One logical CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuInfo {
    /// Number.
    pub processor: u32,
    /// `GenuineIntel`, `AuthenticAMD`…
    pub vendor_id: String,
    /// Marketing name.
    pub model_name: String,
    /// Package.
    pub physical_id: u32,
    /// Core in the package.
    pub core_id: u32,
}

/// What does not change while jouled runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// jouled's version.
    pub version: String,
    /// Host name: Kepler's `node_name`.
    pub node_name: String,
    /// Processor architecture: `x86_64`.
    pub arch: String,
    /// Online CPUs at start.
    pub cpus: Vec<CpuInfo>,
    /// Nominal time between ticks.
    pub interval: Nanos,
    /// Whether energy of the `dram` zone is outside of `package` here. The billing base goes by [`Domain::billed`]; this is for other readers.
    pub dram_billed: bool,
    /// What becomes of idle energy.
    pub idle: IdlePolicy,
}

/// Everything, as of the last tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What does not change.
    pub host: Arc<Host>,
    /// Ticks since jouled started.
    pub ticks: u64,
    /// When.
    pub at: Stamp,
    /// Share of all CPUs' time that was used in the last tick, 0 to 1.
    pub cpu_usage: Option<f64>,
    /// Sources and how they are.
    pub sources: Vec<SourceView>,
    /// The node's energy, by domain.
    pub domains: Vec<DomainView>,
    /// Which platform meter is believed.
    pub platform: PlatformView,
    /// Entities, in the order of [`Kind::ALL`].
    pub kinds: Vec<KindView>,
    /// VMs that run now, in the order of their ids. Their energy is in [`Kind::Vm`]'s rows.
    pub vms: Arc<[Vm]>,
    /// Which hardware counters are counted.
    pub counted: Counted,
    /// Times that something did not fit in a bounded table of the usage source.
    pub overflows: u64,
    /// CPU time that nobody could be charged for.
    pub lost_cpu: Nanos,
    /// CPU time that jouled itself used, user and system.
    pub own_cpu: Nanos,
}

impl Snapshot {
    /// The entities of one kind.
    pub fn kind(&self, kind: Kind) -> &KindView {
        &self.kinds[kind.index()]
    }

    /// Whether every number of energy that is measured now is an estimate.
    pub fn estimated(&self) -> bool {
        use crate::model::domain::Quality;
        let mut now = self.domains.iter().filter(|view| !view.past).peekable();
        now.peek().is_some() && now.all(|view| view.domain.quality == Quality::Estimated)
    }
}
