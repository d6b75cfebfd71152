//! Sending, in virtual time: a courier with its log on disk, and a receiver that is as strict as Prometheus.

mod courier;
mod log;
mod outage;
mod series;

use super::courier::{Courier, Job, Next, Now, Terms, Version};
use super::link::body;
use super::queue::Queue;
use super::series::{About, Series};
use super::totals::Totals;
use super::verdict::Verdict;
use super::wire::{Frame, STALE, v1, v2};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// 2026-11-28T00:00:00Z, milliseconds since 1970: a whole minute.
const START: i64 = 1_795_824_000_000;
const MINUTE: i64 = 60_000;

fn terms() -> Terms {
    Terms { version: Version::V2, may_fall_back: true, interval: MINUTE, rate: 500, delay: 0, seed: 7 }
}

fn courier(folder: &Path, terms: Terms) -> Courier {
    let queue = Queue::open(folder.to_owned(), 64_000_000, 7 * 24 * 60 * MINUTE, START);
    Courier::new(terms, queue, Totals { receiver: "central".into(), ..Totals::default() })
}

fn at(after: i64) -> Now {
    Now { monotonic: after, real: START + after }
}

fn one(name: &str, number: usize, value: f64, is_counter: bool) -> Series {
    let labels = [("__name__", name.to_owned()), ("unit", format!("{number}.service"))];
    let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let about = Arc::new(About { is_counter, unit: "joules", help: "Energy".into() });
    Series { labels: Arc::new(labels), about, since: if is_counter { START - 1_000 } else { 0 }, value }
}

/// A frame of `count` counters at one time.
fn counters(after: i64, count: usize) -> Frame {
    let series: Vec<_> = (0..count).map(|number| one("jouled_joules_total", number, after as f64, true)).collect();
    Frame::new(START + after, &series)
}

/// A receiver that keeps what it is sent, as strictly as Prometheus: one sample that is not in order, and nothing of
/// the request is kept.
#[derive(Default)]
struct Receiver {
    /// Samples by series and time.
    samples: BTreeMap<String, BTreeMap<i64, f64>>,
    starts: BTreeMap<String, BTreeSet<i64>>,
    knows_2: bool,
    /// It keeps what it can of a request, and says how much.
    is_partial: bool,
    /// Series with this text are refused.
    refuses: Option<String>,
    requests: u64,
    /// Samples of a request at most.
    largest: usize,
}

impl Receiver {
    fn take(&mut self, job: &Job) -> Verdict {
        self.requests += 1;
        let packed = body(job).unwrap();
        let plain = snap::raw::Decoder::new().decompress_vec(&packed).unwrap();
        let is_2 = job.version == Version::V2;
        if is_2 && !self.knows_2 {
            // What Prometheus 2.42 reads of it.
            assert_eq!(v1::WriteRequest::decode(&*plain).unwrap(), v1::WriteRequest::default());
            return Verdict::OtherVersion;
        }
        let found: Vec<(String, i64, f64, i64)> = if is_2 {
            let frame = Frame::decode(job.frame.at, &plain).unwrap();
            let of = |(number, series): (usize, &v2::TimeSeries)| {
                let sample = series.samples[0];
                (format!("{:?}", frame.labels(number)), sample.timestamp, sample.value, sample.start_timestamp)
            };
            frame.request.timeseries.iter().enumerate().map(of).collect()
        } else {
            let request = v1::WriteRequest::decode(&*plain).unwrap();
            let of = |series: &v1::TimeSeries| {
                let labels: Vec<_> = series.labels.iter().map(|label| (&*label.name, &*label.value)).collect();
                assert!(labels.is_sorted() && labels.iter().all(|(_, value)| !value.is_empty()), "{labels:?}");
                (format!("{labels:?}"), series.samples[0].timestamp, series.samples[0].value, 0)
            };
            request.timeseries.iter().map(of).collect()
        };
        self.largest = self.largest.max(found.len());
        let is_fine = |(series, at, value, _): &&(String, i64, f64, i64)| {
            let known = self.samples.get(series).and_then(|samples| samples.last_key_value());
            let in_order =
                known.is_none_or(|(last, known)| at > last || at == last && known.to_bits() == value.to_bits());
            in_order && self.refuses.as_ref().is_none_or(|text| !series.contains(text.as_str()))
        };
        let fine: Vec<_> = found.iter().filter(is_fine).cloned().collect();
        let (kept, all) = (fine.len() as u64, found.len() as u64);
        let why = "status 400: out of order sample".to_owned();
        if kept < all && !self.is_partial {
            return Verdict::Samples(why);
        }
        for (series, at, value, start) in fine {
            self.starts.entry(series.clone()).or_default().insert(start);
            self.samples.entry(series).or_default().insert(at, value);
        }
        match kept < all {
            true => Verdict::Partly { written: kept, why },
            false => Verdict::Taken { written: is_2.then_some(all) },
        }
    }

    fn count(&self) -> usize {
        self.samples.values().map(BTreeMap::len).sum()
    }
}

/// Lets the courier send all that it wants to, at one time. Returns when it wants to go on.
fn deliver(courier: &mut Courier, receiver: &mut Receiver, now: Now) -> Option<i64> {
    deliver_to(courier, &mut |job| receiver.take(job), now)
}

fn deliver_to(courier: &mut Courier, take: &mut dyn FnMut(&Job) -> Verdict, now: Now) -> Option<i64> {
    for _ in 0..10_000 {
        match courier.next(now) {
            Next::Send(job) => {
                let verdict = take(&job);
                courier.answered("204".into(), verdict, now);
            }
            Next::Wait(until) => return until,
        }
    }
    panic!("it sends for ever");
}

/// The same where nothing answers.
fn fail(courier: &mut Courier, now: Now) -> Option<i64> {
    match courier.next(now) {
        Next::Send(_) => {
            courier.answered("none".into(), Verdict::Later { after: None, why: "no TCP connection".into() }, now);
            fail(courier, now)
        }
        Next::Wait(until) => until,
    }
}
