//! The snapshot: everything that exports and joulectl show, as of the last tick. Plain data, shared read-only. joulectl
//! gets it as JSON over the control socket, so names of fields are a protocol.

use crate::model::billing::{IdlePolicy, SharedBy};
use crate::model::by_name;
use crate::model::domain::{Domain, NodeEnergy, PowerInterval, Quality, Scope, Verdict, Zone};
use crate::model::entity::{Kind, Labels, PodLabels};
use crate::model::footprint::Footprint;
use crate::model::platform::{PlatformChoice, PlatformKind};
use crate::model::source::{Health, PciAddress, SourceRole, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{Counted, Used};
use crate::model::vm::Vm;
use crate::model::zone_origin::ZoneOrigins;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Energy by zone, in µJ, in the order of [`Zone::ALL`].
pub type ByZone = [Microjoules; Zone::COUNT];

/// Cumulative energy of an entity by zone and mode, in µJ. Zones overlap (package contains core), so they are not to be
/// added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Energy {
    /// Energy of the entity's own work.
    #[serde(with = "by_name::zones")]
    pub dynamic: ByZone,
    /// The entity's part of the idle energy; 0 where the idle policy leaves that to the node.
    #[serde(with = "by_name::zones")]
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

    /// Subtracts another energy, which is a part of this one.
    pub fn subtract(&mut self, other: &Self) {
        for zone in 0..Zone::COUNT {
            self.dynamic[zone] = self.dynamic[zone] - other.dynamic[zone];
            self.idle[zone] = self.idle[zone] - other.idle[zone];
        }
    }

    /// Sum over all zones and modes. For comparing entities, not for showing: zones overlap.
    pub fn sum(&self) -> Microjoules {
        self.dynamic.iter().chain(&self.idle).copied().sum()
    }
}

/// Whether an entity still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The entity exists.
    Running,
    /// The entity ended. Its last numbers are shown for the configured retention.
    Terminated,
}

impl State {
    /// The value of Kepler's `state` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Terminated => "terminated",
        }
    }
}

/// The series of one entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its labels. Serialised by name, without the kind, which is [`KindView::kind`].
    #[serde(serialize_with = "by_name::label_values")]
    pub labels: Labels,
    /// Whether the entity still exists.
    pub state: State,
    /// Energy charged since the series began.
    pub energy: Energy,
    /// Mean power of the entity's own work over the last window of each zone, in µW.
    #[serde(with = "by_name::zones")]
    pub power: [Microwatts; Zone::COUNT],
    /// Mean power of the entity's part of the idle energy over the last window of each zone, in µW.
    #[serde(with = "by_name::zones")]
    pub idle_power: [Microwatts; Zone::COUNT],
    /// CPU time and counters charged since the series began.
    pub used: Used,
    /// When the series began, CLOCK_REALTIME.
    pub since: Nanos,
    /// The labels of its counters on the metrics page, which only jouled itself writes.
    #[serde(skip)]
    pub on_page: OnPage,
    /// The tenant and the entities of the cgroup in which the entity runs, the outermost first; `None`: not known. The
    /// list may have the entity itself: it is in those before it. For the page, which only jouled itself shows.
    #[serde(skip)]
    pub within: Option<Arc<[Labels]>>,
    /// Whether the entity ended and all windows that could charge it have closed: its numbers are final.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
}

/// The labels under which the metrics page shows the counters of a row. Labels of a counter never change while jouled
/// runs, though names of the entity may become known late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnPage {
    /// The labels of the row.
    #[default]
    Current,
    /// Those that the entity had when its counters were first shown.
    First(Labels),
    /// None yet: its name is awaited, for a short time.
    Waiting,
}

impl Row {
    /// The labels of its counters on the metrics page; `None`: they are not shown yet.
    pub fn page_labels(&self) -> Option<&Labels> {
        match &self.on_page {
            OnPage::Current => Some(&self.labels),
            OnPage::First(labels) => Some(labels),
            OnPage::Waiting => None,
        }
    }

    /// Mean power by zone, dynamic and idle together, in µW.
    pub fn whole_power(&self) -> [Microwatts; Zone::COUNT] {
        std::array::from_fn(|zone| self.power[zone] + self.idle_power[zone])
    }
}

