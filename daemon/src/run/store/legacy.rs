//! `jouled ledger 2`, the format up to commit 20398ce: frames of `length, CRC-32, postcard`, little-endian, in which
//! zones, kinds and entries are numbers, and what is by zone is an array. The types are frozen as they were; they do
//! not follow those of the attribution. Gives JSON of the present format, which is then read like any other.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// No frame was larger.
const FRAME_LIMIT: u32 = 256 << 20;
const ZONES: [&str; 8] = ["package", "core", "uncore", "dram", "psys", "platform", "gpu", "other"];
pub const KINDS: [&str; 9] = ["process", "unit", "user-unit", "slice", "session", "user", "container", "pod", "vm"];

/// The labels of a kind, in order.
fn label_names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Process => &["pid", "comm", "exe", "type", "container_id", "vm_id"],
        Kind::Unit => &["unit", "slice"],
        Kind::UserUnit => &["unit", "slice", "user"],
        Kind::Slice => &["slice"],
        Kind::Session => &["session", "user"],
        Kind::User => &["user"],
        Kind::Container => &["container_id", "container_name", "runtime", "pod_id"],
        Kind::Pod => &["pod_id", "pod_name", "pod_namespace"],
        Kind::Vm => &["vm_id", "vm_name", "hypervisor"],
    }
}

#[derive(Deserialize)]
struct Saved {
    generation: u64,
    state: State,
}

/// A state, in a ledger and in the head of a recording.
#[derive(Deserialize)]
pub struct State {
    boot_id: String,
    domains: Vec<DomainRecord>,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct DomainRecord {
    domain: Domain,
    last: Option<LastReading>,
    totals: [u64; 4],
    gaps: u64,
    gap_time: u64,
    model: IdleModel,
}

#[derive(Deserialize)]
struct Domain {
    id: String,
    source: String,
    zone: Zone,
    scope: Scope,
    path: String,
    billed: bool,
    quality: Quality,
    continuous: bool,
    at_rest: Option<u64>,
    max_power: u64,
    accuracy_ppm: Option<u32>,
    refresh: Option<u64>,
    gpu: Option<GpuInfo>,
}

#[derive(Clone, Copy, Deserialize)]
enum Zone {
    Package,
    Core,
    Uncore,
    Dram,
    Psys,
    Platform,
    Gpu,
    Other,
}

impl Zone {
    const fn as_str(self) -> &'static str {
        ZONES[self as usize]
    }
}

#[derive(Deserialize)]
enum Scope {
    Package(u16),
    Machine,
    Gpu(PciAddress),
}

#[derive(Clone, Copy, Deserialize)]
struct PciAddress {
    domain: u32,
    bus: u8,
    devfn: u8,
}

/// Which kind of platform meter a domain was, and whether the host of a VM measured it: known by the name of its source
/// alone.
pub fn platform(zone: &str, source: &str) -> (Option<&'static str>, bool) {
    let kind = match (zone, source, source.split_once(':').map(|(kind, _)| kind)) {
        (_, "vsock", _) => return (None, true),
        ("psys", ..) => "psys",
        ("platform", "redfish", _) | ("platform", _, Some("redfish")) => "redfish",
        ("platform", "hwmon", _) => "hwmon",
        ("platform", "ipmi", _) => "ipmi",
        ("platform", _, Some("ipmi")) => "ipmi-lan",
        _ => return (None, false),
    };
    (Some(kind), false)
}

#[derive(Deserialize)]
enum Quality {
    Measured,
    Derived,
    Estimated,
}

impl Quality {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Derived => "derived",
            Self::Estimated => "estimated",
        }
    }
}

#[derive(Deserialize)]
struct GpuInfo {
    index: u32,
    uuid: String,
    name: String,
    vendor: String,
}

#[derive(Deserialize)]
struct LastReading {
    at: u64,
    suspended: u64,
    reading: Reading,
}

#[derive(Deserialize)]
enum Reading {
    Counter { total: u64, wraps_at: Option<u64> },
    Gauge { power: u64 },
    Total { total: u64, since: u64 },
    Standby,
}

