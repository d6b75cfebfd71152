//! DRM clients between two samples: the increase of their engine counters becomes busy time per process. Pure; `drm`
//! finds the clients, `fdinfo` parses them.

use super::fdinfo::{Client, Engine};
use crate::model::source::PciAddress;
use crate::model::units::Nanos;
use crate::model::usage::{GpuUse, ProcessKey};
use std::collections::BTreeMap;

/// Samples for which a client without an open file is remembered: the file may be on its way to another process
/// (SCM_RIGHTS).
const FORGET_AFTER: u32 = 60;
/// Samples for which a counter may stay below its last value. It may fall for a moment and catch up
/// (drm-usage-stats.rst); after this many samples it was reset.
const RESET_AFTER: u32 = 10;
/// No class of engines has more engines than this. Larger increases are corrupt counters, not engine time.
const ENGINES_MAX: u64 = 64;

/// A DRM client, and the process that has it open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenClient {
    /// The process.
    pub process: ProcessKey,
    /// The client and its counters.
    pub client: Client,
    /// Whether the client was opened since the process was last scanned, if it was not seen before.
    pub new: bool,
    /// Time since that scan.
    pub age: Nanos,
}

/// All clients of the last samples, by GPU and client id.
#[derive(Debug, Default)]
pub struct Clients {
    tracked: BTreeMap<(PciAddress, u64), TrackedClient>,
}

#[derive(Debug)]
struct TrackedClient {
    process: ProcessKey,
    /// Highest counters so far; after a reset the current ones.
    engines: BTreeMap<String, Engine>,
    /// Samples in a row in which a counter was below its highest value.
    low_samples: u32,
    /// Samples in a row in which no process had the client open.
    missed_samples: u32,
}

impl Clients {
    /// Takes a sample of every open client, `time` after the last one. Returns the busy time of each process on each
    /// GPU. A client that several processes have open is charged once, to the lowest process id.
    pub fn update(&mut self, open_clients: Vec<OpenClient>, time: Nanos) -> Vec<GpuUse> {
        let mut clients: BTreeMap<(PciAddress, u64), OpenClient> = BTreeMap::new();
        for open in open_clients {
            let key = (open.client.gpu, open.client.id);
            if clients.get(&key).is_none_or(|other| (open.process.pid, open.new) < (other.process.pid, other.new)) {
                clients.insert(key, open);
            }
        }
        self.tracked.retain(|key, tracked| {
            tracked.missed_samples = if clients.contains_key(key) { 0 } else { tracked.missed_samples + 1 };
            tracked.missed_samples < FORGET_AFTER
        });
        let mut used: BTreeMap<(PciAddress, ProcessKey), Nanos> = BTreeMap::new();
        for (key, open) in clients {
            let busy = self.busy_time(key, &open, time);
            if busy > Nanos::ZERO {
                *used.entry((key.0, open.process)).or_default() += busy;
            }
        }
        used.into_iter().map(|((gpu, process), busy)| GpuUse { gpu, process, busy }).collect()
    }

    fn busy_time(&mut self, key: (PciAddress, u64), open: &OpenClient, time: Nanos) -> Nanos {
        let current = TrackedClient {
            process: open.process,
            engines: open.client.engines.clone(),
            low_samples: 0,
            missed_samples: 0,
        };
        // All use of a new client is new, but only the part of its age that is in this interval belongs to it.
        let all_since_start = || {
            let used = busy_between(&BTreeMap::new(), &open.client.engines, open.age);
            let part = u128::from(used.0) * u128::from(time.0.min(open.age.0)) / u128::from(open.age.0.max(1));
            if open.new { Nanos(part as u64) } else { Nanos::ZERO }
        };
        let Some(tracked) = self.tracked.get_mut(&key) else {
            self.tracked.insert(key, current);
            return all_since_start();
        };
        if any_counter_fell(&tracked.engines, &open.client.engines) {
            let reused = tracked.process != open.process;
            tracked.low_samples += 1;
            if reused || tracked.low_samples > RESET_AFTER {
                *tracked = current;
            }
            // The DRM client id was reused.
            return if reused { all_since_start() } else { Nanos::ZERO };
        }
        let busy = busy_between(&tracked.engines, &open.client.engines, time);
        *tracked = current;
        busy
    }
}

fn any_counter_fell(before: &BTreeMap<String, Engine>, now: &BTreeMap<String, Engine>) -> bool {
    before.iter().any(|(name, before)| {
        let now = now.get(name).copied().unwrap_or_default();
        now.busy < before.busy || now.cycles.map(|(cycles, _)| cycles) < before.cycles.map(|(cycles, _)| cycles)
    })
}