/// All entities of one kind. `rows` + `rest` + `ended` + `parked` is everything that was ever charged to the kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedKindView")]
pub struct KindView {
    /// The kind of all rows.
    pub kind: Kind,
    /// Entities with a series of their own.
    pub rows: Vec<Row>,
    /// Energy charged to entities while they had no series of their own.
    pub rest: Energy,
    /// Energy of series that were dropped some time after their entities ended.
    pub ended: Energy,
    /// Energy of living entities whose series are not shown: those that made room for busier ones, and those of
    /// processes with too little energy yet. Falls when one of them is shown or ends: a gauge.
    pub parked: Energy,
    /// Mean power by zone of entities without a series, dynamic and idle together, in µW.
    #[serde(with = "by_name::zones")]
    pub rest_power: [Microwatts; Zone::COUNT],
}

/// As read: the kind may be of another version, and the rows' labels are named by it.
#[derive(Deserialize)]
struct UncheckedKindView {
    kind: String,
    rows: Vec<UncheckedRow>,
    rest: Energy,
    ended: Energy,
    parked: Energy,
    #[serde(with = "by_name::zones")]
    rest_power: [Microwatts; Zone::COUNT],
}

#[derive(Deserialize)]
struct UncheckedRow {
    labels: by_name::Values,
    state: State,
    energy: Energy,
    #[serde(with = "by_name::zones")]
    power: [Microwatts; Zone::COUNT],
    #[serde(with = "by_name::zones")]
    idle_power: [Microwatts; Zone::COUNT],
    used: Used,
    since: Nanos,
    #[serde(default)]
    settled: bool,
}

impl TryFrom<UncheckedKindView> for KindView {
    type Error = String;
    fn try_from(view: UncheckedKindView) -> Result<Self, String> {
        let UncheckedKindView { kind, rows, rest, ended, parked, rest_power } = view;
        let kind = by_name::kind(&kind).ok_or_else(|| format!("kind {kind:?} is not known"))?;
        let row = |row: UncheckedRow| {
            let UncheckedRow { labels, state, energy, power, idle_power, used, since, settled } = row;
            let (labels, on_page, within) = (labels.of(kind)?, OnPage::Current, None);
            Ok(Row { labels, state, energy, power, idle_power, used, since, on_page, within, settled })
        };
        let rows = rows.into_iter().map(row).collect::<Result<_, String>>()?;
        Ok(Self { kind, rows, rest, ended, parked, rest_power })
    }
}

impl KindView {
    /// Rows whose counters are on the metrics page, with their labels there.
    pub fn page_rows(&self) -> impl Iterator<Item = (&Labels, &Row)> + Clone {
        self.rows.iter().filter_map(|row| Some((row.page_labels()?, row)))
    }

    /// Energy of series that are not on the metrics page: `parked`, and rows that wait for a name.
    pub fn page_parked(&self) -> Energy {
        let mut parked = self.parked;
        self.rows.iter().filter(|row| row.page_labels().is_none()).for_each(|row| parked.add(&row.energy));
        parked
    }

    /// A kind without entities.
    pub fn empty(kind: Kind) -> Self {
        let [rest, ended, parked] = [Energy::default(); 3];
        Self { kind, rows: Vec::new(), rest, ended, parked, rest_power: Default::default() }
    }
}

/// One view for each kind in the order of [`Kind::ALL`], whatever the writer knows: kinds that it lacks are empty,
/// kinds that are not known here are left out.
fn every_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KindView>, D::Error> {
    let mut views: Vec<KindView> = Kind::ALL.into_iter().map(KindView::empty).collect();
    for unchecked in Vec::<UncheckedKindView>::deserialize(deserializer)? {
        if let Some(kind) = by_name::kind(&unchecked.kind) {
            views[kind.index()] = unchecked.try_into().map_err(D::Error::custom)?;
        }
    }
    Ok(views)
}

