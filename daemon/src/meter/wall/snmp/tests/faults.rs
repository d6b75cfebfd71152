//! Presets and faults of agents of version 2c.

use super::agent::{Agent, Fault, counter, gauge};
use super::*;

const RPDU2: &str = "1.3.6.1.4.1.318.1.1.26.4.3.1";

#[test]
fn each_preset_reads_its_own_oids() {
    let raritan = |value: &str, sensor: &str, index: &str| {
        vec![
            (format!("1.3.6.1.4.1.13742.6.5.{value}.4.{index}.5"), 8350),
            (format!("1.3.6.1.4.1.13742.6.3.{sensor}.7.{index}.5"), 2),
            (format!("1.3.6.1.4.1.13742.6.3.{sensor}.6.{index}.5"), 3),
            (format!("1.3.6.1.4.1.13742.6.5.{value}.3.{index}.5"), 4),
            (format!("1.3.6.1.4.1.13742.6.5.{value}.4.{index}.8"), 1000),
            (format!("1.3.6.1.4.1.13742.6.3.{sensor}.6.{index}.8"), 5),
        ]
    };
    let of = |values: &[(&str, u32)]| values.iter().map(|(oid, value)| ((*oid).to_owned(), *value)).collect::<Vec<_>>();
    let entity = |column: u8| format!("1.3.6.1.2.1.99.1.1.1.{column}.1034");
    for (lines, values, watts, joules) in [
        ("preset = \"apc\"", of(&[(&format!("{RPDU2}.5.1"), 8), (&format!("{RPDU2}.9.1"), 15)]), 80.0, Some(5.4e6)),
        ("preset = \"apc\"", of(&[("1.3.6.1.4.1.318.1.1.12.1.16.0", 83)]), 83.0, None),
        ("preset = \"apc\"", of(&[("1.3.6.1.4.1.318.1.1.30.2.1.1.7.1", 83)]), 83.0, None),
        (
            "preset = \"apc\"",
            of(&[("1.3.6.1.4.1.318.1.1.1.4.2.8.0", 83), ("1.3.6.1.4.1.318.1.1.1.4.2.12.0", 2)]),
            83.0,
            Some(7.2e6),
        ),
        ("preset = \"raritan\"", raritan("2.3.1", "3.4.1", "1.1"), 83.5, Some(3.6e6)),
        ("preset = \"raritan\"\npdu = 2\noutlet = 7", raritan("4.3.1", "5.4.1", "2.7"), 83.5, Some(3.6e6)),
        (
            "preset = \"sentry4\"",
            of(&[("1.3.6.1.4.1.1718.4.1.3.3.1.3.1.1", 83), ("1.3.6.1.4.1.1718.4.1.3.3.1.10.1.1", 15)]),
            83.0,
            Some(5.4e6),
        ),
        (
            "preset = \"sentry4\"\ninlet = 2\noutlet = 7",
            of(&[("1.3.6.1.4.1.1718.4.1.8.3.1.7.1.2.7", 83), ("1.3.6.1.4.1.1718.4.1.8.3.1.14.1.2.7", 1500)]),
            83.0,
            Some(5.4e6),
        ),
        ("preset = \"eaton\"", of(&[("1.3.6.1.4.1.534.6.6.7.3.5.1.4.0.1", 83)]), 83.0, None),
        ("preset = \"eaton\"", of(&[("1.3.6.1.4.1.534.6.6.7.3.4.1.4.0.1.2", 83)]), 83.0, None),
        ("preset = \"eaton\"\noutlet = 7", of(&[("1.3.6.1.4.1.534.6.6.7.6.5.1.3.0.7", 83)]), 83.0, None),
        ("preset = \"hpe\"", of(&[("1.3.6.1.4.1.232.165.11.2.1.1.5.1", 900)]), 900.0, None),
        ("preset = \"hpe\"\noutlet = 7", of(&[("1.3.6.1.4.1.232.165.11.5.1.1.13.1.7", 84)]), 84.0, None),
        (
            "preset = \"cyberpower\"",
            of(&[("1.3.6.1.4.1.3808.1.1.6.3.4.1.18.1", 83), ("1.3.6.1.4.1.3808.1.1.6.3.4.1.9.1", 15)]),
            83.0,
            Some(5.4e6),
        ),
        (
            "preset = \"entity-sensor\"\nsensor = 1034",
            vec![(entity(1), 6), (entity(2), 8), (entity(3), 1), (entity(4), 835_000), (entity(5), 1)],
            83.5,
            None,
        ),
        (
            "power = \"1.3.6.1.4.1.99.1.0\"\npower_scale = 10.0\nenergy = \"1.3.6.1.4.1.99.2.0\"\nenergy_unit = \"kWh\"\n\
             energy_scale = 0.1\nscale = 2.0",
            of(&[("1.3.6.1.4.1.99.1.0", 8), ("1.3.6.1.4.1.99.2.0", 15)]),
            160.0,
            Some(1.08e7),
        ),
    ] {
        let agent = Agent::start();
        values.iter().for_each(|(oid, value)| agent.set(oid, gauge(*value)));
        let mut probe = probe(&agent.address, lines);
        for _ in 0..2 {
            assert_eq!(numbers(probe.ask()), (Some(watts), joules), "{lines} {values:?}");
        }
        assert_eq!(probe.counts(), joules.is_some() || lines.contains("apc"), "{lines}");
        let mut elsewhere = self::probe(&Agent::start().address, lines);
        let failure = elsewhere.ask().unwrap_err();
        assert!(
            failure.kind == FailureKind::Unusable && failure.why.contains("no such object"),
            "{lines}: {failure:?}"
        );
    }
}

