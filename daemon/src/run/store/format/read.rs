//! States and changes from JSON. What this version does not know (a zone, a kind, an entry, a label, a field) is kept
//! as it is written and is written again, so that a version that knows it finds it: `carried`.
//!
//! A file of this version holds its own records and, apart from them, what is carried. A record that is known in part
//! is in both: what is known goes on with the ledger, what is not is carried as a part of it. Parts and records add up:
//! a version that knows a part adds it to what the record has become, so that no energy is lost by a version in
//! between. What is carried never grows.

use super::convert::{self, EnergyRest};
use super::fields::{Fields, Rest};
use super::merge::Merge;
use super::records::{Domain, Dropped, Frame, Series, Totals};
use super::write::{Named, Part};
use crate::attribution::ledger::{self, Entry};
use crate::attribution::{DomainRecord, State};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Energy;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::{BTreeMap, BTreeSet};

/// What this version does not know of a file.
#[derive(Debug, Default)]
pub struct Carried {
    /// Records and parts of records.
    pub items: Vec<Box<RawValue>>,
    /// Fields of the whole.
    pub fields: BTreeMap<String, Box<RawValue>>,
    /// What it is, in words: `zone "name"`.
    pub names: BTreeSet<String>,
}

impl Carried {
    /// How many records and fields there are.
    pub fn len(&self) -> usize {
        self.items.len() + self.fields.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a whole and the changes after it.
pub struct Reader {
    /// Ticks since the very first start, as the whole says.
    pub generation: Option<u64>,
    /// Of which machine it is; empty where it does not say.
    pub machine: String,
    state: State,
    /// Of this file's own records what is not known, by what they are of: a later one takes the place of an earlier
    /// one.
    own: BTreeMap<String, Box<RawValue>>,
    /// What was carried already when the file was written.
    earlier: Vec<Box<RawValue>>,
    fields: BTreeMap<String, Box<RawValue>>,
    names: BTreeSet<String>,
}

impl Reader {
    /// Begins with a whole; `None`: it is none.
    pub fn begin(json: &str) -> Option<Self> {
        let frame: Frame<'_> = serde_json::from_str(json).ok()?;
        let mut reader = Self {
            generation: frame.generation,
            machine: frame.machine.clone(),
            state: State { boot_id: frame.boot_id.clone(), ..State::default() },
            own: BTreeMap::new(),
            earlier: frame.carried.iter().map(|item| (*item).to_owned()).collect(),
            fields: BTreeMap::new(),
            names: BTreeSet::new(),
        };
        reader.frame(json, &frame)?;
        Some(reader)
    }

    /// Takes in what a tick changed; `None`: it is no such thing.
    pub fn change(&mut self, json: &str) -> Option<()> {
        let frame: Frame<'_> = serde_json::from_str(json).ok()?;
        self.frame(json, &frame)
    }

    /// The state, and what is carried beside it.
    pub fn end(mut self) -> (State, Carried) {
        let mut items: Vec<_> = std::mem::take(&mut self.own).into_values().collect();
        if !self.earlier.is_empty() {
            let mut merge = Merge::new(&self.state);
            for item in std::mem::take(&mut self.earlier) {
                items.extend(self.fold(item, &mut merge));
            }
            merge.into_state(&mut self.state);
        }
        (self.state, Carried { items, fields: self.fields, names: self.names })
    }

    fn frame(&mut self, json: &str, frame: &Frame<'_>) -> Option<()> {
        let all: Fields<'_> = serde_json::from_str(json).ok()?;
        let left = all.left_by::<Frame<'_>>();
        self.names.extend(left.names());
        self.fields.extend(left.0);
        for json in &frame.domains {
            self.domain(json);
        }
        for json in &frame.entries {
            self.entry(json);
        }
        if let Some(json) = frame.footprint {
            match serde_json::from_str(json.get()) {
                Ok(totals) => self.state.footprint.merge(totals),
                // Of a later version: kept as it is.
                Err(error) => {
                    self.names.insert(format!("carbon and cost ({error})"));
                    self.fields.insert("footprint_unread".into(), json.to_owned());
                }
            }
        }
        Some(())
    }

    fn domain(&mut self, json: &RawValue) {
        match domain(json) {
            Ok((record, rest)) => {
                let id = record.domain.id.to_string();
                match self.state.domains.iter_mut().find(|kept| *kept.domain.id == *id) {
                    Some(kept) => {
                        // Changes do not have it.
                        let learned = record.learned.or(kept.learned.take());
                        *kept = DomainRecord { learned, ..record };
                    }
                    None => self.state.domains.push(record),
                }
                // A change has no fields that only the whole has.
                self.keep_fields(format!("domain {id}"), Part::Domain { id: &id, fields: &rest }, &rest);
            }
            Err((id, what)) => {
                self.names.insert(what);
                self.own.insert(format!("domain {id}"), tagged("domain", json));
            }
        }
    }

    fn entry(&mut self, json: &RawValue) {
        match entry(json) {
            Read::Series(labels, series, rest) => {
                let key = key(&labels);
                if rest.is_empty() {
                    self.own.remove(&key);
                } else {
                    self.keep(key, &rest.part(&labels), &rest.names);
                }
                self.state.entries.push(Entry::Series { labels, series });
            }
            Read::Dropped(labels) => {
                // The part of it that is not known is in the part of the kind's totals that is not known.
                self.own.remove(&key(&labels));
                self.state.entries.push(Entry::Dropped { labels });
            }
            Read::Totals(kind, rest, ended, left) => {
                let key = format!("kind {}", kind.as_str());
                if left.is_empty() {
                    self.own.remove(&key);
                } else {
                    self.keep(key, &left.part(kind), &left.names);
                }
                self.state.entries.push(Entry::Kind { kind, rest, ended });
            }
            Read::Unknown { key, what } => {
                self.names.insert(what);
                self.own.insert(key, json.to_owned());
            }
            Read::UnknownDropped { key } => {
                self.own.remove(&key);
            }
        }
    }

    fn keep(&mut self, key: String, part: &Part<'_>, names: &[String]) {
        self.names.extend(names.iter().cloned());
        if let Ok(json) = to_raw_value(part) {
            self.own.insert(key, json);
        }
    }

    fn keep_fields(&mut self, key: String, part: Part<'_>, rest: &Rest) {
        if !rest.is_empty() {
            self.keep(key, &part, &rest.names().collect::<Vec<_>>());
        }
    }

    /// Adds what is known of a carried item to the state, and gives back what is not.
    fn fold(&mut self, item: Box<RawValue>, merge: &mut Merge) -> Option<Box<RawValue>> {
        match Fields::tagged(&item) {
            Some((tag, json)) => match &*tag {
                "domain" => match domain(json) {
                    Ok((record, rest)) => {
                        let id = record.domain.id.to_string();
                        merge.domain(record, &mut self.state);
                        self.names.extend(rest.names());
                        let part = Part::Domain { id: &id, fields: &rest };
                        return if rest.is_empty() { None } else { to_raw_value(&part).ok() };
                    }
                    Err((_, what)) => self.names.extend([what]),
                },
                "series" | "series_part" => match read_series(json) {
                    Ok(Read::Series(labels, series, rest)) => {
                        merge.series(&labels, &series, &*tag == "series");
                        let part = rest.part(&labels);
                        self.names.extend(rest.names.iter().cloned());
                        return if rest.is_empty() { None } else { to_raw_value(&part).ok() };
                    }
                    Ok(_) => {}
                    Err((_, what)) => self.names.extend([what]),
                },
                "kind" | "kind_part" => match read_totals(json) {
                    Ok(Read::Totals(kind, rest, ended, left)) => {
                        merge.totals(kind, &rest, &ended);
                        let part = left.part(kind);
                        self.names.extend(left.names.iter().cloned());
                        return if left.is_empty() { None } else { to_raw_value(&part).ok() };
                    }
                    Ok(_) => {}
                    Err((_, what)) => self.names.extend([what]),
                },
                "domain_part" => return self.fold_domain(&item, json),
                tag => self.names.extend([format!("entry {tag:?}")]),
            },
            None => self.names.extend(["an entry".to_owned()]),
        }
        Some(item)
    }
}

impl Reader {
    /// The part of a domain that was not known: of what is known now, an idle model and what was learned of the power
    /// are taken where none was learned meanwhile.
    fn fold_domain(&mut self, item: &RawValue, json: &RawValue) -> Option<Box<RawValue>> {
        let mut rest = Fields::parse(json).map(|fields| fields.left_by::<Id>()).unwrap_or_default();
        let Ok(Id { id }) = serde_json::from_str(json.get()) else {
            self.names.insert("an entry".to_owned());
            return Some(item.to_owned());
        };
        let model = rest.0.iter().position(|(name, _)| name == "model");
        if let Some((at, model)) = model.and_then(|at| Some((at, convert::model(&rest.0.get(at)?.1)?))) {
            rest.0.remove(at);
            if let Some(kept) = self.state.domains.iter_mut().find(|kept| *kept.domain.id == *id)
                && kept.model.is_empty()
            {
                kept.model = model;
            }
        }
        let learned = rest.0.iter().position(|(name, _)| name == "learned");
        if let Some((at, learned)) = learned.and_then(|at| Some((at, convert::learned(&rest.0.get(at)?.1)?))) {
            rest.0.remove(at);
            if let Some(kept) = self.state.domains.iter_mut().find(|kept| *kept.domain.id == *id)
                && kept.learned.is_none()
            {
                kept.learned = Some(Box::new(learned));
            }
        }
        self.names.extend(rest.names());
        if rest.is_empty() { None } else { to_raw_value(&Part::Domain { id: &id, fields: &rest }).ok() }
    }
}

/// What tells one domain from another.
#[derive(Deserialize)]
struct Id {
    id: String,
}

/// What was read of an entry.
enum Read {
    Series(Labels, ledger::Series, SeriesRest),
    Dropped(Labels),
    Totals(Kind, Energy, Energy, TotalsRest),
    /// It is carried as a whole, in the place of an earlier one of the same key.
    Unknown {
        key: String,
        what: String,
    },
    /// The end of a series that is carried as a whole.
    UnknownDropped {
        key: String,
    },
}

/// What is left of a series.
struct SeriesRest {
    energy: EnergyRest,
    fields: Rest,
    names: Vec<String>,
}

impl SeriesRest {
    fn is_empty(&self) -> bool {
        self.energy.is_empty() && self.fields.is_empty()
    }

    fn part<'a>(&'a self, labels: &'a Labels) -> Part<'a> {
        Part::Series {
            kind: labels.kind().as_str(),
            labels: Named(labels),
            dynamic_uj: &self.energy.dynamic,
            idle_uj: &self.energy.idle,
            fields: &self.fields,
        }
    }
}

/// What is left of a kind's totals.
struct TotalsRest {
    rest: EnergyRest,
    ended: EnergyRest,
    fields: Rest,
    names: Vec<String>,
}

impl TotalsRest {
    fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.ended.is_empty() && self.fields.is_empty()
    }

    fn part(&self, kind: Kind) -> Part<'_> {
        Part::Kind { kind: kind.as_str(), rest: (&self.rest).into(), ended: (&self.ended).into(), fields: &self.fields }
    }
}

