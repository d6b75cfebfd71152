//! Between the core's types and the records of the format: the one place that knows both. A word that has no meaning
//! here is an `Err` that names it.

use super::fields::{Fields, Float, Maybe, Named, Rest, Text};
use super::learned::Learned;
use super::records::{Domain, Energy, Gpu, Known, Last, Model, Range, Reading, Scope, Series};
use crate::attribution::DomainRecord;
use crate::attribution::idle::{IdleModel, Sums};
use crate::attribution::interval::LastReading;
use crate::attribution::learned;
use crate::attribution::ledger;
use crate::model::domain::{self, GpuInfo, NodeEnergy, Quality, Zone};
use crate::model::entity::{Kind, Labels};
use crate::model::platform::PlatformKind;
use crate::model::snapshot::{self, IdleFrom};
use crate::model::source::PackageId;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::Used;
use serde_json::value::{RawValue, to_raw_value};

const QUALITIES: [Quality; 3] = [Quality::Measured, Quality::Derived, Quality::Estimated];
const FLOORS: [IdleFrom; 4] = [IdleFrom::Configured, IdleFrom::Model, IdleFrom::Learned, IdleFrom::Prior];

/// The zone of a name.
pub fn zone(name: &str) -> Result<Zone, String> {
    Zone::ALL.into_iter().find(|zone| zone.as_str() == name).ok_or_else(|| format!("zone {name:?}"))
}

/// The kind of a name.
pub fn kind(name: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| format!("kind {name:?}"))
}

/// Labels by their names; those that are not there are empty. A name that the kind does not have is an error: without
/// it two series might look like one.
pub fn labels(kind: Kind, named: &Named<'_, Text<'_>>) -> Result<Labels, String> {
    let names = kind.label_names();
    if let Some((unknown, _)) = named.0.iter().find(|(name, _)| !names.contains(&&**name)) {
        return Err(format!("label {unknown:?}"));
    }
    let value =
        |name: &&str| named.0.iter().find(|(known, _)| known == name).map(|(_, Text(value))| (**value).to_owned());
    let values: Vec<String> = names.iter().map(|name| value(name).unwrap_or_default()).collect();
    Labels::new(kind, values).map_err(|error| error.to_string())
}

/// Energy by zone, and what of it is of zones that are not known, or no number.
pub fn zones(fields: Fields<'_>, unknown: &mut Vec<String>) -> (snapshot::ByZone, Rest) {
    let (mut known, mut rest) = (snapshot::ByZone::default(), Rest::default());
    for (name, value) in fields.0 {
        match (zone(&name), serde_json::from_str(value.get())) {
            (Ok(zone), Ok(energy)) => known[zone.index()] = Microjoules(energy),
            (Ok(_), Err(_)) => {
                unknown.push(format!("energy of zone {name:?}"));
                rest.0.push((name.into_owned(), value.to_owned()));
            }
            (Err(what), _) => {
                unknown.push(what);
                rest.0.push((name.into_owned(), value.to_owned()));
            }
        }
    }
    (known, rest)
}

/// What is left of an energy.
#[derive(Debug, Default)]
pub struct EnergyRest {
    pub dynamic: Rest,
    pub idle: Rest,
    /// Fields beside these two.
    pub fields: Rest,
}

impl EnergyRest {
    pub fn is_empty(&self) -> bool {
        self.dynamic.is_empty() && self.idle.is_empty() && self.fields.is_empty()
    }
}

