//! The store: crashes, torn and damaged files, two daemons.

use super::*;
use crate::attribution::ledger::Series;
use crate::model::entity::UnitLabels;
use crate::model::units::Nanos;

fn entry(name: &str, since: u64) -> Entry {
    let labels = UnitLabels { unit: name, slice: "" }.into();
    Entry::Series { labels, series: Series { since: Nanos(since), ..Series::default() } }
}

fn open(dir: &Path) -> (Store, State, Vec<String>) {
    let mut notes = Vec::new();
    let (store, state) = Store::open(&dir.join("run"), &dir.join("state"), &mut notes).unwrap();
    (store, state, notes)
}

fn append(store: &mut Store, entries: Vec<Entry>) {
    store.append((vec![], entries), || State { boot_id: "b".into(), ..State::default() }).unwrap();
}

#[test]
fn a_crash_loses_nothing_that_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, state, _) = open(dir.path());
    assert_eq!(state, State::default());
    append(&mut store, vec![]);
    append(&mut store, vec![entry("a", 1)]);
    append(&mut store, vec![entry("a", 2)]);
    drop(store);
    let (_, state, notes) = open(dir.path());
    assert_eq!((state.boot_id.as_str(), state.entries, notes), ("b", vec![entry("a", 1), entry("a", 2)], vec![]));
}

#[test]
fn a_torn_frame_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    append(&mut store, vec![]);
    append(&mut store, vec![entry("a", 1)]);
    drop(store);
    let journal = dir.path().join("run/ledger.journal");
    OpenOptions::new().append(true).open(&journal).unwrap().write_all(&[9, 0, 0, 0, 1, 2]).unwrap();
    let (_, state, notes) = open(dir.path());
    assert_eq!(state.entries, vec![entry("a", 1)]);
    assert!(notes[0].contains("cut short"), "{notes:?}");
}

#[test]
fn garbage_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("state/ledger"), b"garbage").unwrap();
    let (_, state, notes) = open(dir.path());
    assert_eq!(state, State::default());
    assert!(notes[0].contains("damaged") && dir.path().join("state/ledger.damaged").exists());
}

#[test]
fn the_newer_file_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    append(&mut store, vec![]);
    append(&mut store, vec![entry("a", 1)]);
    store.checkpoint(State { boot_id: "c".into(), ..State::default() }).unwrap();
    append(&mut store, vec![entry("a", 2)]);
    drop(store);
    assert_eq!(open(dir.path()).1.boot_id, "b");
    fs::remove_file(dir.path().join("run/ledger.journal")).unwrap();
    assert_eq!(open(dir.path()).1.boot_id, "c");
}

#[test]
fn one_jouled_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path());
    let error = Store::open(&dir.path().join("run"), &dir.path().join("state"), &mut vec![]).err().unwrap();
    assert!(error.to_string().contains("another jouled"));
    let error = Store::open(&dir.path().join("run"), &dir.path().join("other"), &mut vec![]).err().unwrap();
    assert!(error.to_string().contains("another jouled"), "the journal is shared: {error}");
    drop(kept);
}
