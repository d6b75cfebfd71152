//! DRM clients over time: from what their counters say now to what each process used since the last look. Pure.

use super::fdinfo::{Client, Engine};
use crate::model::source::PciAddress;
use crate::model::units::Nanos;
use crate::model::usage::{GpuUse, ProcessKey};
use std::collections::BTreeMap;

/// A client that nobody has is remembered for so many looks: its file may be on its way from one process to another.
const FORGET_AFTER: u32 = 60;
/// Counters may fall for a moment and have to catch up (drm-usage-stats.rst); one that stays low for so many looks began anew.
const CATCHES_UP: u32 = 10;
/// No class of engines has more than this at work at once; what is more is no time.
const ENGINES_MAX: u64 = 64;

/// A client, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who.
    pub process: ProcessKey,
    /// What.
    pub client: Client,
    /// Whether it began after the last time that this process was looked at, where it was not seen before.
    pub new: bool,
    /// The time since then.
    pub age: Nanos,
}

/// All clients that were seen.
#[derive(Debug, Default)]
pub struct Clients {
    seen: BTreeMap<(PciAddress, u64), Seen>,
}

#[derive(Debug)]
struct Seen {
    process: ProcessKey,
    engines: BTreeMap<String, Engine>,
    low: u32,
    unseen: u32,
}

impl Clients {
    /// Takes in everything that is open now, `time` after the last look. A client that several have is of the one with the lowest process
    /// id: it is charged once.
    pub fn look(&mut self, held: Vec<Held>, time: Nanos) -> Vec<GpuUse> {
        let mut clients: BTreeMap<(PciAddress, u64), Held> = BTreeMap::new();
        for one in held {
            let key = (one.client.gpu, one.client.id);
            if clients.get(&key).is_none_or(|other| (one.process.pid, one.new) < (other.process.pid, other.new)) {
                clients.insert(key, one);
            }
        }
        self.seen.retain(|key, seen| {
            seen.unseen = if clients.contains_key(key) { 0 } else { seen.unseen + 1 };
            seen.unseen < FORGET_AFTER
        });
        let mut used: BTreeMap<(PciAddress, ProcessKey), Nanos> = BTreeMap::new();
        for (key, one) in clients {
            let busy = self.client(key, &one, time);
            if busy > Nanos::ZERO {
                *used.entry((key.0, one.process)).or_default() += busy;
            }
        }
        used.into_iter().map(|((gpu, process), busy)| GpuUse { gpu, process, busy }).collect()
    }

    fn client(&mut self, key: (PciAddress, u64), one: &Held, time: Nanos) -> Nanos {
        let fresh = Seen { process: one.process, engines: one.client.engines.clone(), low: 0, unseen: 0 };
        // All that it used is new, but of the time since the last look is only a part of it.
        let from_zero = || {
            let used = since(&BTreeMap::new(), &one.client.engines, one.age);
            let part = u128::from(used.0) * u128::from(time.0.min(one.age.0)) / u128::from(one.age.0.max(1));
            if one.new { Nanos(part as u64) } else { Nanos::ZERO }
        };
        let Some(seen) = self.seen.get_mut(&key) else {
            self.seen.insert(key, fresh);
            return from_zero();
        };
        if fell(&seen.engines, &one.client.engines) {
            let another = seen.process != one.process;
            seen.low += 1;
            if another || seen.low > CATCHES_UP {
                *seen = fresh;
            }
            // Another process' client that begins lower got the number of one that is gone.
            return if another { from_zero() } else { Nanos::ZERO };
        }
        let busy = since(&seen.engines, &one.client.engines, time);
        *seen = fresh;
        busy
    }
}

fn fell(before: &BTreeMap<String, Engine>, now: &BTreeMap<String, Engine>) -> bool {
    before.iter().any(|(name, before)| {
        let now = now.get(name).copied().unwrap_or_default();
        now.busy < before.busy || now.cycles.map(|(cycles, _)| cycles) < before.cycles.map(|(cycles, _)| cycles)
    })
}

