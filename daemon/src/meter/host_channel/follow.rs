//! Objects over time: whether an epoch continues the one before, and whether the host is silent. Pure: the caller
//! passes the time.

use super::object::Object;
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::power_model::stand_in::Installed;
use std::sync::Arc;

/// Tolerance for delays of one second: an epoch this much later than one period does not count as a pause of this
/// machine, nor one this much later than three periods as silence.
const SLACK: Nanos = Nanos::SECOND;
/// Longest wait for the first answer. After it the channel counts as silent.
pub(super) const PATIENCE: Nanos = Nanos(5 * Nanos::SECOND.0);

/// The state of the channel. Written by the reader's thread, read in the tick.
#[derive(Debug)]
pub struct Channel {
    /// CLOCK_MONOTONIC.
    opened: Nanos,
    latest: Option<Latest>,
    /// Why there is no connection; empty while there is one, and before the first attempt.
    pub error: String,
    /// What the host learned of its own power: this VM's part. Empty where it shares nothing.
    pub models: Arc<[Installed]>,
}

/// The last epoch that the host sent.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The object.
    pub object: Object,
    /// End of the epoch, CLOCK_MONOTONIC.
    pub at: Nanos,
    /// Identifies the beginning of its totals: changes with source and generation, and when this machine was paused.
    pub since: u64,
    /// Serial number of the epoch, from 0. An object that repeats the epoch keeps the number.
    pub number: u64,
    /// Whether it arrived at the end of its epoch. The first line of a connection may arrive later.
    pub fresh: bool,
    /// When the last line arrived, CLOCK_MONOTONIC.
    last_arrival: Nanos,
    /// When this epoch first arrived, CLOCK_MONOTONIC.
    arrived: Nanos,
    /// Number of pauses of this machine in this generation.
    pauses: u64,
}

/// The condition of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing has arrived yet, within [`PATIENCE`].
    Waiting,
    /// Epochs arrive.
    Good,
    /// They do not arrive, for this reason.
    Silent(String),
}

impl Channel {
    /// A channel that was opened at this time, CLOCK_MONOTONIC.
    pub fn new(opened: Nanos) -> Self {
        Self { opened, latest: None, error: String::new(), models: Arc::default() }
    }

    /// The last epoch.
    pub fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }

    /// Takes an object that arrived at `now`. The first object of a connection (`first`) may belong to an epoch that
    /// ended earlier.
    pub fn take(&mut self, object: Object, now: Stamp, first: bool) {
        self.error.clear();
        let arrived = now.monotonic;
        let Some(last) = &mut self.latest else {
            self.latest = Some(Latest::begin(object, now, !first, 0, 0));
            return;
        };
        let (number, pauses) = (last.number + 1, last.pauses + 1);
        if (&object.source, object.generation) != (&last.object.source, last.object.generation) {
            *last = Latest::begin(object, now, !first, number, 0);
        } else if object.epoch < last.object.epoch || last.was_paused(&object, arrived) {
            *last = Latest::begin(object, now, !first, number, pauses);
        } else if object.epoch == last.object.epoch {
            last.last_arrival = arrived;
        } else {
            let since = last.since;
            let pauses = last.pauses;
            *last =
                Latest { object, at: arrived, since, number, fresh: !first, last_arrival: arrived, arrived, pauses };
        }
    }

    /// The condition at `now`, CLOCK_MONOTONIC.
    pub fn condition(&self, now: Nanos) -> Condition {
        let because = |what: &str| if self.error.is_empty() { what.to_owned() } else { self.error.clone() };
        match &self.latest {
            None if now - self.opened <= PATIENCE => Condition::Waiting,
            None => Condition::Silent(format!("no word from the host: {}", because("it is silent"))),
            Some(last) => {
                let most = Nanos(3 * last.object.period.0);
                if now - last.last_arrival <= most + SLACK {
                    return Condition::Good;
                }
                let seconds = most.seconds();
                Condition::Silent(format!(
                    "no word from the host for {seconds} s: {}",
                    because("it is silent, but connected")
                ))
            }
        }
    }
}

impl Latest {
    fn begin(object: Object, now: Stamp, fresh: bool, number: u64, pauses: u64) -> Self {
        // Age of the epoch: this machine's CLOCK_REALTIME less the host's. Used only if it is plausible, from 0 to one
        // period.
        let age =
            now.realtime.0.checked_sub(object.at.0).filter(|age| *age <= object.period.0).map_or(Nanos::ZERO, Nanos);
        let arrived = now.monotonic;
        Self {
            at: arrived - age,
            since: beginning(&object, pauses),
            number,
            fresh,
            last_arrival: arrived,
            arrived,
            pauses,
            object,
        }
    }

    /// Whether this machine was paused: since the last epoch it ran much longer by the host's clock than by its own; or
    /// its running time fell.
    fn was_paused(&self, next: &Object, arrived: Nanos) -> bool {
        let most = (arrived - self.arrived) + next.period + SLACK;
        next.running < self.object.running || next.running - self.object.running > most
    }
}