/// A domain with what of it is not known; else its id, where it has one, and why not.
fn domain(json: &RawValue) -> Result<(DomainRecord, Rest), (String, String)> {
    let id = || serde_json::from_str::<Id>(json.get()).map_or_else(|_| json.get().to_owned(), |Id { id }| id);
    let named = |id: &str, what: &str| format!("{what} of domain {id:?}");
    let read: Domain<'_> =
        serde_json::from_str(json.get()).map_err(|error| (id(), named(&id(), &error.to_string())))?;
    let (record, mut rest) = read.into_record().map_err(|what| (id(), what))?;
    if let Some(fields) = Fields::parse(json) {
        rest.0.extend(fields.left_by::<Domain<'_>>().0);
    }
    Ok((record, rest))
}

fn entry(json: &RawValue) -> Read {
    let unknown = |what: String| Read::Unknown { key: format!("entry {}", json.get()), what };
    let Some((tag, inner)) = Fields::tagged(json) else { return unknown("an entry".to_owned()) };
    let read = match &*tag {
        "series" => read_series(inner),
        "dropped" => read_dropped(inner),
        "kind" => read_totals(inner),
        tag => return unknown(format!("entry {tag:?}")),
    };
    read.unwrap_or_else(|(key, what)| Read::Unknown {
        key: key.unwrap_or_else(|| format!("entry {}", json.get())),
        what,
    })
}

/// The key of what cannot be understood, where it has one, and why not.
type Refused = (Option<String>, String);

fn shape(error: serde_json::Error) -> Refused {
    (None, format!("an entry ({error})"))
}

fn read_series(json: &RawValue) -> Result<Read, Refused> {
    let series: Series<'_> = serde_json::from_str(json.get()).map_err(shape)?;
    let labels = known(&series.kind, &series.labels)
        .map_err(|what| (Some(key_of("series", &series.kind, &series.labels)), what));
    let labels = labels?;
    let mut names = Vec::new();
    let fields = Fields::parse(json).map(|fields| fields.left_by::<Series<'_>>()).unwrap_or_default();
    names.extend(fields.names());
    let (series, energy) = convert::series(series, &mut names);
    Ok(Read::Series(labels, series, SeriesRest { energy, fields, names }))
}

fn read_dropped(json: &RawValue) -> Result<Read, Refused> {
    let dropped: Dropped<'_> = serde_json::from_str(json.get()).map_err(shape)?;
    Ok(match known(&dropped.kind, &dropped.labels) {
        Ok(labels) => Read::Dropped(labels),
        Err(_) => Read::UnknownDropped { key: key_of("series", &dropped.kind, &dropped.labels) },
    })
}

fn read_totals(json: &RawValue) -> Result<Read, Refused> {
    let totals: Totals<'_> = serde_json::from_str(json.get()).map_err(shape)?;
    let kind = convert::kind(&totals.kind).map_err(|what| (Some(format!("kind {}", totals.kind)), what))?;
    let mut names = Vec::new();
    let fields = Fields::parse(json).map(|fields| fields.left_by::<Totals<'_>>()).unwrap_or_default();
    names.extend(fields.names());
    let (rest, rest_left) = convert::energy(totals.rest, &mut names).map_err(shape)?;
    let (ended, ended_left) = convert::energy(totals.ended, &mut names).map_err(shape)?;
    Ok(Read::Totals(kind, rest, ended, TotalsRest { rest: rest_left, ended: ended_left, fields, names }))
}

fn known(kind: &str, labels: &super::fields::Named<'_, super::fields::Text<'_>>) -> Result<Labels, String> {
    convert::labels(convert::kind(kind)?, labels)
}

/// What tells a series that is known in part.
fn key(labels: &Labels) -> String {
    format!("series {} {:?}", labels.kind().as_str(), labels.identity().collect::<Vec<_>>())
}

/// What tells a series that is not known.
fn key_of(of: &str, kind: &str, labels: &super::fields::Named<'_, super::fields::Text<'_>>) -> String {
    let labels: BTreeMap<_, _> = labels.0.iter().map(|(name, value)| (&**name, &*value.0)).collect();
    format!("{of} {kind} {labels:?}")
}

/// An item under its tag, as it is.
fn tagged(tag: &str, json: &RawValue) -> Box<RawValue> {
    to_raw_value(&BTreeMap::from([(tag, json)])).unwrap_or_else(|_| json.to_owned())
}
