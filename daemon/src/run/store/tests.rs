//! The store: crashes, torn and damaged files, files of other versions and machines, two daemons.

use super::*;
use crate::attribution::ledger::{Entry, Series};
use crate::model::entity::UnitLabels;
use crate::model::units::Nanos;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn entry(name: &str, since: u64) -> Entry {
    let labels = UnitLabels { unit: name, slice: "" }.into();
    Entry::Series { labels, series: Series { since: Nanos(since), ..Series::default() } }
}

fn open_on(machine: &str, dir: &Path) -> (Store, State, Vec<String>) {
    let mut notes = Vec::new();
    let (store, state) = Store::open(&dir.join("run"), &dir.join("state"), machine, &mut notes).unwrap();
    (store, state, notes)
}

fn open(dir: &Path) -> (Store, State, Vec<String>) {
    open_on("this", dir)
}

fn append(store: &mut Store, entries: Vec<Entry>) {
    store.append((vec![], entries, Default::default()), || State { boot_id: "b".into(), ..State::default() }).unwrap();
}

/// What is kept in the file `ledger` of a folder.
fn newest(dir: &Path, notes: &mut Vec<String>) -> load::Kept {
    let mut ledger = Place::open(dir, 0o700, "ledger", "ledger.lock").unwrap();
    let mut none = Place::open(dir, 0o700, "none", "none.lock").unwrap();
    load::newest([&mut ledger, &mut none], "", notes).unwrap()
}

fn state(boot_id: &str) -> State {
    State { boot_id: boot_id.into(), ..State::default() }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
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

/// A whole, and three changes.
fn journal() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    (0..4).for_each(|since| append(&mut store, vec![entry("a \n\u{1f980}\"", since)]));
    drop(store);
    fs::read(dir.path().join("run/ledger.journal")).unwrap()
}

#[test]
fn cut_anywhere_all_whole_frames_before_the_cut_count() {
    let bytes = journal();
    let ends: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).skip(1).collect();
    assert_eq!(ends.len(), 4);
    for cut in 0..bytes.len() {
        let mut notes = Vec::new();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        fs::write(&path, &bytes[..cut]).unwrap();
        let kept = newest(dir.path(), &mut notes);
        // Without its line feed a frame is whole as well.
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(kept.state.entries.len(), whole.saturating_sub(1), "cut at {cut}");
        assert_eq!(kept.state.boot_id == "b", whole > 0, "cut at {cut}");
        let aside = whole == 0;
        assert_eq!(!path.exists(), aside, "cut at {cut}");
        assert_eq!(notes.len(), usize::from(aside || !ends.contains(&cut) && !ends.contains(&(cut - 1))), "{notes:?}");
    }
}

#[test]
fn a_byte_that_changed_is_found() {
    let bytes = journal();
    for at in (0..bytes.len()).step_by(7) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x04;
        fs::write(&path, &bytes).unwrap();
        let mut notes = Vec::new();
        let kept = newest(dir.path(), &mut notes);
        assert_eq!(notes.len(), 1, "byte {at}");
        assert!(kept.state.entries.len() < 3, "byte {at}");
    }
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

/// With `--state-dir` both files are in one folder.
#[test]
fn what_is_set_aside_takes_the_place_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let both = dir.path();
    for round in ["one", "two"] {
        fs::write(both.join("ledger"), format!("garbage {round}")).unwrap();
        fs::write(both.join("ledger.journal"), format!("more garbage {round}")).unwrap();
        let mut notes = Vec::new();
        drop(Store::open(both, both, "", &mut notes).unwrap());
        assert_eq!(notes.len(), 2);
    }
    let all = ["ledger.damaged", "ledger.damaged-2", "ledger.journal.damaged", "ledger.journal.damaged-2"];
    assert_eq!(names(both), all);
    assert_eq!(fs::read(both.join("ledger.journal.damaged-2")).unwrap(), b"more garbage two");
}

#[test]
fn a_file_of_a_newer_version_is_set_aside_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    append(&mut store, vec![entry("a", 1)]);
    store.checkpoint(state("c")).unwrap();
    drop(store);
    let path = dir.path().join("state/ledger");
    let newer = fs::read_to_string(&path).unwrap().replace("ledger 3", "ledger 4");
    fs::write(&path, &newer).unwrap();
    let (mut store, kept, notes) = open(dir.path());
    let aside = dir.path().join("state/ledger.format-4");
    assert_eq!(kept.boot_id, "b", "the journal is as it was");
    let note = &notes[0];
    assert!(note.contains("a newer version") && note.contains(aside.to_str().unwrap()), "{note}");
    store.checkpoint(state("d")).unwrap();
    assert_eq!(fs::read_to_string(&aside).unwrap(), newer);
    drop(store);
    for (number, word) in [("1", "an older version"), ("4294967295", "a newer version"), ("4294967296", "damaged")] {
        fs::write(&path, format!("jouled ledger {number}\nwhatever")).unwrap();
        let (_, _, notes) = open(dir.path());
        assert!(notes[0].contains(word), "{notes:?}");
    }
}

