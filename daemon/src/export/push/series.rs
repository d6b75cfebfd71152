//! What is sent: series of a snapshot under the names and labels of the metrics page, and the markers of those that
//! ended. Pure.

use super::config::{Amount, Receiver};
use super::wire::Frame;
use crate::export::prometheus::{Dialects, Family, FamilySample, PrometheusOptions, families};
use crate::model::billing::Base;
use crate::model::domain::Zone;
use crate::model::snapshot::Snapshot;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most samples of one request: what Prometheus sends itself by default.
pub const REQUEST_MAX: usize = 2_000;
/// Most series of a receiver. The rest of a larger host is left out, and counted.
pub const SERIES_MAX: usize = 20_000;

/// Names and values of labels in the order of names, none of them empty; the metric's name is `__name__`.
pub type Labels = Vec<(String, String)>;

/// What a family is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Whether its values only rise.
    pub is_counter: bool,
    /// Its unit.
    pub unit: &'static str,
    /// One sentence on what it is.
    pub help: String,
}

/// A series with its value at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Its family.
    pub about: Arc<About>,
    /// When its counter began at zero, milliseconds since 1970; 0: not known, or it is no counter.
    pub since: i64,
    /// The value.
    pub value: f64,
}

/// The series of one time.
#[derive(Debug, Default)]
pub struct Batch {
    /// Counters: what must not be lost.
    pub counters: Vec<Series>,
    /// Everything else: worth something at its own time only.
    pub gauges: Vec<Series>,
    /// Series beyond [`SERIES_MAX`].
    pub too_many: usize,
}

/// What is chosen of a snapshot for a receiver.
#[derive(Clone, Debug)]
pub struct Choice {
    options: PrometheusOptions,
    amount: Amount,
    /// Labels that every series gets, beside `instance`.
    labels: BTreeMap<String, String>,
}

impl Choice {
    /// What `receiver` wants. `dialects`: the names of the metrics page.
    pub fn new(receiver: &Receiver, dialects: Dialects) -> Self {
        let mut labels = BTreeMap::from([("job".to_owned(), "jouled".to_owned())]);
        labels.extend(receiver.labels.clone());
        let options = PrometheusOptions { dialects, levels: receiver.levels.clone() };
        Self { options, amount: receiver.series, labels }
    }

    /// The series of a snapshot. `own`: families about the sending itself, which are always sent.
    pub fn batch(&self, snapshot: &Snapshot, own: Vec<Family>) -> Batch {
        let is_wanted = |name: &str, unit: &'static str| match self.amount {
            Amount::All => true,
            // The queries of docs/prometheus.md join with the last one.
            Amount::Energy => matches!(unit, "joules" | "watts") || name == "jouled_domain_info",
        };
        let base = Base::of(snapshot);
        let is_billed = |sample: &FamilySample| {
            let zone = sample.labels.iter().find(|(name, _)| name == "zone").map(|(_, value)| value.as_str());
            let zone = zone.and_then(|word| Zone::ALL.iter().find(|zone| zone.as_str() == word));
            self.amount == Amount::All || zone.is_none_or(|zone| base.contains(*zone))
        };
        let mut outer = self.labels.clone();
        outer.entry("instance".to_owned()).or_insert_with(|| snapshot.host.node_name.clone());
        let mut batch = Batch::default();
        let mut seen: HashMap<Arc<Labels>, ()> = HashMap::new();
        for family in families(snapshot, &self.options, &is_wanted).into_iter().chain(own) {
            let Family { name, unit, help, is_counter, samples } = family;
            let about = Arc::new(About { is_counter, unit, help });
            for sample in samples.into_iter().filter(is_billed) {
                let labels = Arc::new(labels(&name, sample.labels, &outer));
                let Entry::Vacant(free) = seen.entry(Arc::clone(&labels)) else { continue };
                free.insert(());
                let since = sample.since.map_or(0, |since| (since.0 / 1_000_000) as i64);
                let series = Series { labels, about: Arc::clone(&about), since, value: sample.value };
                match is_counter {
                    _ if batch.counters.len() + batch.gauges.len() >= SERIES_MAX => batch.too_many += 1,
                    true => batch.counters.push(series),
                    false => batch.gauges.push(series),
                }
            }
        }
        batch
    }
}