/// The idle floor of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleFloor {
    /// Power at zero load, in µW.
    pub power: Microwatts,
    /// Standard error of `power`, in µW; 0 where it is not known, or the operator gave the floor. See [`Self::error`].
    pub uncertainty: Microwatts,
    /// Where the floor comes from.
    pub from: IdleFrom,
}

impl IdleFloor {
    /// Standard error in µW; `None`: it is not known. What the operator configured has none.
    pub fn error(&self) -> Option<Microwatts> {
        (self.uncertainty > Microwatts::ZERO || self.from == IdleFrom::Configured).then_some(self.uncertainty)
    }
}

/// Where an idle floor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleFrom {
    /// Given in the configuration: `attribution.idle_watts`.
    Configured,
    /// Given by the model that the domain's energy is estimated by.
    Model,
    /// Learned from power against utilisation on this machine.
    Learned,
    /// The ratio of idle to full power of processors of this kind, until enough was learned.
    Prior,
}

impl IdleFrom {
    /// The word that joulectl and metrics show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Model => "model",
            Self::Learned => "learned",
            Self::Prior => "prior",
        }
    }
}

/// The part that a domain has in the node's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A part of the sum that counts all energy once: a package, memory outside of it, a GPU, the remainder.
    Billed,
    /// A part of a billed domain: shown, and not added to the sum.
    Breakdown,
    /// The platform meter in use: its energy beyond the components is the remainder, zone `other`.
    Authority,
    /// Another platform meter: compared with the authority.
    Comparison,
    /// None now: its energy is of an earlier time.
    Past,
}

impl Role {
    /// The word that joulectl and metrics show.
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

/// A comparison over the last minute or more: of two platform meters, which should agree, or of the components with the
/// authority, which they should not exceed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// What is compared: a kind of platform meter, or `components`, all of them together.
    pub source: String,
    /// The kind of platform meter that it is compared with: the authority.
    pub against: String,
    /// Difference in millionths of the authority's energy; negative where `source` is lower.
    pub off_ppm: i64,
    /// Allowed difference in millionths: the sum of both stated accuracies.
    pub allowed_ppm: u32,
}

impl Comparison {
    /// A comparison of `source` with `against`; both differences in millionths.
    pub fn new(source: &str, against: &str, off_ppm: i64, allowed_ppm: u32) -> Self {
        Self { source: source.into(), against: against.into(), off_ppm, allowed_ppm }
    }

    /// Whether the difference is within what both accuracies allow.
    pub fn agrees(&self) -> bool {
        self.off_ppm.unsigned_abs() <= u64::from(self.allowed_ppm)
    }
}

/// The platform meter in use, and how the others compare with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformView {
    /// The configured choice: `auto`, `none` or a kind of meter.
    pub choice: PlatformChoice,
    /// The kind of platform meter in use now; `None` where there is none, or none is wanted.
    pub authority: Option<PlatformKind>,
    /// Comparisons of the other platform meters, and of the components, with the authority.
    pub comparisons: Vec<Comparison>,
    /// GPUs without a meter that are passed through to VMs. Their energy is part of zone `other`, which is not
    /// attributed while there are any.
    pub unmetered: Vec<PciAddress>,
    /// No meter is believed because this is a VM whose host reports what it drew, and the choice is `auto`.
    #[serde(default)]
    pub host_reports: bool,
}

/// One domain: its energy and power, and how it is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    /// Its identity and properties.
    pub domain: Arc<Domain>,
    /// The part that it has in the node's sum.
    pub role: Role,
    /// Whether shares of its last window were computed by a rule (slices of a MIG GPU), not from use that was seen.
    pub shares_estimated: bool,
    /// It gives no energy now: it is of an earlier run and has not been seen in this one, or another meter stands in
    /// for it; `error` says which. Its energy stays in the totals, as it does in those of the entities that were
    /// charged.
    pub past: bool,
    /// Energy since the domain's totals began. In JSON its four fields are fields of the domain.
    #[serde(flatten)]
    pub energy: NodeEnergy,
    /// Mean power over the last window, in µW; `None` while there is none (first tick, gap, failed read).
    pub power: Option<Microwatts>,
    /// The idle part of `power`, in µW.
    pub idle_power: Option<Microwatts>,
    /// Of an estimate: the interval that holds the true `power` in 90 % of cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<PowerInterval>,
    /// The idle floor in use; `None` before the first observation.
    pub floor: Option<IdleFloor>,
    /// Time of the last reading, CLOCK_MONOTONIC; `None` where there was none.
    pub read_at: Option<Nanos>,
    /// The reason why the last read gave no energy; empty where it did.
    pub error: String,
    /// Whether what its meter says can be true.
    #[serde(default)]
    pub verdict: Verdict,
    /// Number of intervals that could not be measured (suspend, reset, implausible jump).
    pub gaps: u64,
    /// Sum of the lengths of these intervals, in nanoseconds.
    pub gap_time: Nanos,
    /// What was learned of its power while its meter measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedView>,
    /// What its dynamic energy was shared by in its last window; `None`: it is not shared, or no window has closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_by: Option<SharedBy>,
}

