//! Decides what is sent to a receiver next, and what its answer changes. Pure but for the log: it is handed the time,
//! and what it wants sent is sent by its caller.
//!
//! Gauges are sent as they are now, counters in the order of the queue: a sample is never sent after a later one of its
//! series. A frame that the receiver does not want as a whole is sent in halves, so that one series that it does not
//! want does not cost the others; nothing that was refused is sent again.

use super::queue::Queue;
use super::totals::{DROPPED, REFUSED, Totals, WRITTEN};
use super::verdict::Verdict;
use super::wire::Frame;
use crate::model::source::Health;
use crate::model::units::Nanos;
use crate::sys::backoff::Backoff;
use crate::sys::date_time::rfc3339;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// First and longest pause after a failure, in milliseconds.
const PAUSES: (i64, i64) = (1_000, 300_000);
/// First and longest pause between two looks at a receiver that wants nothing, in milliseconds.
const CLOSED_PAUSES: (i64, i64) = (10_000, 600_000);
/// Requests of one frame without one that is taken, after which its rest is refused.
const PATIENCE: u32 = 16;
/// The same while frames as a whole are refused; every [`PATIENCE`]th has all patience.
const LITTLE_PATIENCE: u32 = 2;
/// How long a series that was refused alone is not sent, in milliseconds; and most of them.
const LEFT_OUT: (i64, usize) = (3_600_000, 1_000);
/// A frame that is older than this, in milliseconds, is sent at the rate of replays.
const LATE: i64 = 60_000;
/// Time after a refusal for which status shows it, in milliseconds.
const SHOWN: i64 = 3_600_000;

/// How requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Remote write 1.0.
    V1,
    /// Remote write 2.0.
    V2,
}

/// What the courier needs to know of its receiver.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The version to begin with.
    pub version: Version,
    /// Whether 1.0 is spoken where the receiver does not know 2.0.
    pub may_fall_back: bool,
    /// Milliseconds between two samples of a series.
    pub interval: i64,
    /// Samples of the queue that are sent in a second.
    pub rate: u32,
    /// Milliseconds after the time of a frame at which it is sent: the host's own, within the spread of a fleet.
    pub delay: i64,
    /// A number of this host, for pauses that differ within a fleet.
    pub seed: u64,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The samples; none: only whether the receiver takes anything again is asked.
    pub frame: Frame,
    /// How it is written.
    pub version: Version,
    /// In version 1.0: with what families are.
    pub with_metadata: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Send this, and hand its answer to [`Courier::done`].
    Send(Job),
    /// Wait until this time by the monotonic clock, in milliseconds, or for new samples.
    Wait(Option<i64>),
}

/// Monotonic and real time, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// By a clock that is never set.
    pub monotonic: i64,
    /// Since 1970.
    pub real: i64,
}

/// A frame that is being sent.
#[derive(Debug)]
struct Current {
    frame: Frame,
    /// It is the first of the queue; else it is of gauges.
    is_queued: bool,
    /// Its parts that are not sent yet, the next one last.
    parts: Vec<(usize, usize)>,
    /// Requests in a row that were refused.
    refused: u32,
    /// A part of it was taken.
    taken: bool,
    /// Samples that are not sent as their series was refused.
    left_out: u64,
}

/// Why nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// It is tried again.
    Later(String),
    /// The receiver wants nothing.
    Closed(String),
}

/// The courier of one receiver.
#[derive(Debug)]
pub struct Courier {
    terms: Terms,
    queue: Queue,
    /// Gauges as they are now.
    gauges: VecDeque<Frame>,
    current: Option<Current>,
    version: Version,
    /// The next request is not before this, by the monotonic clock.
    not_before: i64,
    backoff: Backoff<i64>,
    closed_backoff: Backoff<i64>,
    attempts: u64,
    trouble: Option<Trouble>,
    /// Frames in a row that were refused as a whole.
    hopeless: u32,
    /// Hashes of series that were refused, and until when they are not sent, real time.
    left_out: HashMap<u64, i64>,
    /// The last refusal of samples, and when it was, real time.
    refusal: Option<(String, i64)>,
    /// In version 1.0: when families were said last, by the monotonic clock.
    metadata_at: Option<i64>,
    /// The last gauges have arrived.
    pub gauges_arrived: bool,
    /// What became of samples.
    pub totals: Totals,
}