/// The labels of a series. As when Prometheus scrapes: a label of the metric that has the name of one of `outer` is
/// `exported_NAME`.
fn labels(name: &str, own: Vec<(String, String)>, outer: &BTreeMap<String, String>) -> Labels {
    let mut all: Labels = vec![("__name__".to_owned(), name.to_owned())];
    all.extend(outer.iter().map(|(name, value)| (name.clone(), value.clone())));
    for (name, value) in own {
        all.push(if outer.contains_key(&name) { (format!("exported_{name}"), value) } else { (name, value) });
    }
    all.retain(|(_, value)| !value.is_empty());
    all.sort();
    all.dedup_by(|one, other| one.0 == other.0);
    all
}

/// The series that a receiver knows, and which of them have ended.
#[derive(Debug, Default)]
pub struct Known {
    now: HashMap<Arc<Labels>, Arc<About>>,
    ended: HashMap<Arc<Labels>, Arc<About>>,
}

impl Known {
    /// The frames of series at one time: requests of at most [`REQUEST_MAX`] samples, with markers of the series that
    /// ended since the last markers that arrived ([`Known::arrived`]).
    pub fn frames(&mut self, at: i64, series: &[Series]) -> Vec<Frame> {
        let now: HashMap<_, _> = series.iter().map(|one| (Arc::clone(&one.labels), Arc::clone(&one.about))).collect();
        for (labels, about) in std::mem::take(&mut self.now) {
            if !now.contains_key(&labels) && self.ended.len() < SERIES_MAX {
                self.ended.insert(labels, about);
            }
        }
        self.ended.retain(|labels, _| !now.contains_key(labels));
        self.now = now;
        let ended = self.ended.iter().map(|(labels, about)| Series::ended(Arc::clone(labels), Arc::clone(about)));
        let all: Vec<Series> = series.iter().cloned().chain(ended).collect();
        all.chunks(REQUEST_MAX).map(|chunk| Frame::new(at, chunk)).collect()
    }

    /// The markers of the last frames are with the receiver, or on disk.
    pub fn arrived(&mut self) {
        self.ended.clear();
    }
}

/// Which snapshot is that of a time on the grid.
#[derive(Debug)]
pub struct Grid {
    /// Milliseconds.
    interval: i64,
    /// The last time on the grid that was passed; `None` before the first snapshot.
    passed: Option<i64>,
    last: Option<Arc<Snapshot>>,
}

/// A snapshot stands for a time on the grid up to this long after it, in milliseconds, or two ticks.
const OLDEST: i64 = 10_000;

impl Grid {
    /// `interval` in milliseconds.
    pub fn new(interval: i64) -> Self {
        Self { interval, passed: None, last: None }
    }

    /// A new snapshot. Returns the time on the grid that has passed with it, in milliseconds since 1970, and the
    /// snapshot of that time: the last one up to it, as a scrape would have shown. `None`: no time has passed, or the
    /// last snapshot is too old for it.
    pub fn observe(&mut self, new: &Arc<Snapshot>) -> Option<(i64, Arc<Snapshot>)> {
        let at_of = |snapshot: &Snapshot| (snapshot.at.realtime.0 / 1_000_000) as i64;
        let now = at_of(new);
        let time = now - now % self.interval;
        let last = self.last.replace(Arc::clone(new));
        let Some(passed) = self.passed else {
            self.passed = Some(time);
            return None;
        };
        // A clock that was set back by more goes on from where it is.
        if time <= passed && passed - time <= 2 * self.interval {
            return None;
        }
        self.passed = Some(time);
        if now == time {
            return Some((time, Arc::clone(new)));
        }
        let allowed = OLDEST.max((new.host.interval.0 / 500_000) as i64);
        last.filter(|last| (0..=allowed).contains(&(time - at_of(last)))).map(|last| (time, last))
    }
}