#[test]
fn totals_of_another_machine_count_where_there_are_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, there) = (dir.path().join("state/ledger"), dir.path().join("there"));
    let (mut store, ..) = open_on("there", &there);
    for _ in 0..9 {
        append(&mut store, vec![entry("a", 1)]);
    }
    store.checkpoint(state("there")).unwrap();
    drop(store);

    let (mut store, _, _) = open_on("here", dir.path());
    append(&mut store, vec![entry("a", 1)]);
    store.checkpoint(state("here")).unwrap();
    drop(store);
    fs::copy(there.join("state/ledger"), &ledger).unwrap();
    let (store, kept, notes) = open_on("here", dir.path());
    assert_eq!(kept.boot_id, "b", "this machine's journal");
    assert!(notes[0].contains("another machine") && notes[0].contains("ledger.other-machine"), "{notes:?}");
    assert_eq!(names(&dir.path().join("state")), ["ledger.other-machine"]);
    drop(store);

    fs::remove_file(dir.path().join("run/ledger.journal")).unwrap();
    fs::copy(there.join("state/ledger"), &ledger).unwrap();
    let (mut store, kept, notes) = open_on("here", dir.path());
    assert_eq!(kept.boot_id, "there");
    assert!(notes.len() == 1 && notes[0].contains("are taken over"), "{notes:?}");
    // From now on they are this machine's.
    store.checkpoint(state("there")).unwrap();
    drop(store);
    for machine in ["here", ""] {
        let (_, kept, notes) = open_on(machine, dir.path());
        assert_eq!((kept.boot_id.as_str(), notes.len()), ("there", 0), "{notes:?}");
    }
    // Where no machine id can be read, the one that is known stays.
    let (mut store, ..) = open_on("", dir.path());
    store.checkpoint(state("there")).unwrap();
    assert!(fs::read_to_string(&ledger).unwrap().contains("\"machine\":\"here\""));
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
    let error = Store::open(&dir.path().join("run"), &dir.path().join("state"), "", &mut vec![]).err().unwrap();
    assert!(error.to_string().contains("another jouled"));
    let error = Store::open(&dir.path().join("run"), &dir.path().join("other"), "", &mut vec![]).err().unwrap();
    assert!(error.to_string().contains("another jouled"), "the journal is shared: {error}");
    drop(kept);
}

#[test]
fn a_folder_that_is_removed_meanwhile_is_made_again_with_all_totals() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    let run = dir.path().join("run");
    let step = |store: &mut Store, since: u64| {
        store.append((vec![], vec![entry("a", since)], Default::default()), || State {
            entries: vec![entry("a", since)],
            ..state("b")
        })
    };
    step(&mut store, 1).unwrap();
    fs::remove_dir_all(&run).unwrap();
    step(&mut store, 2).unwrap();
    assert_eq!(names(&run), ["ledger.journal"]);
    step(&mut store, 3).unwrap();
    // The journal alone, another file under its name, the lock alone, and the folder moved away.
    fs::remove_file(run.join("ledger.journal")).unwrap();
    step(&mut store, 4).unwrap();
    fs::rename(run.join("ledger.journal"), run.join("moved")).unwrap();
    fs::write(run.join("ledger.journal"), "").unwrap();
    step(&mut store, 5).unwrap();
    fs::remove_file(run.join("ledger.journal.lock")).unwrap();
    step(&mut store, 6).unwrap();
    fs::rename(&run, dir.path().join("elsewhere")).unwrap();
    step(&mut store, 7).unwrap();
    let second = Store::open(&run, &dir.path().join("other"), "this", &mut Vec::new());
    assert!(matches!(second, Err(StoreError::Busy(_))), "the folder that was made again is locked");
    // The state folder, too.
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    store.checkpoint(state("c")).unwrap();
    assert_eq!(names(&dir.path().join("state")), ["ledger"]);
    step(&mut store, 8).unwrap();
    drop(store);
    let (_, kept, notes) = open(dir.path());
    assert_eq!((kept.boot_id.as_str(), kept.entries.last(), notes), ("b", Some(&entry("a", 8)), vec![]));
}

#[test]
fn a_folder_that_cannot_be_made_again_keeps_the_lock_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    append(&mut store, vec![entry("a", 1)]);
    let (run, moved) = (dir.path().join("run"), dir.path().join("moved"));
    fs::rename(&run, &moved).unwrap();
    // Not even root can make a folder there.
    fs::write(&run, "").unwrap();
    for _ in 0..2 {
        let error = store
            .append((vec![], vec![], Default::default()), || unreachable!("nothing to write to"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("removed while jouled runs") && error.contains("Not a directory"), "{error}");
    }
    store.checkpoint(state("c")).unwrap();
    let second = Store::open(&moved, &dir.path().join("other"), "this", &mut Vec::new());
    assert!(matches!(second, Err(StoreError::Busy(_))), "the lock is kept");
    fs::remove_file(&run).unwrap();
    // Another jouled was faster.
    let other = Store::open(&run, &dir.path().join("other"), "this", &mut Vec::new()).unwrap();
    let error = store.append((vec![], vec![], Default::default()), || state("b")).unwrap_err().to_string();
    assert!(error.contains("another jouled"), "{error}");
    drop(other);
    append(&mut store, vec![entry("a", 2)]);
    assert_eq!(names(&run), ["ledger.journal"]);
}