/// In version 1.0, what families are is said again after this, in milliseconds.
const METADATA_AGAIN: i64 = 600_000;

impl Courier {
    /// A courier whose queue may have frames of earlier. `totals`: as they were before a reload.
    pub fn new(terms: Terms, queue: Queue, totals: Totals) -> Self {
        let mut courier = Self {
            version: terms.version,
            terms,
            queue,
            gauges: VecDeque::new(),
            current: None,
            not_before: 0,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            closed_backoff: Backoff::new(CLOSED_PAUSES.0, CLOSED_PAUSES.1),
            attempts: 0,
            trouble: None,
            hopeless: 0,
            left_out: HashMap::new(),
            refusal: None,
            metadata_at: None,
            gauges_arrived: false,
            totals,
        };
        courier.count_waiting(0);
        courier
    }

    /// Whether counters of a time are wanted: while they cannot be sent, only those of each minute are.
    pub fn wants(&self, at: i64) -> bool {
        self.trouble.is_none() || at % 60_000 == 0
    }

    /// New counters, and the gauges of the same time.
    pub fn take(&mut self, counters: Vec<Frame>, gauges: Vec<Frame>, now: Now) {
        if !counters.is_empty() {
            self.queue.push(counters, now.real);
        }
        if self.current.as_ref().is_some_and(|current| !current.is_queued) && self.trouble.is_some() {
            self.current = None;
        }
        self.gauges = gauges.into();
        self.gauges_arrived = false;
        self.count_waiting(now.real);
    }

    /// The password was changed: the receiver is asked at once.
    pub fn try_again(&mut self) {
        if matches!(self.trouble, Some(Trouble::Closed(_))) {
            self.not_before = 0;
        }
    }

    /// Whether the receiver wants nothing: another password may help.
    pub fn is_closed(&self) -> bool {
        matches!(self.trouble, Some(Trouble::Closed(_)))
    }

    /// What is to be done now.
    pub fn next(&mut self, now: Now) -> Next {
        if now.monotonic < self.not_before {
            return Next::Wait(Some(self.not_before));
        }
        if self.is_closed() {
            return Next::Send(self.job(Frame::new(now.real, []), now));
        }
        if self.current.is_none() {
            let wait = self.choose(now);
            if self.current.is_none() {
                return Next::Wait(wait);
            }
        }
        let Some(current) = &self.current else { return Next::Wait(None) };
        let (from, to) = current.parts.last().copied().unwrap_or_default();
        let is_whole = (from, to) == (0, current.frame.samples());
        let frame = if is_whole { current.frame.clone() } else { current.frame.part(from, to) };
        Next::Send(self.job(frame, now))
    }

    fn job(&self, frame: Frame, now: Now) -> Job {
        let with_metadata = self.metadata_at.is_none_or(|at| now.monotonic - at >= METADATA_AGAIN);
        Job { frame, version: self.version, with_metadata }
    }

    /// Chooses the next frame. Returns when there may be one.
    fn choose(&mut self, now: Now) -> Option<i64> {
        let not_yet = |at: i64| {
            let wait = at + self.terms.delay - now.real;
            // A clock that was set back is no reason to wait.
            (0 < wait && wait <= self.terms.delay).then_some(now.monotonic + wait)
        };
        let (mut frame, is_queued) = match self.gauges.pop_front() {
            Some(gauges) if not_yet(gauges.at).is_none() => (gauges, false),
            later => {
                let wait = later.as_ref().and_then(|gauges| not_yet(gauges.at));
                if let Some(gauges) = later {
                    self.gauges.push_front(gauges);
                }
                match self.queue.first(now.real) {
                    Some(first) if not_yet(first.at).is_none() => (first.clone(), true),
                    Some(first) => return not_yet(first.at),
                    None => return wait,
                }
            }
        };
        self.left_out.retain(|_, until| *until > now.real);
        let mut left_out = 0;
        if !self.left_out.is_empty() {
            left_out = frame.retain(|labels| !self.left_out.contains_key(&hash(labels))) as u64;
        }
        let parts = if frame.samples() == 0 { Vec::new() } else { vec![(0, frame.samples())] };
        self.current = Some(Current { frame, is_queued, parts, refused: 0, taken: false, left_out });
        if self.current.as_ref().is_some_and(|current| current.parts.is_empty()) {
            self.finish(now);
        }
        None
    }