#[derive(Deserialize)]
struct IdleModel {
    prior_ratio: f64,
    known: Option<(u64, IdleFrom)>,
    bins: Vec<Sums>,
    lowest: Option<f64>,
}

#[derive(Deserialize)]
enum IdleFrom {
    Configured,
    Model,
    Learned,
    Prior,
}

#[derive(Deserialize)]
struct Sums {
    n: f64,
    u: f64,
    p: f64,
    uu: f64,
    up: f64,
    pp: f64,
}

#[derive(Clone, Copy, Deserialize)]
enum Kind {
    Process,
    Unit,
    UserUnit,
    Slice,
    Session,
    User,
    Container,
    Pod,
    Vm,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        KINDS[self as usize]
    }
}

#[derive(Deserialize)]
enum Entry {
    Series(Kind, Vec<String>, Series),
    Dropped(Kind, Vec<String>),
    Kind(Kind, Energy, Energy),
}

#[derive(Deserialize)]
struct Series {
    energy: Energy,
    used: Used,
    since: u64,
}

#[derive(Deserialize)]
struct Energy {
    dynamic: [u64; 8],
    idle: [u64; 8],
}

#[derive(Deserialize)]
struct Used {
    on_cpu: u64,
    cycles: u64,
    instructions: u64,
    cache_misses: u64,
}

/// Takes the whole from the first frame.
pub(super) fn whole(rest: &mut &[u8]) -> Option<String> {
    let Saved { generation, state } = take(rest)?;
    let mut whole = state.json();
    whole["generation"] = json!(generation);
    Some(whole.to_string())
}

/// Takes what a tick changed from the next frame.
pub(super) fn change(rest: &mut &[u8]) -> Option<String> {
    let (domains, entries): (Vec<DomainRecord>, Vec<Entry>) = take(rest)?;
    Some(changes(&domains, &entries).to_string())
}

/// Takes a frame; `None`, and `rest` as it is, where that is cut short or damaged.
pub fn take<T: DeserializeOwned>(rest: &mut &[u8]) -> Option<T> {
    let (length, tail) = rest.split_at_checked(4)?;
    let (crc, tail) = tail.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    if length > FRAME_LIMIT {
        return None;
    }
    let (payload, tail) = tail.split_at_checked(length as usize)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(crc.try_into().ok()?) {
        return None;
    }
    let value = postcard::from_bytes(payload).ok()?;
    *rest = tail;
    Some(value)
}

impl State {
    /// In the present format.
    pub fn json(&self) -> Value {
        let mut whole = changes(&self.domains, &self.entries);
        whole["boot_id"] = json!(self.boot_id);
        whole
    }
}

fn changes(domains: &[DomainRecord], entries: &[Entry]) -> Value {
    let domains: Vec<Value> = domains.iter().map(DomainRecord::json).collect();
    let entries: Vec<Value> = entries.iter().map(Entry::json).collect();
    json!({ "domains": domains, "entries": entries })
}

impl DomainRecord {
    fn json(&self) -> Value {
        let Self { domain, last, totals: [total, idle, active, unattributed], gaps, gap_time, model } = self;
        let (kind, by_host) = platform(domain.zone.as_str(), &domain.source);
        let PciAddress { domain: segment, bus, devfn } = match domain.scope {
            Scope::Gpu(address) => address,
            Scope::Package(_) | Scope::Machine => PciAddress { domain: 0, bus: 0, devfn: 0 },
        };
        json!({
            "id": domain.id,
            "source": domain.source,
            "zone": domain.zone.as_str(),
            "scope": match domain.scope {
                Scope::Package(package) => json!({ "package": package }),
                Scope::Machine => json!("machine"),
                Scope::Gpu(_) => json!({ "gpu": format!("{segment:04x}:{bus:02x}:{:02x}.{}", devfn >> 3, devfn & 7) }),
            },
            "path": domain.path,
            "billed": domain.billed,
            "quality": domain.quality.as_str(),
            "continuous": domain.continuous,
            "at_rest_uw": domain.at_rest,
            "max_power_uw": domain.max_power,
            "accuracy_ppm": domain.accuracy_ppm,
            "refresh_ns": domain.refresh,
            "gpu": domain.gpu.as_ref().map(|GpuInfo { index, uuid, name, vendor }| {
                json!({ "index": index, "uuid": uuid, "name": name, "vendor": vendor })
            }),
            "platform": kind,
            "by_host": by_host,
            "total_uj": total,
            "idle_uj": idle,
            "active_uj": active,
            "unattributed_uj": unattributed,
            "gaps": gaps,
            "gap_ns": gap_time,
            "last": last.as_ref().map(LastReading::json),
            "model": model.json(),
        })
    }
}