#[test]
fn links_and_files_that_were_put_there_are_not_written_to() {
    for name in ["state/ledger.lock", "run/ledger.journal.lock", "run/ledger.journal", "state/ledger"] {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::write(&precious, "kept").unwrap();
        drop(open(dir.path()));
        let _ = fs::remove_file(dir.path().join(name));
        symlink(&precious, dir.path().join(name)).unwrap();
        let opened = Store::open(&dir.path().join("run"), &dir.path().join("state"), "this", &mut Vec::new());
        let error = opened.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(name) && error.contains("no plain file"), "{name}: {error}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    }
    // What is written first, and then takes the ledger's name.
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    let (precious, new) = (dir.path().join("precious"), dir.path().join("state/ledger.new"));
    fs::write(&precious, "kept").unwrap();
    symlink(&precious, &new).unwrap();
    store.checkpoint(state("b")).unwrap();
    fs::hard_link(&precious, &new).unwrap();
    store.checkpoint(state("b")).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    let ledger = dir.path().join("state/ledger");
    assert_eq!((fs::metadata(&ledger).unwrap().mode() & 0o777, names(&dir.path().join("state")).len()), (0o600, 1));
    // A backup of the ledger may be a hard link.
    fs::hard_link(&ledger, dir.path().join("backup")).unwrap();
    drop(store);
    let (mut store, kept, notes) = open(dir.path());
    assert_eq!((kept.boot_id.as_str(), notes), ("b", vec![]));
    let before = fs::read(dir.path().join("backup")).unwrap();
    store.checkpoint(state("c")).unwrap();
    assert_eq!(fs::read(dir.path().join("backup")).unwrap(), before, "the backup stays as it was");
}

#[test]
fn a_folder_that_only_can_be_read_is_read_and_tried_again() {
    if rustix::process::geteuid().is_root() {
        return println!("skipped: root may write everywhere; root_state_on_a_read_only_disk tries that");
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    store.checkpoint(state("b")).unwrap();
    drop(store);
    let folder = dir.path().join("state");
    let chmod = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o500);
    for lock in [true, false] {
        let (mut store, kept, _) = open(dir.path());
        assert_eq!(kept.boot_id, "b");
        append(&mut store, vec![entry("a", 1)]);
        assert!(store.checkpoint(state("c")).unwrap_err().to_string().contains("Permission denied"));
        chmod(0o700);
        store.checkpoint(state("b")).unwrap();
        drop(store);
        if lock {
            fs::remove_file(folder.join("ledger.lock")).unwrap();
        }
        chmod(0o500);
    }
    // What cannot be used is not overwritten when the folder can be written to again.
    chmod(0o700);
    fs::write(folder.join("ledger"), "garbage").unwrap();
    chmod(0o500);
    let (mut store, _, notes) = open(dir.path());
    assert!(notes[0].contains("damaged") && notes[0].contains("cannot be set aside"), "{notes:?}");
    chmod(0o700);
    store.checkpoint(state("c")).unwrap();
    assert_eq!(fs::read(folder.join("ledger.damaged")).unwrap(), b"garbage");
}

#[test]
fn carbon_and_cost_are_kept_with_each_tick() {
    use crate::model::footprint::{Amount, AmountTotals, Amounts, Measure, Part};
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path());
    let totals = |parts: &[(Part, u128)], uncounted: u64| {
        let amount = |charge: u128| Amount { charge, credit: charge / 3 };
        let parts = parts.iter().map(|(part, charge)| (part.clone(), amount(*charge))).collect();
        let amounts = vec![Amounts { measure: Measure::Cost, unit: "EUR".into(), fallback: true, parts }];
        let uncounted = [(Measure::Co2eLocation, crate::model::units::Microjoules(uncounted))].into_iter().collect();
        AmountTotals { amounts, uncounted }
    };
    let (web, large) = (Part::Tenant("web \"x\"".into()), u128::from(u64::MAX) * 1000);
    let whole = || State { footprint: totals(&[(Part::Idle, 5), (web.clone(), 7)], 1), ..state("b") };
    store.append((vec![], vec![], AmountTotals::default()), whole).unwrap();
    store.append((vec![], vec![], totals(&[(Part::Idle, large)], 2)), || unreachable!("the journal is open")).unwrap();
    drop(store);
    let (_, state, notes) = open(dir.path());
    assert_eq!((state.footprint, notes), (totals(&[(Part::Idle, large), (web, 7)], 2), vec![]));
}
