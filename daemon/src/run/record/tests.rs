//! Recordings of this version, and what is not known in them.

use super::*;
use crate::attribution::CoreConfig;
use crate::attribution::ledger::Limits;
use crate::model::domain::{Domain, DomainReading, Reading, Scope, Zone};
use crate::model::entity::Kind;
use crate::model::snapshot::Host;
use crate::model::units::Microjoules;
use std::collections::BTreeMap;

fn head() -> Head {
    let mut shown = [0; Kind::ALL.len()];
    shown[Kind::Vm.index()] = 7;
    let config = CoreConfig {
        host: Host::default(),
        limits: Limits { shown, retention: Nanos(1), least: Microjoules(0), name_wait: Nanos(0) },
        idle: Default::default(),
        floors: BTreeMap::new(),
        prior_ratio: 0.1 + 0.2,
        platform: Default::default(),
        learn: false,
        weights: Default::default(),
        tenants: Vec::new(),
    };
    Head { config, state: State { boot_id: "b".into(), ..State::default() }, same_boot: true, now: Nanos(5) }
}

/// A recording of three ticks, as text.
fn recording() -> (tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    let mut recorder = Recorder::create(&path, &head()).unwrap();
    for second in 1..4 {
        let mut tick = Tick::default();
        tick.at.monotonic = Nanos(second * Nanos::SECOND.0);
        if second == 1 {
            tick.new_domains = vec![Domain::measured("rapl/psys", "rapl-perf", Zone::Psys, Scope::Machine, "p".into())];
        }
        let reading = Ok(Reading::Counter { total: Microjoules(second * 1000), wraps_at: None });
        tick.readings = vec![DomainReading::new("rapl/psys".into(), tick.at.monotonic, reading)];
        recorder.tick(&tick).unwrap();
    }
    drop(recorder);
    let text = std::fs::read_to_string(&path).unwrap();
    (dir, path, text)
}

/// The recording with other words, and with checksums that are right.
fn rewritten(text: &str, from: &str, to: &str) -> String {
    let mut lines = text.lines();
    let mut out = lines.next().unwrap().to_owned() + "\n";
    for line in lines {
        let json = line[9..].replace(from, to);
        out += &format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    }
    out
}

fn replayed(path: &Path, text: &str) -> Result<u64, String> {
    std::fs::write(path, text).unwrap();
    replay(path, |_| {}).map_err(|error| error.to_string())
}

#[test]
fn a_recording_is_text_that_comes_back() {
    let (_dir, path, text) = recording();
    assert!(text.starts_with("jouled recording 4\n") && text.contains(r#""shown":{"vm":7}"#), "{text}");
    assert_eq!(replayed(&path, &text), Ok(3));
    let mut rest = &text.as_bytes()[MAGIC.len()..];
    assert_eq!(frames::read::<Head>(&mut rest).unwrap().unwrap(), head());
}

#[test]
fn what_is_not_known_is_named_with_its_file_and_tick() {
    let (_dir, path, text) = recording();
    for (from, to, words) in [
        ("\"psys\"", "\"hologram\"", ["tick 1", "hologram"]),
        ("\"total\":3000", "\"total\":3000,\"pulse\":5", ["tick 3", "readings[0].reading.Ok.counter.pulse"]),
        ("\"counter\":{\"total\":2000", "\"abacus\":{\"total\":2000", ["tick 2", "abacus"]),
        ("\"same_boot\"", "\"weather\":\"fine\",\"same_boot\"", ["head", "weather"]),
        ("\"boot_id\":\"b\"", "\"boot_id\":\"b\",\"colour\":1", ["head", "colour"]),
        ("\"vm\":7", "\"robot\":7", ["head", "robot"]),
    ] {
        let error = replayed(&path, &rewritten(&text, from, to)).unwrap_err();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("not known"), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    // What is said to be nothing changes nothing.
    assert_eq!(replayed(&path, &rewritten(&text, "\"total\":3000", "\"total\":3000,\"pulse\":null")), Ok(3));
}

#[test]
fn damage_and_other_versions_are_named() {
    let (_dir, path, text) = recording();
    let error = replayed(&path, &text.replace("recording 4", "recording 5")).unwrap_err();
    assert!(error.contains("format 5") && error.contains("newer"), "{error}");
    let error = replayed(&path, &text.replace("recording 4", "recording 2")).unwrap_err();
    assert!(error.contains("format 2") && error.contains("older"), "{error}");
    for other in ["", "jouled ledger 3\n", "jouled recording x\n", "\n"] {
        assert!(replayed(&path, other).unwrap_err().contains("not a recording"), "{other:?}");
    }
    let error = replayed(&path, &text.replace("\"total\":2000", "\"total\":2001")).unwrap_err();
    assert!(error.contains("after tick 1") && error.contains("checksum"), "{error}");
    for cut in MAGIC.len()..text.len() {
        let _ = replayed(&path, &text[..cut]);
    }
}

#[test]
fn any_number_of_labels_is_read_or_refused() {
    let (_dir, path, text) = recording();
    let with = |labels: &str| {
        let cgroups = format!(r#""cgroups":[{{"cgroup":7,"entities":[{labels}],"vm":{labels}}}]"#);
        let members = format!(r#""vm_members":[{{"process":{{"pid":1,"start":1}},"vm":{labels}}}]"#);
        let text = rewritten(&text, r#""cgroups":[]"#, &cgroups);
        rewritten(&text, r#""vm_members":[]"#, &members)
    };
    assert!(
        with("5").contains(r#""entities":[5]"#) && with("5").contains(r#""vm":5}],"vms""#),
        "the words of the format"
    );
    for fine in [
        r#"{"kind":"vm","labels":{}}"#,
        r#"{"kind":"unit","labels":{"slice":"a.slice"}}"#,
        r#"{"kind":"process","labels":{"pid":"7"}}"#,
    ] {
        assert_eq!(replayed(&path, &with(fine)), Ok(3), "{fine}");
    }
    for odd in [
        r#"{"kind":"vm","labels":{"vm_id":"7","label-9":"x"}}"#,
        r#"{"kind":"vm","labels":[]}"#,
        r#"{"kind":"vm","labels":["7"]}"#,
        r#"{"kind":"vm"}"#,
        "[]",
    ] {
        assert!(replayed(&path, &with(odd)).unwrap_err().contains("tick 1"), "{odd}");
    }
}