/// A number made from source, generation and number of pauses. After a restart of jouled the pauses count from 0 again,
/// so totals of a generation with pauses do not continue.
fn beginning(object: &Object, pauses: u64) -> u64 {
    let halves = object.source.split_at_checked(16).unwrap_or_default();
    let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap_or_default();
    // Rotations and an odd factor keep equal parts from cancelling each other in the XOR.
    number(halves.0)
        ^ number(halves.1).rotate_left(21)
        ^ object.generation.rotate_left(42)
        ^ pauses.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::super::object::tests::example;
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    fn object(epoch: u64, running_s: u64) -> Object {
        let object = Object::parse(example().to_string().as_bytes()).unwrap();
        Object { epoch, running: Nanos(running_s * S), ..object }
    }

    fn at(seconds: u64) -> Stamp {
        Stamp { monotonic: Nanos(seconds * S), ..Stamp::default() }
    }

    fn begun() -> (Channel, u64) {
        let mut channel = Channel::new(Nanos(100 * S));
        channel.take(object(5, 50), at(101), true);
        let since = channel.latest().unwrap().since;
        (channel, since)
    }

    #[test]
    fn epochs_continue_each_other() {
        let (mut channel, since) = begun();
        for step in 1..5 {
            channel.take(object(5 + step, 50 + 10 * step), at(101 + 10 * step), false);
        }
        let latest = channel.latest().unwrap();
        assert_eq!((latest.since, latest.number, latest.at, latest.fresh), (since, 4, Nanos(141 * S), true));
        // Repeated on a new connection: nothing new.
        channel.take(object(9, 90), at(145), true);
        let latest = channel.latest().unwrap();
        assert_eq!((latest.since, latest.number, latest.at), (since, 4, Nanos(141 * S)));
        assert_eq!(channel.condition(Nanos(176 * S)), Condition::Good);
        // Two epochs from a queue arrive at once.
        channel.take(object(10, 100), at(165), false);
        channel.take(object(11, 110), at(165), false);
        assert_eq!(channel.latest().unwrap().since, since);
    }

    #[test]
    fn an_epoch_that_does_not_continue_the_last_has_another_beginning() {
        type Change = (&'static str, fn(&mut Object));
        let changes: [Change; 5] = [
            ("source", |object| object.source = "ab".repeat(16)),
            ("generation", |object| object.generation += 1),
            ("epoch back", |object| object.epoch = 4),
            ("running back", |object| object.running = Nanos(49 * S)),
            ("stood still", |object| object.running = Nanos(72 * S)),
        ];
        for (what, change) in changes {
            let (mut channel, since) = begun();
            let mut next = object(6, 60);
            change(&mut next);
            channel.take(next, at(111), false);
            assert_ne!(channel.latest().unwrap().since, since, "{what}");
        }
        let (mut channel, since) = begun();
        channel.take(object(6, 70), at(111), false);
        assert_eq!(channel.latest().unwrap().since, since, "a delay within a period is no pause");
        // Back on the first host: its generation says whether its totals continued.
        let mut away = object(7, 1);
        away.source = "ab".repeat(16);
        channel.take(away, at(121), false);
        channel.take(object(8, 90), at(131), false);
        assert_eq!(channel.latest().unwrap().since, since);
    }

    #[test]
    fn the_first_object_is_as_old_as_both_clocks_say() {
        let taken = |realtime: u64| {
            let mut channel = Channel::new(Nanos(0));
            let now = Stamp { monotonic: Nanos(101 * S), realtime: Nanos(realtime), ..Stamp::default() };
            channel.take(object(5, 50), now, true);
            channel.latest().unwrap().at
        };
        let end = object(5, 50).at.0;
        assert_eq!(taken(end + 4 * S), Nanos(97 * S));
        assert_eq!(taken(end + 400 * S), Nanos(101 * S), "clocks that differ are not used");
        assert_eq!(taken(end - S), Nanos(101 * S));
    }

    #[test]
    fn silence_is_noticed_after_three_periods() {
        let mut channel = Channel::new(Nanos(100 * S));
        assert_eq!(channel.condition(Nanos(105 * S)), Condition::Waiting);
        channel.error = "connection refused".to_owned();
        assert_eq!(
            channel.condition(Nanos(106 * S)),
            Condition::Silent("no word from the host: connection refused".to_owned())
        );
        channel.take(object(5, 50), at(110), true);
        assert_eq!(channel.condition(Nanos(141 * S)), Condition::Good);
        let Condition::Silent(why) = channel.condition(Nanos(142 * S)) else { panic!() };
        assert_eq!(why, "no word from the host for 30 s: it is silent, but connected");
    }

    proptest! {
        #[test]
        fn any_objects_at_any_times(steps in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()), 1..20)) {
            let mut channel = Channel::new(Nanos(0));
            let mut number = 0;
            for (epoch, running, realtime, monotonic, first) in steps {
                let mut next = object(epoch, 0);
                next.running = Nanos(running);
                let stamp = Stamp { monotonic: Nanos(monotonic), realtime: Nanos(realtime), boottime: Nanos(monotonic) };
                channel.take(next, stamp, first);
                let latest = channel.latest().unwrap();
                prop_assert!(latest.at <= Nanos(monotonic).max(latest.at) && latest.number >= number);
                number = latest.number;
                let _ = channel.condition(Nanos(realtime));
            }
        }
    }
}