#[test]
fn every_fault_is_said_and_healed() {
    let agent = Agent::start();
    agent.set(&format!("{RPDU2}.5.1"), gauge(8));
    agent.set(&format!("{RPDU2}.9.1"), gauge(15));
    let mut probe = probe(&agent.address, "preset = \"apc\"");
    assert!(probe.describe().contains("not asked yet"), "{}", probe.describe());
    for (fault, kind, words) in [
        (Fault::Silence, FailureKind::Broken, "no answer within 1 s"),
        (Fault::Bytes(b"HTTP/1.1 400".to_vec()), FailureKind::Unusable, "no SNMP agent of version 2c"),
        (Fault::Bytes(vec![0x30; 60_000]), FailureKind::Unusable, "longer than 8192 bytes: not read"),
        (Fault::Bytes(Vec::new()), FailureKind::Unusable, "no SNMP agent"),
        (Fault::OtherRequest, FailureKind::Broken, "answers to other requests came"),
        (Fault::StatusAlways(1), FailureKind::Unusable, "error-status 1"),
        (Fault::StatusAlways(5), FailureKind::Unusable, "error-status 5"),
        (Fault::StatusAlways(16), FailureKind::Login, "allows this login to read none of it"),
        (Fault::OtherOids, FailureKind::Unusable, "other OIDs than were asked for"),
    ] {
        agent.fault(Some(fault.clone()));
        let failure = probe.ask().unwrap_err();
        assert!(failure.kind == kind && failure.why.contains(words), "{fault:?}: {failure:?}");
        assert!(failure.why.starts_with("127.0.0.1:") && failure.why.lines().count() == 1, "{failure:?}");
        agent.fault(None);
        assert_eq!(numbers(probe.ask()), (Some(80.0), Some(5.4e6)), "after {fault:?}");
    }
    assert!(probe.describe().contains("APC rPDU2"), "{}", probe.describe());
    // Agents whose answers are short, and ones that know a part: each value is asked for alone.
    for status in [1, 2] {
        agent.fault(Some(Fault::Status(status)));
        assert_eq!(numbers(probe.ask()), (Some(80.0), Some(5.4e6)), "{status}");
    }
    agent.fault(None);
    agent.remove(&format!("{RPDU2}.9.1"));
    assert_eq!(numbers(probe.ask()), (Some(80.0), None));
    agent.remove(&format!("{RPDU2}.5.1"));
    assert!(probe.ask().unwrap_err().why.contains("no such object any more"));
}