    /// The answer to what [`Courier::next`] wanted sent, with its status; `none`: there was none.
    pub fn answered(&mut self, status: String, verdict: Verdict, now: Now) {
        *self.totals.requests.entry(status).or_default() += 1;
        self.done(verdict, now);
    }

    /// What an answer changes.
    pub fn done(&mut self, verdict: Verdict, now: Now) {
        self.attempts += 1;
        match verdict {
            Verdict::OtherVersion if self.version == Version::V2 && self.terms.may_fall_back => {
                tracing::info!("push {}: speaks remote write 1.0", self.totals.receiver);
                self.version = Version::V1;
            }
            Verdict::OtherVersion => {
                let why = "does not know this version of remote write: choose another protocol".to_owned();
                self.closed(why, now);
            }
            Verdict::Later { after, why } => {
                let pause = self.backoff.pause();
                // Hosts of a fleet do not come back at the same moment.
                let pause = pause / 2 + (mix(self.terms.seed, self.attempts) % (pause / 2).max(1) as u64) as i64;
                let asked = after.map_or(0, |after: Duration| after.as_millis() as i64);
                self.not_before = now.monotonic + pause.max(asked);
                self.trouble = Some(Trouble::Later(why));
            }
            Verdict::Closed(why) => self.closed(why, now),
            _ if self.current.is_none() => self.answers(now),
            Verdict::Taken { written } => self.taken(written, now),
            Verdict::Partly { written, why } => {
                self.refusal = Some((why, now.real));
                self.taken(Some(written), now);
            }
            Verdict::TooLarge(why) => self.refused(why, false, now),
            Verdict::Samples(why) => self.refused(why, true, now),
        }
        self.count_waiting(now.real);
    }

    /// The receiver answers, and takes something.
    fn answers(&mut self, now: Now) {
        self.trouble = None;
        self.backoff.reset();
        self.closed_backoff.reset();
        self.not_before = now.monotonic;
    }

    fn closed(&mut self, why: String, now: Now) {
        self.trouble = Some(Trouble::Closed(why));
        self.not_before = now.monotonic + self.closed_backoff.pause();
        // What was refused is not sent again. What waits is, when the receiver takes something again.
        if let Some(current) = &mut self.current {
            let rest: usize = current.parts.drain(..).map(|(from, to)| to - from).sum();
            self.count(REFUSED, rest as u64);
            self.finish(now);
        }
    }

    fn taken(&mut self, written: Option<u64>, now: Now) {
        self.answers(now);
        self.hopeless = 0;
        self.totals.last_taken = Some(now.real);
        if self.version == Version::V1 && self.job(Frame::new(0, []), now).with_metadata {
            self.metadata_at = Some(now.monotonic);
        }
        let Some(current) = &mut self.current else { return };
        (current.taken, current.refused) = (true, 0);
        let (from, to) = current.parts.pop().unwrap_or_default();
        let (all, is_done) = ((to - from) as u64, current.parts.is_empty());
        let written = written.unwrap_or(all).min(all);
        self.count(WRITTEN, written);
        self.count(REFUSED, all - written);
        self.pace(all, now);
        if is_done {
            self.finish(now);
        }
    }

    /// Pauses after samples of an outage were sent, whether or not they were taken.
    fn pace(&mut self, samples: u64, now: Now) {
        let is_late = |current: &Current| current.is_queued && now.real - current.frame.at > LATE + self.terms.delay;
        if self.current.as_ref().is_some_and(is_late) {
            // Live samples are twice as fast at least, or a replay would never end.
            let least = 2_000 * samples / self.terms.interval.max(1) as u64;
            let rate = u64::from(self.terms.rate).max(least).max(1);
            self.not_before = now.monotonic + (samples * 1_000 / rate) as i64;
        }
    }

