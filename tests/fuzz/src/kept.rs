//! Files that jouled itself wrote, damaged or by another's hand: the ledger, its journal, recordings. A frame of them is
//! a checksum and JSON: the input has the JSON alone, so that it gets past the checksum.

use crate::attribution::config;
use crate::tree::Tree;
use jouled::attribution::Core;
use jouled::history::encoding::{decode, encode};
use jouled::history::slot::Slot;
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::{DomainReading, Reading};
use jouled::model::source::Stamp;
use jouled::model::tick::Tick;
use jouled::model::units::{Microjoules, Nanos};
use jouled::run::record::replay;
use jouled::run::store::Store;
use std::collections::BTreeSet;

/// The input with a checksum in front of each line but the first, which names the format.
fn framed(data: &[u8]) -> Vec<u8> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut file = lines.next().unwrap_or_default().to_vec();
    file.push(b'\n');
    for json in lines {
        file.extend(format!("{:08x} ", crc32fast::hash(json)).as_bytes());
        file.extend(json);
        file.push(b'\n');
    }
    file
}

/// A ledger: what can be read is continued, counters only rise from there, and it can be written and read again.
pub fn ledger(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let tree = Tree::new();
    let name = if how & 1 == 0 { "state/ledger" } else { "run/ledger.journal" };
    // A postcard file of earlier versions, or one with a wrong checksum, is taken as it is.
    if how & 2 == 0 {
        tree.write(name, &framed(data))
    } else {
        tree.write(name, data)
    }
    let (state_dir, run_dir) = (tree.path().join("state"), tree.path().join("run"));
    let mut notes = Vec::new();
    let (mut store, state) = Store::open(&run_dir, &state_dir, "machine", &mut notes).unwrap();
    assert!(notes.iter().all(|note| crate::text::is_safe(note)), "{notes:?}");
    let domains: Vec<_> = state.domains.iter().map(|record| record.domain.clone()).take(8).collect();
    let mut core = Core::new(config(IdlePolicy::Apart), state, how & 4 == 0, Nanos(1_000_000_000));
    core.awaited();
    for second in 0..4 {
        let at = Nanos((2 + second) * Nanos::SECOND.0);
        let reading = |total| Ok(Reading::Counter { total: Microjoules(total), wraps_at: None });
        let readings = domains.iter().map(|domain| DomainReading {
            domain: domain.id.clone(),
            at,
            reading: reading(second * 50_000_000),
            interval: None,
        });
        core.step(&Tick {
            at: Stamp { monotonic: at, boottime: at, realtime: at },
            new_domains: if second == 0 { domains.clone() } else { Vec::new() },
            readings: readings.collect(),
            ..Tick::default()
        });
        store.append(core.changes(), || core.state("boot")).unwrap();
    }
    store.checkpoint(core.state("boot")).unwrap();
    drop(store);
    let mut notes = Vec::new();
    let (_, again) = Store::open(&run_dir, &state_dir, "machine", &mut notes).unwrap();
    assert_eq!(again.domains.len(), core.state("boot").domains.len(), "{notes:?}");
}

/// An interval of history, with its length in place: what can be read comes back after it was written again, and can be
/// added to another one without a change of sums that fit.
pub fn history(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    // A length of the header that is right gets past it.
    let framed = match data.iter().position(|byte| *byte == b'\n').filter(|_| how & 1 == 0) {
        Some(end) if end < 1 << 14 => {
            let mut framed = vec![1, (end & 0x7f) as u8 | 0x80, (end >> 7) as u8];
            framed.extend(&data[..end]);
            framed.extend(&data[end + 1..]);
            framed
        }
        _ => data.to_vec(),
    };
    let Ok(slot) = decode(&framed) else { return };
    assert_eq!(decode(&encode(&slot)).as_ref(), Ok(&slot));
    let mut sum = Slot::empty(slot.from, slot.until);
    sum.add(&slot);
    assert_eq!(sum.zones.len(), slot.zones.iter().map(|zone| &zone.zone).collect::<BTreeSet<_>>().len());
    let mut folded = slot.clone();
    for part in folded.kinds.values_mut() {
        part.keep_largest(1);
        assert!(part.rows.len() <= 1);
    }
    assert!(decode(&encode(&folded)).is_ok());
}

/// A recording: replayed as far as it can be read.
pub fn recording(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let tree = Tree::new();
    if how & 1 == 0 {
        tree.write("recording", &framed(data))
    } else {
        tree.write("recording", data)
    }
    let mut ticks = 0u64;
    let replayed = replay(&tree.path().join("recording"), |_| ticks += 1);
    assert!(replayed.is_err() || replayed.is_ok_and(|number| number == ticks));
}
