//! The log on disk.

use super::*;
use crate::export::push::log::Log;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

const AGE: i64 = 24 * 60 * MINUTE;

fn open(folder: &Path) -> Log {
    Log::open(folder, 64_000_000, AGE).unwrap()
}

fn times(log: &mut Log) -> Vec<i64> {
    let mut times = Vec::new();
    while let Some(frame) = log.first(START).unwrap() {
        times.push(frame.at - START);
        log.pop().unwrap();
    }
    times
}

#[test]
fn frames_outlive_a_restart_and_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let frames: Vec<Frame> = (0..5).map(|minute| counters(minute * MINUTE, 20)).collect();
    frames.iter().for_each(|frame| log.append(frame).unwrap());
    assert_eq!(log.first(START).unwrap().as_ref(), Some(&frames[0]));
    log.pop().unwrap();
    log.pop().unwrap();
    drop(log);
    let mut log = open(dir.path());
    assert_eq!((log.waiting(), log.first(START).unwrap().as_ref()), (60, Some(&frames[2])));
    assert_eq!(times(&mut log), [2 * MINUTE, 3 * MINUTE, 4 * MINUTE]);
    assert_eq!((log.waiting(), log.bytes()), (0, 39));
    log.append(&frames[4]).unwrap();
    drop(log);
    assert_eq!(times(&mut open(dir.path())), [4 * MINUTE]);
    assert_eq!(fs::metadata(dir.path().join("1.log")).unwrap().mode() & 0o077, 0);
}

#[test]
fn markers_of_ends_keep_their_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let series = one("jouled_joules_total", 1, 1.0, true);
    log.append(&Frame::new(START, &[Series::ended(series.labels, series.about)])).unwrap();
    let found = open(dir.path()).first(START).unwrap().unwrap();
    assert_eq!(found.request.timeseries[0].samples[0].value.to_bits(), STALE);
}

#[test]
fn a_tail_that_is_torn_anywhere_costs_its_frame_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append(&counters(0, 20)).unwrap();
    let whole = log.bytes();
    log.append(&counters(MINUTE, 20)).unwrap();
    drop(log);
    let path = dir.path().join("1.log");
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let mut log = open(dir.path());
        let wanted: &[i64] = if length as u64 >= whole { &[0] } else { &[] };
        // What comes after it is kept, and read again.
        log.append(&counters(2 * MINUTE, 1)).unwrap();
        drop(log);
        let wanted: Vec<i64> = wanted.iter().copied().chain([2 * MINUTE]).collect();
        assert_eq!(times(&mut open(dir.path())), wanted, "{length} bytes");
        fs::remove_file(&path).unwrap();
    }
    // The same of any damaged byte behind the head.
    for place in (39..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let found = times(&mut open(dir.path()));
        assert_eq!(found.len(), usize::from(place as u64 >= whole), "byte {place}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_is_too_much_or_too_old_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), 200_000, AGE).unwrap();
    for minute in 0..400 {
        log.append(&counters(minute * MINUTE, 100)).unwrap();
        assert!(log.bytes() <= 200_000);
    }
    let dropped = log.take_dropped();
    assert_eq!(log.waiting() + dropped, 40_000);
    assert!(dropped > 0 && fs::read_dir(dir.path()).unwrap().count() > 1);
    // Those that stay are the newest.
    let first = log.first(START).unwrap().unwrap();
    assert_eq!((400 * MINUTE - (first.at - START)) / MINUTE * 100, log.waiting() as i64);
    assert_eq!(log.first(START + 399 * MINUTE + AGE).unwrap().map(|frame| frame.at), Some(START + 399 * MINUTE));
    assert_eq!(log.first(START + 400 * MINUTE + AGE).unwrap(), None);
    assert_eq!(log.take_dropped() + dropped, 40_000);
}

#[test]
fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("3.log"), format!("jouled push log 2 {}\n", "0".repeat(40))).unwrap();
    fs::write(dir.path().join("notes"), "mine").unwrap();
    let mut log = open(dir.path());
    log.append(&counters(0, 1)).unwrap();
    assert!(fs::read_to_string(dir.path().join("3.log")).unwrap().starts_with("jouled push log 2"));
    assert_eq!(times(&mut log), [0]);
    // A link is not followed.
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "mine").unwrap();
    symlink(&target, other.join("1.log")).unwrap();
    let error = Log::open(&other, 64_000_000, AGE).unwrap_err().to_string();
    assert!(error.contains("is no plain file"), "{error}");
    assert_eq!(fs::read_to_string(target).unwrap(), "mine");
}
