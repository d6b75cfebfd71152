//! Opens hardware counters (perf_event_open(2)) on every online CPU for the eBPF programs to read (key `counters`
//! in `[usage]`). Does not read them.

use super::{Counters, sys};
use crate::model::usage::Counted;
use crate::sys::perf_event;
use perf_event_open_sys::bindings as perf;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Names of the eBPF maps that hold the events, in the order of [`jouled_bpf::COUNTERS`].
pub const MAPS: [&str; jouled_bpf::COUNTERS] = ["CYCLES", "INSTRUCTIONS", "CACHE_MISSES"];

/// The events of one counter: number and event of each online CPU.
pub type Events = Vec<(u32, File)>;

/// Opens the events of each counter; `None` where a counter cannot be opened on every CPU.
pub fn open(counters: Counters, online: &[u32]) -> [Option<Events>; jouled_bpf::COUNTERS] {
    let events = match counters {
        Counters::Off => return [None, None, None],
        Counters::Auto => {
            [perf::PERF_COUNT_HW_CPU_CYCLES, perf::PERF_COUNT_HW_INSTRUCTIONS, perf::PERF_COUNT_HW_CACHE_MISSES]
        }
        Counters::Software => {
            [perf::PERF_COUNT_SW_CPU_CLOCK, perf::PERF_COUNT_SW_TASK_CLOCK, perf::PERF_COUNT_SW_CONTEXT_SWITCHES]
        }
    };
    let hardware = counters == Counters::Auto;
    events.map(|event| {
        let opened: Option<Events> = online.iter().map(|&cpu| Some((cpu, open_on(cpu, event, hardware)?))).collect();
        opened.filter(|events| !events.is_empty())
    })
}

fn open_on(cpu: u32, event: u32, hardware: bool) -> Option<File> {
    let mut attr = perf::perf_event_attr {
        type_: if hardware { perf::PERF_TYPE_HARDWARE } else { perf::PERF_TYPE_SOFTWARE },
        config: u64::from(event),
        ..Default::default()
    };
    // Pinned: the event is on the PMU at all times or in error. Multiplexed counts, scaled up, would be an estimate.
    attr.set_pinned(u64::from(hardware));
    let mut event = perf_event::open(&mut attr, cpu, None).ok()?;
    // A pinned event that did not fit on the PMU reads as end of file (perf_event_open(2)).
    let mut value = [0; 8];
    event.read_exact(&mut value).ok().map(|()| event)
}

/// Puts the events into the map of their counter, which keeps them open.
pub fn install(map: BorrowedFd<'_>, events: &Events) -> std::io::Result<()> {
    events.iter().try_for_each(|(cpu, event)| sys::write_number(map, *cpu, event.as_raw_fd() as u32))
}

/// The counters that a bit mask names: bit n is counter n of [`MAPS`].
pub fn counted(mask: u32) -> Counted {
    Counted { cycles: mask & 1 != 0, instructions: mask & 2 != 0, cache_misses: mask & 4 != 0 }
}

/// Numbers of the online CPUs, from /sys/devices/system/cpu/online; CPU 0 where that file cannot be read.
pub fn online() -> Vec<u32> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let cpus = cpu_list(&text);
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// Parses a CPU list such as `0-3,8`.
fn cpu_list(text: &str) -> Vec<u32> {
    text.trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(65_535))
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(cpu_list("0"), [0]);
        assert!(cpu_list("\n").is_empty());
    }
}