impl LastReading {
    fn json(&self) -> Value {
        let reading = match self.reading {
            Reading::Counter { total, wraps_at } => {
                json!({ "counter": { "total_uj": total, "wraps_at_uj": wraps_at } })
            }
            Reading::Gauge { power } => json!({ "gauge": { "power_uw": power } }),
            Reading::Total { total, since } => json!({ "total": { "total_uj": total, "since": since } }),
            Reading::Standby => json!("standby"),
        };
        json!({ "at_ns": self.at, "suspended_ns": self.suspended, "reading": reading })
    }
}

impl IdleModel {
    fn json(&self) -> Value {
        let from = |from: &IdleFrom| match from {
            IdleFrom::Configured => "configured",
            IdleFrom::Model => "model",
            IdleFrom::Learned => "learned",
            IdleFrom::Prior => "prior",
        };
        let seen = self.bins.iter().enumerate().map(|(range, Sums { n, u, p, uu, up, pp })| {
            json!({
                "range": range,
                "n": float(*n),
                "u": float(*u),
                "p": float(*p),
                "uu": float(*uu),
                "up": float(*up),
                "pp": float(*pp),
            })
        });
        json!({
            "prior_ratio": float(self.prior_ratio),
            "known": self.known.as_ref().map(|(power, word)| json!({ "power_uw": power, "from": from(word) })),
            "lowest_watts": self.lowest.map(float),
            "ranges": self.bins.len(),
            "seen": seen.collect::<Vec<_>>(),
        })
    }
}

/// JSON has no word for what is not finite.
fn float(value: f64) -> Value {
    match value {
        f64::INFINITY => json!("inf"),
        f64::NEG_INFINITY => json!("-inf"),
        value if value.is_nan() => json!(format!("nan:{:016x}", value.to_bits())),
        value => json!(value),
    }
}

impl Entry {
    fn json(&self) -> Value {
        match self {
            Self::Series(kind, values, Series { energy, used, since }) => json!({ "series": {
                "kind": kind.as_str(),
                "labels": labels(*kind, values),
                "dynamic_uj": zones(&energy.dynamic),
                "idle_uj": zones(&energy.idle),
                "on_cpu_ns": used.on_cpu,
                "cycles": used.cycles,
                "instructions": used.instructions,
                "cache_misses": used.cache_misses,
                "since_ns": since,
            } }),
            Self::Dropped(kind, values) => {
                json!({ "dropped": { "kind": kind.as_str(), "labels": labels(*kind, values) } })
            }
            Self::Kind(kind, rest, ended) => {
                json!({ "kind": { "kind": kind.as_str(), "rest": rest.json(), "ended": ended.json() } })
            }
        }
    }
}

impl Energy {
    fn json(&self) -> Value {
        json!({ "dynamic_uj": zones(&self.dynamic), "idle_uj": zones(&self.idle) })
    }
}

fn zones(energies: &[u64; 8]) -> Map<String, Value> {
    ZONES.iter().zip(energies).map(|(zone, energy)| ((*zone).to_owned(), json!(energy))).collect()
}

/// Labels by name. Of more values than there are labels, those without a name have a number for one: they make the
/// series one that is not known.
fn labels(kind: Kind, values: &[String]) -> Map<String, Value> {
    let names = label_names(kind);
    let name = |at: usize| names.get(at).map_or_else(|| format!("label-{}", at + 1), |name| (*name).to_owned());
    values.iter().enumerate().map(|(at, value)| (name(at), json!(value))).collect()
}