/// Energy, and what of it is not known. An `Err` where it is no such object.
pub fn energy(
    json: Option<&RawValue>,
    unknown: &mut Vec<String>,
) -> Result<(snapshot::Energy, EnergyRest), serde_json::Error> {
    let Some(json) = json else { return Ok(Default::default()) };
    let Energy { dynamic_uj, idle_uj } = serde_json::from_str(json.get())?;
    let fields = Fields::parse(json).map(|fields| fields.left_by::<Energy<'_>>()).unwrap_or_default();
    unknown.extend(fields.names());
    let ((dynamic, dynamic_rest), (idle, idle_rest)) = (zones(dynamic_uj, unknown), zones(idle_uj, unknown));
    Ok((snapshot::Energy { dynamic, idle }, EnergyRest { dynamic: dynamic_rest, idle: idle_rest, fields }))
}

/// A series, and what of its energy is not known; fields that are not known are not looked at.
pub fn series(series: Series<'_>, unknown: &mut Vec<String>) -> (ledger::Series, EnergyRest) {
    let Series { dynamic_uj, idle_uj, on_cpu_ns, cycles, instructions, cache_misses, since_ns, .. } = series;
    let ((dynamic, dynamic_rest), (idle, idle_rest)) = (zones(dynamic_uj, unknown), zones(idle_uj, unknown));
    let used = Used { on_cpu: Nanos(on_cpu_ns), cycles, instructions, cache_misses };
    let series = ledger::Series { energy: snapshot::Energy { dynamic, idle }, used, since: Nanos(since_ns) };
    (series, EnergyRest { dynamic: dynamic_rest, idle: idle_rest, fields: Rest::default() })
}

/// The idle model of a part of a domain; `None`: it is not understood.
pub fn model(json: &RawValue) -> Option<IdleModel> {
    serde_json::from_str(json.get()).ok().map(Model::into_model)
}

/// What was learned of the power, of a part of a domain; `None`: it is not understood.
pub fn learned(json: &RawValue) -> Option<learned::Learned> {
    serde_json::from_str::<Learned>(json.get()).ok()?.learned()
}

impl<'a> Domain<'a> {
    /// The record of a domain.
    pub fn of(record: &'a DomainRecord) -> Self {
        let domain::Domain {
            id,
            source,
            zone,
            scope,
            path,
            billed,
            quality,
            continuous,
            at_rest,
            max_power,
            accuracy_ppm,
            refresh,
            gpu,
            platform,
            by_host,
        } = &record.domain;
        let NodeEnergy { total, idle, active, unattributed } = record.totals;
        Self {
            id: id.as_str().into(),
            source: source.into(),
            zone: zone.as_str().into(),
            scope: match scope {
                domain::Scope::Package(package) => Scope::Package(package.0),
                domain::Scope::Machine => Scope::Machine,
                domain::Scope::Gpu(address) => Scope::Gpu(address.to_string()),
            },
            path: path.into(),
            billed: *billed,
            quality: quality.as_str().into(),
            continuous: *continuous,
            at_rest_uw: at_rest.map(|power| power.0),
            max_power_uw: Some(max_power.0),
            accuracy_ppm: *accuracy_ppm,
            refresh_ns: refresh.map(|time| time.0),
            gpu: gpu.as_ref().map(|GpuInfo { index, uuid, name, vendor }| Gpu {
                index: *index,
                uuid: uuid.clone(),
                name: name.clone(),
                vendor: vendor.clone(),
            }),
            platform: platform.as_ref().map(|kind| kind.as_str().into()),
            by_host: *by_host,
            total_uj: total.0,
            idle_uj: idle.0,
            active_uj: active.0,
            unattributed_uj: unattributed.0,
            gaps: record.gaps,
            gap_ns: record.gap_time.0,
            last: record.last.as_ref().map(|last| Maybe::Known(Last::of(last))),
            model: Some(Maybe::Known(Model::of(&record.model))),
            learned: record.learned.as_ref().map(|learned| Maybe::Known(Learned::of(learned))),
        }
    }

    /// The domain's record, and its idle model where that is not understood.
    pub fn into_record(self) -> Result<(DomainRecord, Rest), String> {
        let quality = QUALITIES.into_iter().find(|quality| quality.as_str() == self.quality);
        let domain = domain::Domain {
            zone: zone(&self.zone)?,
            scope: match self.scope {
                Scope::Package(package) => domain::Scope::Package(PackageId(package)),
                Scope::Machine => domain::Scope::Machine,
                Scope::Gpu(address) => domain::Scope::Gpu(address.parse()?),
            },
            billed: self.billed,
            quality: quality.ok_or_else(|| format!("quality {:?}", self.quality))?,
            continuous: self.continuous,
            at_rest: self.at_rest_uw.map(Microwatts),
            accuracy_ppm: self.accuracy_ppm,
            refresh: self.refresh_ns.map(Nanos),
            gpu: self.gpu.map(|Gpu { index, uuid, name, vendor }| GpuInfo { index, uuid, name, vendor }),
            platform: self.platform.map(|kind| PlatformKind::from(&*kind)),
            by_host: self.by_host,
            ..domain::Domain::measured(
                &*self.id,
                &self.source,
                Zone::Package,
                domain::Scope::Machine,
                self.path.into_owned(),
            )
        };
        let domain = domain::Domain { max_power: self.max_power_uw.map_or(domain.max_power, Microwatts), ..domain };
        let mut rest = Rest::default();
        let model = match self.model {
            Some(Maybe::Known(model)) => model.into_model(),
            Some(Maybe::Unknown(raw)) => {
                rest.0.push(("model".to_owned(), raw));
                IdleModel::new(0.0, None)
            }
            None => IdleModel::new(0.0, None),
        };
        let learned = match self.learned {
            Some(Maybe::Known(written)) => {
                let known = written.learned();
                // Of terms that this version does not have: carried as it is.
                if let (None, Ok(raw)) = (&known, to_raw_value(&written)) {
                    rest.0.push(("learned".to_owned(), raw));
                }
                known.map(Box::new)
            }
            Some(Maybe::Unknown(raw)) => {
                rest.0.push(("learned".to_owned(), raw));
                None
            }
            None => None,
        };
        let record = DomainRecord {
            domain,
            // Of a kind that is not known it is of no use: it is of the boot that another version ran in.
            last: match self.last {
                Some(Maybe::Known(last)) => Some(last.into_last()),
                Some(Maybe::Unknown(_)) | None => None,
            },
            totals: NodeEnergy {
                total: Microjoules(self.total_uj),
                idle: Microjoules(self.idle_uj),
                active: Microjoules(self.active_uj),
                unattributed: Microjoules(self.unattributed_uj),
            },
            gaps: self.gaps,
            gap_time: Nanos(self.gap_ns),
            model,
            learned,
        };
        Ok((record, rest))
    }
}

impl Last {
    fn of(last: &LastReading) -> Self {
        let reading = match last.reading {
            domain::Reading::Counter { total, wraps_at } => {
                Reading::Counter { total_uj: total.0, wraps_at_uj: wraps_at.map(|range| range.0) }
            }
            domain::Reading::Gauge { power } => Reading::Gauge { power_uw: power.0 },
            domain::Reading::Total { total, since } => Reading::Total { total_uj: total.0, since },
            domain::Reading::Standby => Reading::Standby,
        };
        Self { at_ns: last.at.0, suspended_ns: last.suspended.0, reading }
    }

    fn into_last(self) -> LastReading {
        let reading = match self.reading {
            Reading::Counter { total_uj, wraps_at_uj } => {
                domain::Reading::Counter { total: Microjoules(total_uj), wraps_at: wraps_at_uj.map(Microjoules) }
            }
            Reading::Gauge { power_uw } => domain::Reading::Gauge { power: Microwatts(power_uw) },
            Reading::Total { total_uj, since } => domain::Reading::Total { total: Microjoules(total_uj), since },
            Reading::Standby => domain::Reading::Standby,
        };
        LastReading { at: Nanos(self.at_ns), suspended: Nanos(self.suspended_ns), reading }
    }
}

impl Model {
    fn of(model: &IdleModel) -> Self {
        let IdleModel { prior_ratio, known, bins } = model;
        let saw = |Sums { n, u, p, uu, up, pp }: &Sums| [n, u, p, uu, up, pp].iter().any(|sum| sum.to_bits() != 0);
        let seen = bins.iter().enumerate().filter(|(_, sums)| saw(sums));
        Self {
            prior_ratio: Float(*prior_ratio),
            known: known.map(|(power, from)| Known { power_uw: power.0, from: from.as_str().to_owned() }),
            ranges: bins.len(),
            seen: seen
                .map(|(range, Sums { n, u, p, uu, up, pp })| Range {
                    range,
                    n: Float(*n),
                    u: Float(*u),
                    p: Float(*p),
                    uu: Float(*uu),
                    up: Float(*up),
                    pp: Float(*pp),
                })
                .collect(),
        }
    }

    fn into_model(self) -> IdleModel {
        // What is kept of another number of ranges is not used: `IdleModel::learn_from`.
        let mut bins = vec![Sums::default(); self.ranges.min(MOST_RANGES)];
        for Range { range, n, u, p, uu, up, pp } in self.seen {
            if let Some(bin) = bins.get_mut(range) {
                *bin = Sums { n: n.0, u: u.0, p: p.0, uu: uu.0, up: up.0, pp: pp.0 };
            }
        }
        let from = |known: &Known| FLOORS.into_iter().find(|from| from.as_str() == known.from);
        IdleModel {
            prior_ratio: self.prior_ratio.0,
            known: self.known.and_then(|known| Some((Microwatts(known.power_uw), from(&known)?))),
            bins,
        }
    }
}

/// More ranges of utilisation than this are damage.
const MOST_RANGES: usize = 4096;