    /// A part was refused: its halves are tried, or it is given up.
    fn refused(&mut self, why: String, for_samples: bool, now: Now) {
        let has_patience = self.hopeless == 0 || self.hopeless.is_multiple_of(PATIENCE);
        let patience = if has_patience { PATIENCE } else { LITTLE_PATIENCE };
        self.answers(now);
        self.refusal = Some((why, now.real));
        let Some(current) = &mut self.current else { return };
        let (from, to) = current.parts.pop().unwrap_or_default();
        if for_samples {
            current.refused += 1;
        }
        let mut lost = 0;
        if to - from > 1 {
            let half = from + (to - from) / 2;
            current.parts.extend([(half, to), (from, half)]);
        } else {
            lost += to - from;
            // An old sample may be refused for its time.
            if for_samples && now.real - current.frame.at <= LATE + self.terms.delay && self.left_out.len() < LEFT_OUT.1
            {
                self.left_out.insert(hash(&current.frame.labels(from)), now.real + LEFT_OUT.0);
            }
        }
        if current.refused >= patience {
            lost += current.parts.drain(..).map(|(from, to)| to - from).sum::<usize>();
        }
        let (is_done, is_hopeless) = (current.parts.is_empty(), current.parts.is_empty() && !current.taken);
        self.hopeless = if is_hopeless { self.hopeless + 1 } else { self.hopeless };
        self.count(REFUSED, lost as u64);
        self.pace((to - from) as u64, now);
        if is_done {
            self.finish(now);
        }
    }

    /// The current frame is done with.
    fn finish(&mut self, now: Now) {
        let Some(current) = self.current.take() else { return };
        self.count(REFUSED, current.left_out);
        if current.is_queued {
            self.queue.pop(current.frame.at, now.real);
        } else if current.taken && self.gauges.is_empty() {
            self.gauges_arrived = true;
        }
    }

    fn count(&mut self, result: &'static str, samples: u64) {
        *self.totals.samples.entry(result).or_default() += samples;
    }

    fn count_waiting(&mut self, now: i64) {
        let dropped = self.queue.take_dropped();
        self.count(DROPPED, dropped);
        self.totals.waiting = self.queue.waiting();
        self.totals.log_bytes = self.queue.bytes();
        self.totals.oldest = self.queue.first(now).map(|frame| frame.at);
    }

    /// How the sending goes.
    pub fn health(&self, now: Now) -> Health {
        let waiting = || {
            let since = self.totals.oldest.map(|oldest| rfc3339(Nanos(oldest.unsigned_abs() * 1_000_000)));
            since.map_or_else(|| "nothing waits".to_owned(), |since| format!("samples since {since} wait"))
        };
        match &self.trouble {
            Some(Trouble::Closed(why)) => {
                return Health::Failed(format!("the receiver refuses everything: {why}; {}", waiting()));
            }
            Some(Trouble::Later(why)) => {
                return Health::Degraded(format!("nothing can be sent now: {why}; {}", waiting()));
            }
            None => {}
        }
        if let Some(why) = self.queue.trouble() {
            return Health::Degraded(format!("no log is kept, so an outage of the receiver leaves gaps: {why}"));
        }
        let late = 2 * self.terms.interval + LATE + self.terms.delay;
        if self.totals.oldest.is_some_and(|oldest| now.real - oldest > late) {
            return Health::Degraded("samples of an outage are being sent".to_owned());
        }
        match &self.refusal {
            Some((why, at)) if now.real - at < SHOWN => {
                Health::Degraded(format!("the receiver refused samples in the last hour: {why}"))
            }
            _ => Health::Healthy,
        }
    }
}

/// A number of a series.
fn hash(labels: &[(&str, &str)]) -> u64 {
    rustc_hash::FxBuildHasher.hash_one(labels)
}

/// A number that looks like chance.
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut hasher = rustc_hash::FxBuildHasher.build_hasher();
    hasher.write_u64(seed);
    hasher.write_u64(number);
    let hash = hasher.finish();
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (hash >> 32)
}
