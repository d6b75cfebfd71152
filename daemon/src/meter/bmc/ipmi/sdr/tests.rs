use super::*;
use crate::meter::bmc::ipmi::tests::{Record, record};
use proptest::prelude::*;

fn sensor(name: &str) -> Sensor {
    Sensor::parse(&record(name, Record::default())).unwrap()
}

const READING: [u8; 3] = [50, 0xC0, 0xC0];

#[test]
fn a_linear_reading_is_converted_with_signs_and_exponents() {
    for (record_of, raw, watts) in [
        (Record { m: 4, ..Record::default() }, 50, 200.0),
        (Record { m: 4, b: 3, ..Record::default() }, 50, 203.0),
        (Record { m: 2, b: -5, b_exponent: 1, ..Record::default() }, 50, 50.0),
        (Record { m: 25, exponent: -1, ..Record::default() }, 200, 500.0),
        (Record { m: 5, exponent: 1, ..Record::default() }, 200, 10_000.0),
        // Ten bits: 511 and −512 are the ends.
        (Record { m: 511, ..Record::default() }, 2, 1022.0),
        (Record { m: -512, ..Record::default() }, 0, 0.0),
        // Two's and one's complement: FFh is −1, and −0.
        (Record { m: -1, units: 0x80, ..Record::default() }, 0xFF, 1.0),
        (Record { m: -1, units: 0x40, ..Record::default() }, 0xFE, 1.0),
        (Record { m: 3, b: 7, units: 0x40, ..Record::default() }, 0xFF, 7.0),
    ] {
        let sensor = Sensor::parse(&record("x", record_of)).unwrap();
        let power = sensor.power(&[raw, 0xC0, 0]);
        assert_eq!(power, Ok(Microwatts((watts * 1e6) as u64)), "{record_of:?}");
    }
    let sensor = Sensor::parse(&record("x", Record { m: 16, exponent: -1, ..Record::default() })).unwrap();
    assert_eq!(sensor.step(), Microwatts(1_600_000));
}

#[test]
fn a_reading_that_is_unavailable_negative_or_short_is_none() {
    let sensor = sensor("Pwr Consumption");
    for (data, words) in
        [(&[50, 0xE0, 0][..], "unavailable"), (&[50, 0x80, 0], "scanning is off"), (&[50], "1 bytes"), (&[], "0 bytes")]
    {
        let why = sensor.power(data).unwrap_err();
        assert!(why.starts_with("Pwr Consumption: ") && why.contains(words), "{why}");
    }
    assert_eq!(sensor.power(&READING), Ok(Microwatts(200_000_000)));
    let below = Sensor::parse(&record("x", Record { m: 1, b: -60, ..Record::default() })).unwrap();
    assert!(below.power(&READING).unwrap_err().contains("-10 W"));
}

#[test]
fn records_of_other_units_scales_and_owners_are_not_sensors_in_watts() {
    for other in [
        Record { unit: 4, ..Record::default() },
        Record { units: 0x01, ..Record::default() },
        Record { units: 0x08, ..Record::default() },
        Record { units: 0x02, ..Record::default() },
        Record { units: 0xC0, ..Record::default() },
        Record { linearization: 1, ..Record::default() },
        Record { kind: 2, ..Record::default() },
        Record { owner: 0x2C, ..Record::default() },
        Record { m: 0, ..Record::default() },
    ] {
        assert_eq!(Sensor::parse(&record("Pwr Consumption", other)), None, "{other:?}");
    }
}

#[test]
fn names_come_in_every_coding_and_are_shown_escaped() {
    let named = |kind: u8, bytes: &[u8]| {
        let mut whole = record("", Record::default());
        whole.truncate(47);
        whole.push(kind);
        whole.extend(bytes);
        Sensor::parse(&whole).unwrap().name
    };
    assert_eq!(named(0xC3, b"PSU"), "PSU");
    // 6-bit: "PS1".
    let packed = (0x30_u32 | 0x33 << 6 | 0x11 << 12).to_le_bytes();
    assert_eq!(named(0x83, &packed[..3]), "PS1 ");
    assert_eq!(named(0x42, &[0x12, 0xA3]), "12 3");
    assert_eq!(named(0xDF, b"short"), "short");
    assert_eq!(named(0x00, b""), "");
    let hostile = sensor("\u{1b}[31m\n{}\"x\u{7}");
    assert!(hostile.shown().chars().all(|c| c.is_ascii_graphic() || c == ' '), "{}", hostile.shown());
    assert!(!hostile.shown().contains('\n') && hostile.shown().contains("\\n"));
}

#[test]
fn one_sensor_of_the_whole_machine_comes_before_the_supplies_inputs() {
    let pick = |names: &[&str]| {
        let sensors: Vec<Sensor> = names.iter().map(|name| sensor(name)).collect();
        choose(&sensors).map(|choice| match choice {
            Choice::Whole(sensor) => sensor.name,
            Choice::Inputs(sensors) => sensors.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join("+"),
        })
    };
    let is = |names: &[&str], expected: &str| assert_eq!(pick(names).as_deref(), Some(expected), "{names:?}");
    is(&["CPU1 Power", "Pwr Consumption", "PS1 Input Power"], "Pwr Consumption");
    is(&["Power Meter"], "Power Meter");
    is(&["Total_Power"], "Total_Power");
    is(&["Total Power", "Sys Power"], "Sys Power");
    is(
        &["PS1 Input Power", "PS1 Output Power", "PS2 Input Power", "PS2 Output Power"],
        "PS1 Input Power+PS2 Input Power",
    );
    is(&["PSU1_PIN", "PSU1_POUT", "PSU2_PIN"], "PSU1_PIN+PSU2_PIN");
    is(&["PS1 Input Power", "PS1 Power In"], "PS1 Input Power");
    is(&["PSU 1 Power In W", "PSU 2 Power In"], "PSU 2 Power In");
    // What does not say that it is the whole, or an input, is not taken for it.
    for other in [
        &["CPU Power"][..],
        &["PS1 Output Power", "PS2 Output Power"],
        &["Power Supply 1"],
        &["PS Input Power"],
        &["Power Cap", "Memory Power", "GPU Total Power", "Total Power Limit"],
        &[],
    ] {
        assert_eq!(pick(other), None, "{other:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_sensor_or_none(data in proptest::collection::vec(any::<u8>(), 0..80), answer in proptest::collection::vec(any::<u8>(), 0..5)) {
        let mut forced = data.clone();
        if forced.len() > 23 {
            (forced[3], forced[5], forced[20], forced[21], forced[23]) = (1, 0x20, forced[20] & 0xC0, 6, 0);
        }
        for record in [data, forced] {
            if let Some(sensor) = Sensor::parse(&record) {
                if let Ok(power) = sensor.power(&answer) {
                    prop_assert!(power.watts() <= 1e6);
                }
                prop_assert!(sensor.shown().chars().count() <= 32);
            }
        }
    }
}