#[test]
fn a_wrong_community_is_a_silence_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (agent, file) = (Agent::start(), dir.path().join("community"));
    agent.set("1.3.6.1.4.1.99.1.0", gauge(83));
    std::fs::write(&file, "s3cret").unwrap();
    let mut probe = probe(&agent.address, &format!("power = \"1.3.6.1.4.1.99.1.0\"\npassword_file = {file:?}"));
    let failure = probe.ask().unwrap_err();
    assert!(failure.why.contains("To a wrong community agents do not answer"), "{failure:?}");
    assert!(!failure.why.contains("s3cret") && !probe.describe().contains("s3cret"), "{failure:?}");
    assert!(!probe.has_new_secret());
    std::fs::write(&file, "public").unwrap();
    assert!(probe.has_new_secret());
    assert_eq!(numbers(probe.ask()), (Some(83.0), None));
}

#[test]
fn values_that_are_none_and_units_that_change() {
    let agent = Agent::start();
    let (power, energy) = ("1.3.6.1.4.1.99.1.0", "1.3.6.1.4.1.99.2.0");
    let mut probe = probe(&agent.address, &format!("power = \"{power}\"\nenergy = \"{energy}\"\nenergy_unit = \"J\""));
    agent.set(energy, counter(u32::MAX));
    for (value, kind, words) in [
        (ber::integer(-1), FailureKind::Absent, "no value now (-1)"),
        (ber::integer(-7), FailureKind::Unusable, "negative"),
        (gauge(4_000_000_000), FailureKind::Unusable, "is the unit right?"),
        (ber::octets(b"n/a?"), FailureKind::Unusable, "no number that a meter gives"),
        (ber::octets(b"\x1b[2J\xff"), FailureKind::Unusable, "no number that a meter gives"),
        (ber::wrap(0x40, &[vec![1, 2, 3, 4]]), FailureKind::Unusable, "no number that a meter gives"),
    ] {
        agent.set(power, value.clone());
        let failure = probe.ask().unwrap_err();
        assert!(failure.kind == kind && failure.why.contains(words), "{value:?}: {failure:?}");
    }
    agent.set(power, ber::octets(b" 83.5 "));
    assert_eq!(numbers(probe.ask()), (Some(83.5), Some(f64::from(u32::MAX))));
    // A Counter32 begins again after its last value.
    agent.set(energy, counter(999));
    assert_eq!(numbers(probe.ask()).1, Some(4_294_967_296.0 + 999.0));
    // It falls: the energy falls, and the meter makes a gap of it.
    agent.set(energy, counter(5));
    assert_eq!(numbers(probe.ask()).1, Some(5.0));

    let agent = Agent::start();
    let entity = |column: u8| format!("1.3.6.1.2.1.99.1.1.1.{column}.7");
    for (column, value) in [(1, 6), (2, 9), (3, 0), (4, 83), (5, 1)] {
        agent.set(&entity(column), gauge(value));
    }
    let mut probe = self::probe(&agent.address, "preset = \"entity-sensor\"\nsensor = 7");
    assert_eq!(numbers(probe.ask()), (Some(83.0), None));
    for (column, value, kind, words) in [
        (1, 8, FailureKind::Unusable, "is not in watts"),
        (5, 2, FailureKind::Absent, "its state"),
        (2, 99, FailureKind::Unusable, "a scale that no meter has"),
        (3, 4_000_000_000, FailureKind::Unusable, "a scale that no meter has"),
    ] {
        agent.set(&entity(column), gauge(value));
        let failure = probe.ask().unwrap_err();
        assert!(failure.kind == kind && failure.why.contains(words), "{column}: {failure:?}");
        let good = [(1, 6), (2, 9), (3, 0), (4, 83), (5, 1)];
        good.iter().for_each(|(column, value)| agent.set(&entity(*column), gauge(*value)));
        assert_eq!(numbers(probe.ask()), (Some(83.0), None));
    }
}