/// What a model says of the power of a domain that a meter measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictedPower {
    /// The most likely power, in µW.
    pub power: Microwatts,
    /// The interval that holds the true power in 90 % of cases.
    pub interval: PowerInterval,
}

/// The power model of a domain that its own meter taught.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedView {
    /// Name of the model.
    pub name: String,
    /// Time that taught it, in nanoseconds.
    pub taught: Nanos,
    /// Time of the last lesson, CLOCK_REALTIME; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taught_at: Option<Nanos>,
    /// Mean absolute error of what it said before each window taught it, in millionths of the measured power; `None`
    /// before the first one. Time constant: a week of each band of load.
    pub error_ppm: Option<u64>,
    /// The same by band of load.
    pub bands: Vec<LearnedBand>,
    /// The power that the last version of the model says of the last window, which did not teach that version; `None`
    /// where none is known, nothing was measured, or the load is not of the same moment as the power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<PredictedPower>,
    /// The model in the format of files of models; `None` before it has learned enough, and for GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<str>>,
}

/// The error of a learned model in a band of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedBand {
    /// Load from which it is, in percent.
    pub from_percent: u8,
    /// Load up to which it is, in percent.
    pub to_percent: u8,
    /// Mean absolute error before the update, in millionths of the measured power.
    pub error_ppm: u64,
}

impl DomainView {
    /// Whether its verdict says something: estimates, and what the host of a VM reports, are not judged here, nor is
    /// what was measured earlier.
    pub fn is_judged(&self) -> bool {
        let judged = self.domain.quality == Quality::Measured && !self.domain.by_host;
        judged && (!self.past || self.verdict != Verdict::Usable)
    }

    /// Whether the machine has this domain, no value of it can be used, and no other meter stands in: sums of its zone
    /// lack it. `domains`: all of the snapshot. Memory that never counted anything is none that is there.
    pub fn is_missing(&self, domains: &[DomainView]) -> bool {
        let matters = match self.domain.zone {
            Zone::Package | Zone::Gpu => true,
            Zone::Dram => self.domain.billed && self.energy.total > Microjoules::ZERO,
            Zone::Core | Zone::Uncore | Zone::Psys | Zone::Platform | Zone::Other => false,
        };
        let stands_in = |other: &DomainView| {
            let (this, other_domain) = (&self.domain, &other.domain);
            let covers = other_domain.scope == this.scope || matches!(other_domain.scope, Scope::Machine);
            !other.past && other_domain.zone == this.zone && other_domain.source != this.source && covers
        };
        self.past && matters && matches!(self.verdict, Verdict::NoPower(_)) && !domains.iter().any(stands_in)
    }

    /// Whether its energy is not attributed itself: zone `platform`, whose remainder is attributed as zone `other`.
    pub fn undivided(&self) -> bool {
        self.domain.zone == Zone::Platform
    }
}

/// The state of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// Name of the source: `rapl-perf`, `rapl-powercap`, `vsock`, `estimate`, `bpf`, `procfs`.
    pub source: String,
    /// The kind of source.
    pub role: SourceRole,
    /// The health of the source. Never [`Health::Starting`]: that is shown as `degraded`.
    pub health: Health,
    /// One line for people: what it is connected to, and how. Empty where there is nothing to say.
    pub detail: String,
    /// Time of its last reading or sample, CLOCK_MONOTONIC; `None` where there was none.
    pub read_at: Option<Nanos>,
}