/// Time for which engines worked between two readings that are `time` apart.
fn since(before: &BTreeMap<String, Engine>, now: &BTreeMap<String, Engine>, time: Nanos) -> Nanos {
    let most = time.0.saturating_mul(ENGINES_MAX);
    let of = |(name, now): (&String, &Engine)| {
        let before = before.get(name).copied().unwrap_or_default();
        let busy = match (now.busy, now.cycles, before.cycles) {
            (Some(busy), ..) => busy.saturating_sub(before.busy.unwrap_or(0)),
            // Before its first reading nobody knows which part of all cycles was its time.
            (None, Some((cycles, total)), Some((cycles_before, total_before))) if total > total_before => {
                let (part, whole) = (cycles.saturating_sub(cycles_before), total - total_before);
                u64::try_from(u128::from(time.0) * u128::from(part) / u128::from(whole)).unwrap_or(u64::MAX)
            }
            _ => 0,
        };
        if busy > most { Nanos::ZERO } else { Nanos(busy) }
    };
    now.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GPU: PciAddress = PciAddress { domain: 0, bus: 3, devfn: 0 };
    const SECOND: Nanos = Nanos::SECOND;

    fn held(pid: u32, id: u64, busy: u64, new: bool) -> Held {
        let engines = [("gfx".to_owned(), Engine { busy: Some(busy), cycles: None })].into();
        let client = Client { driver: "amdgpu".into(), gpu: GPU, id, engines };
        Held { process: ProcessKey { pid, start: u64::from(pid) * 10 }, client, new, age: SECOND }
    }

    fn cycles(pid: u32, cycles: u64, total: u64) -> Held {
        let mut held = held(pid, 1, 0, false);
        held.client.engines = [("rcs".to_owned(), Engine { busy: None, cycles: Some((cycles, total)) })].into();
        held
    }

    fn told(uses: &[GpuUse]) -> Vec<(u32, u64)> {
        uses.iter().map(|one| (one.process.pid, one.busy.0)).collect()
    }

    #[test]
    fn what_was_used_before_the_first_look_is_not_charged() {
        let mut clients = Clients::default();
        assert_eq!(told(&clients.look(vec![held(7, 1, 5000, false)], SECOND)), []);
        assert_eq!(
            told(&clients.look(vec![held(7, 1, 5300, false), held(8, 2, 400, true)], SECOND)),
            [(7, 300), (8, 400)]
        );
    }

    #[test]
    fn copies_of_a_file_are_charged_once_to_the_lowest_process() {
        let mut clients = Clients::default();
        clients.look(vec![held(9, 1, 100, false), held(7, 1, 100, false)], SECOND);
        let copies = vec![held(9, 1, 200, false), held(7, 1, 200, false), held(7, 1, 200, false)];
        assert_eq!(told(&clients.look(copies, SECOND)), [(7, 100)]);
        // It is handed on: what it used before is not new.
        assert_eq!(told(&clients.look(vec![held(9, 1, 250, true)], SECOND)), [(9, 50)]);
    }

    #[test]
    fn a_counter_that_falls_catches_up_or_began_anew() {
        let mut clients = Clients::default();
        clients.look(vec![held(7, 1, 1000, false)], SECOND);
        assert_eq!(told(&clients.look(vec![held(7, 1, 900, false)], SECOND)), []);
        assert_eq!(told(&clients.look(vec![held(7, 1, 1100, false)], SECOND)), [(7, 100)]);
        for _ in 0..=CATCHES_UP {
            assert_eq!(told(&clients.look(vec![held(7, 1, 100, false)], SECOND)), []);
        }
        assert_eq!(told(&clients.look(vec![held(7, 1, 130, false)], SECOND)), [(7, 30)]);
        // The driver was reloaded, and its numbers began again.
        assert_eq!(told(&clients.look(vec![held(8, 1, 40, true)], SECOND)), [(8, 40)]);
    }

    #[test]
    fn cycles_are_a_part_of_the_time() {
        let mut clients = Clients::default();
        clients.look(vec![cycles(7, 1000, 10_000)], SECOND);
        assert_eq!(told(&clients.look(vec![cycles(7, 1500, 12_000)], SECOND)), [(7, 250_000_000)]);
        assert_eq!(told(&clients.look(vec![cycles(7, 1500, 12_000)], SECOND)), []);
    }

    #[test]
    fn what_cannot_be_is_no_use() {
        let mut clients = Clients::default();
        clients.look(vec![held(7, 1, 0, false)], SECOND);
        assert_eq!(told(&clients.look(vec![held(7, 1, u64::MAX, false)], SECOND)), []);
    }

    proptest! {
        #[test]
        fn never_more_than_the_counters_rose(counts in proptest::collection::vec((1u32..4, 1u64..3, 0u64..1000), 0..50)) {
            let mut clients = Clients::default();
            let (mut highest, mut sum) = (BTreeMap::new(), 0);
            for (pid, id, busy) in counts {
                sum += clients.look(vec![held(pid, id, busy, false)], SECOND).iter().map(|one| one.busy.0).sum::<u64>();
                let all: &mut u64 = highest.entry(id).or_default();
                *all += busy;
            }
            prop_assert!(sum <= highest.values().sum::<u64>());
        }
    }
}