/// Busy time of all engines between two readings that are `time` apart.
fn busy_between(before: &BTreeMap<String, Engine>, now: &BTreeMap<String, Engine>, time: Nanos) -> Nanos {
    let limit = time.0.saturating_mul(ENGINES_MAX);
    let engine_busy = |(name, now): (&String, &Engine)| {
        let before = before.get(name).copied().unwrap_or_default();
        let busy = match (now.busy, now.cycles, before.cycles) {
            (Some(busy), ..) => busy.saturating_sub(before.busy.unwrap_or(0)),
            // Cycles are a share of the total cycles of the same time, which takes two readings.
            (None, Some((cycles, total)), Some((cycles_before, total_before))) if total > total_before => {
                let (part, whole) = (cycles.saturating_sub(cycles_before), total - total_before);
                u64::try_from(u128::from(time.0) * u128::from(part) / u128::from(whole)).unwrap_or(u64::MAX)
            }
            _ => 0,
        };
        if busy > limit { Nanos::ZERO } else { Nanos(busy) }
    };
    now.iter().map(engine_busy).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GPU: PciAddress = PciAddress { domain: 0, bus: 3, devfn: 0 };
    const SECOND: Nanos = Nanos::SECOND;

    fn open_client(pid: u32, id: u64, busy: u64, new: bool) -> OpenClient {
        let engines = [("gfx".to_owned(), Engine { busy: Some(busy), cycles: None })].into();
        let client = Client { driver: "amdgpu".into(), gpu: GPU, id, engines };
        OpenClient { process: ProcessKey { pid, start: u64::from(pid) * 10 }, client, new, age: SECOND }
    }

    fn cycles(pid: u32, cycles: u64, total: u64) -> OpenClient {
        let mut open = open_client(pid, 1, 0, false);
        open.client.engines = [("rcs".to_owned(), Engine { busy: None, cycles: Some((cycles, total)) })].into();
        open
    }

    fn charged(uses: &[GpuUse]) -> Vec<(u32, u64)> {
        uses.iter().map(|used| (used.process.pid, used.busy.0)).collect()
    }

    #[test]
    fn use_before_the_first_sample_is_not_charged() {
        let mut clients = Clients::default();
        assert_eq!(charged(&clients.update(vec![open_client(7, 1, 5000, false)], SECOND)), []);
        assert_eq!(
            charged(&clients.update(vec![open_client(7, 1, 5300, false), open_client(8, 2, 400, true)], SECOND)),
            [(7, 300), (8, 400)]
        );
    }

    #[test]
    fn copies_of_a_file_are_charged_once_to_the_lowest_process() {
        let mut clients = Clients::default();
        clients.update(vec![open_client(9, 1, 100, false), open_client(7, 1, 100, false)], SECOND);
        let copies = vec![open_client(9, 1, 200, false), open_client(7, 1, 200, false), open_client(7, 1, 200, false)];
        assert_eq!(charged(&clients.update(copies, SECOND)), [(7, 100)]);
        // The file is passed on: use before that is not new.
        assert_eq!(charged(&clients.update(vec![open_client(9, 1, 250, true)], SECOND)), [(9, 50)]);
    }

    #[test]
    fn a_counter_that_falls_catches_up_or_was_reset() {
        let mut clients = Clients::default();
        clients.update(vec![open_client(7, 1, 1000, false)], SECOND);
        assert_eq!(charged(&clients.update(vec![open_client(7, 1, 900, false)], SECOND)), []);
        assert_eq!(charged(&clients.update(vec![open_client(7, 1, 1100, false)], SECOND)), [(7, 100)]);
        for _ in 0..=RESET_AFTER {
            assert_eq!(charged(&clients.update(vec![open_client(7, 1, 100, false)], SECOND)), []);
        }
        assert_eq!(charged(&clients.update(vec![open_client(7, 1, 130, false)], SECOND)), [(7, 30)]);
        // The driver was reloaded, and client ids start again.
        assert_eq!(charged(&clients.update(vec![open_client(8, 1, 40, true)], SECOND)), [(8, 40)]);
    }

    #[test]
    fn cycles_are_a_share_of_the_time() {
        let mut clients = Clients::default();
        clients.update(vec![cycles(7, 1000, 10_000)], SECOND);
        assert_eq!(charged(&clients.update(vec![cycles(7, 1500, 12_000)], SECOND)), [(7, 250_000_000)]);
        assert_eq!(charged(&clients.update(vec![cycles(7, 1500, 12_000)], SECOND)), []);
    }

    #[test]
    fn impossible_increases_are_not_charged() {
        let mut clients = Clients::default();
        clients.update(vec![open_client(7, 1, 0, false)], SECOND);
        assert_eq!(charged(&clients.update(vec![open_client(7, 1, u64::MAX, false)], SECOND)), []);
    }

    proptest! {
        #[test]
        fn never_more_than_the_counters_rose(
            counts in proptest::collection::vec((1u32..4, 1u64..3, 0u64..1000), 0..50)
        ) {
            let mut clients = Clients::default();
            let (mut highest, mut sum) = (BTreeMap::new(), 0);
            for (pid, id, busy) in counts {
                let used = clients.update(vec![open_client(pid, id, busy, false)], SECOND);
                sum += used.iter().map(|used| used.busy.0).sum::<u64>();
                let all: &mut u64 = highest.entry(id).or_default();
                *all += busy;
            }
            prop_assert!(sum <= highest.values().sum::<u64>());
        }
    }
}