/// One logical CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuInfo {
    /// Number of the CPU, as in /sys/devices/system/cpu/cpuN.
    pub processor: u32,
    /// Vendor in /proc/cpuinfo: `GenuineIntel`, `AuthenticAMD`…
    pub vendor_id: String,
    /// Model name in /proc/cpuinfo.
    pub model_name: String,
    /// Number of its package: `physical_package_id`.
    pub physical_id: u32,
    /// Number of its core within the package.
    pub core_id: u32,
}

/// Properties of the host and of jouled that do not change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Version of jouled.
    pub version: String,
    /// Host name: Kepler's label `node_name`.
    pub node_name: String,
    /// Processor architecture: `x86_64`.
    pub arch: String,
    /// CPUs that were online at the start.
    pub cpus: Vec<CpuInfo>,
    /// Configured time between ticks, in nanoseconds.
    pub interval: Nanos,
    /// Whether energy of the `dram` zone is outside of `package` here. The billing base goes by [`Domain::billed`];
    /// this is for other readers.
    pub dram_billed: bool,
    /// The configured idle policy.
    pub idle: IdlePolicy,
}

/// What was charged for processes in no container, since this start of jouled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uncontained {
    /// Programs of the host.
    pub system: Charged,
    /// Threads of the kernel: in the root cgroup, without a program.
    pub kernel: Charged,
}

/// Energy and use that were charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// Energy by zone, in µJ.
    pub energy: Energy,
    /// CPU time and counters.
    pub used: Used,
}

/// Everything that is shown, as of the last tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Properties of the host and of jouled.
    pub host: Arc<Host>,
    /// Number of ticks since jouled started.
    pub ticks: u64,
    /// Time of the last tick.
    pub at: Stamp,
    /// Utilisation of all CPUs since the tick before, 0 to 1; `None` at the first tick and where use is not known.
    pub cpu_usage: Option<f64>,
    /// Sources with their states.
    pub sources: Vec<SourceView>,
    /// Energy domains of the node.
    pub domains: Vec<DomainView>,
    /// Where the energy of each zone comes from, for the metrics page, which only jouled itself writes.
    #[serde(skip)]
    pub origins: ZoneOrigins,
    /// The platform meter in use.
    pub platform: PlatformView,
    /// Entities, in the order of [`Kind::ALL`].
    #[serde(deserialize_with = "every_kind")]
    pub kinds: Vec<KindView>,
    /// Processes in no container, for the metrics page, which only jouled itself writes.
    #[serde(skip)]
    pub uncontained: Uncontained,
    /// VMs that run now, in the order of their ids. Their energy is in the rows of [`Kind::Vm`].
    pub vms: Arc<[Vm]>,
    /// The hardware counters that are counted.
    pub counted: Counted,
    /// How often an entry did not fit into a bounded map of the usage source, since jouled started.
    pub overflows: u64,
    /// CPU time that could not be attributed since jouled started, in nanoseconds.
    pub lost_cpu: Nanos,
    /// CPU time that jouled itself used since it started, user and system, in nanoseconds.
    pub own_cpu: Nanos,
    /// Carbon and cost; `None` where neither is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footprint: Option<Arc<Footprint>>,
}

impl Snapshot {
    /// The view of one kind.
    pub fn kind(&self, kind: Kind) -> &KindView {
        &self.kinds[kind.index()]
    }

    /// The pods with a row, by id.
    pub fn pods(&self) -> BTreeMap<&str, PodLabels<'_>> {
        let pods = self.kind(Kind::Pod).rows.iter().filter_map(|row| PodLabels::of(&row.labels));
        pods.map(|pod| (pod.pod_id, pod)).collect()
    }

    /// Whether every number of energy that is measured now is an estimate.
    pub fn estimated(&self) -> bool {
        let mut now = self.domains.iter().filter(|view| !view.past).peekable();
        now.peek().is_some() && now.all(|view| view.domain.quality == Quality::Estimated)
    }
}
