//! Sensors in watts, where DCMI is missing.

use super::*;

fn available(raw: u8) -> Answer {
    Ok(vec![raw, 0xC0, 0])
}

fn with(sensors: &[(&str, Record)]) -> (Fake, Opener) {
    let fake = fake();
    lock(&fake).records = sensors.iter().map(|(name, of)| record(name, *of)).collect();
    let opener = on(&fake, false);
    (fake, opener)
}

fn numbered(number: u8) -> Record {
    Record { number, ..Record::default() }
}

#[test]
fn where_dcmi_is_missing_a_sensor_of_the_whole_machine_is_read() {
    for without in [None, Some(capabilities(false))] {
        let (fake, mut opener) = with(&[
            ("CPU Temp", Record { unit: 1, ..numbered(1) }),
            ("Pwr Consumption", numbered(7)),
            ("PS1 Input Power", numbered(8)),
        ]);
        lock(&fake).capabilities = without;
        lock(&fake).readings.insert(7, available(34));
        let (readings, health, detail) = read(&mut opener);
        assert_eq!((readings, health), (watts(136), Health::Healthy));
        assert_eq!(detail, "sensor Pwr Consumption, in steps of 4 W, of /dev/ipmi9");
        lock(&fake).asked.clear();
        read(&mut opener);
        assert_eq!(lock(&fake).asked, [(0x04, 0x2D)]);
    }
}

#[test]
fn inputs_of_supplies_are_added_up_and_outputs_never() {
    let (fake, mut opener) = with(&[
        ("PS1 Input Power", numbered(1)),
        ("PS1 Output Power", numbered(2)),
        ("PS2 Input Power", numbered(3)),
        ("PS2 Output Power", numbered(4)),
    ]);
    for (number, raw) in [(1, 30), (2, 28), (3, 20), (4, 18)] {
        lock(&fake).readings.insert(number, available(raw));
    }
    let (readings, health, detail) = read(&mut opener);
    assert_eq!((readings, health), (watts(200), Health::Healthy));
    assert!(detail.contains("PS1 Input Power + PS2 Input Power, in steps of 8 W"), "{detail}");
}

#[test]
fn an_empty_slot_is_left_out_and_a_supply_that_falls_silent_gives_no_sum() {
    let (fake, mut opener) = with(&[("PS1 Input Power", numbered(1)), ("PS2 Input Power", numbered(2))]);
    lock(&fake).readings.insert(1, available(30));
    lock(&fake).readings.insert(2, Ok(vec![0, 0xE0, 0]));
    let (readings, health, _) = read(&mut opener);
    assert_eq!(readings, watts(120));
    assert!(
        matches!(&health, Health::Degraded(why) if why.contains("PS2 Input Power") && why.contains("not in the sum")),
        "{health:?}"
    );
    // It is plugged in, and out again: half of the sum is never told as the whole.
    lock(&fake).readings.insert(2, available(10));
    assert_eq!(read(&mut opener).0, watts(160));
    lock(&fake).readings.insert(2, Ok(vec![0, 0xE0, 0]));
    assert!(read(&mut opener).0[0].as_ref().is_err_and(|why| why.contains("PS2 Input Power: no reading")));
    assert_eq!(read(&mut opener).0, watts(120));
    lock(&fake).readings.insert(1, Ok(vec![0, 0xE0, 0]));
    assert!(read(&mut opener).0[0].is_err());
    assert!(read(&mut opener).0[0].is_err(), "no supply at all is no sum of 0 W");
}

#[test]
fn a_reading_that_is_unavailable_gives_no_number() {
    for (answer, words) in [
        (Ok(vec![34, 0xE0, 0]), "unavailable"),
        (Ok(vec![34, 0x00, 0]), "scanning is off"),
        (Ok(vec![34]), "1 bytes"),
        (Ok(vec![0, 0xC0, 0]), "0 W"),
        (Err(LinkError::Refused(0xCB)), "no such sensor"),
        (Err(LinkError::Refused(0xCE)), "CEh"),
    ] {
        let (fake, mut opener) = with(&[("Pwr Consumption", numbered(7))]);
        lock(&fake).readings.insert(7, answer);
        let (readings, health, _) = read(&mut opener);
        assert!(readings[0].is_err() && health.why().contains(words), "{health:?}");
    }
}

#[test]
fn records_come_in_small_pieces_and_through_lost_reservations() {
    for (most, reserved_for) in [(255, None), (22, None), (16, None), (255, Some(1)), (16, Some(3))] {
        let short = vec![0, 0, 0x51, 0x12, 4, 1, 2, 3, 4];
        let (fake, mut opener) = with(&[]);
        {
            let mut state = lock(&fake);
            state.records = vec![short.clone(), record("Pwr Consumption", numbered(7)), short];
            (state.most, state.reserved_for) = (most, reserved_for);
            state.readings.insert(7, available(25));
        }
        assert_eq!(read(&mut opener).0, watts(100), "{most} {reserved_for:?}");
    }
}

#[test]
fn a_bmc_without_any_power_is_unsupported_and_not_searched_each_time() {
    let (fake, mut opener) = with(&[("CPU1 Power\u{1b}[2J", numbered(1))]);
    let (readings, health, _) = read(&mut opener);
    assert!(readings.is_empty());
    let why = health.why().to_owned();
    assert!(health.as_str() == "unsupported" && why.contains("CPU1 Power") && !why.contains('\u{1b}'), "{health:?}");
    lock(&fake).asked.clear();
    assert_eq!(read(&mut opener).1, health);
    assert_eq!(lock(&fake).asked, []);
    // One that was asked for by name has to have one.
    assert_eq!(read(&mut on(&fake, true)).1.as_str(), "failed");
    lock(&fake).records.clear();
    assert!(read(&mut on(&fake, false)).1.why().contains("its sensor records cannot be read"));
}

#[test]
fn records_that_go_round_in_a_circle_end() {
    struct Circle;
    impl Link for Circle {
        fn execute(&mut self, command: &Command) -> Answer {
            match (command.net_fn, command.command) {
                (0x0A, 0x22) => Ok(vec![1, 0]),
                (0x0A, 0x23) => {
                    let next = [2, 1][usize::from(command.data[2] > 1)];
                    let (from, count) = (usize::from(command.data[4]), usize::from(command.data[5]));
                    Ok([&[next, 0], &record("CPU Power", Record::default())[from..from + count]].concat())
                }
                _ => Err(LinkError::Refused(0xC1)),
            }
        }
    }
    let sensors = repository::sensors_in_watts(&mut Circle).unwrap();
    assert_eq!(sensors.len(), 3);
}

/// A BMC with a sensor of 136 W and a DCMI reading that may be good.
fn with_both(dcmi: Answer) -> (Fake, Opener) {
    let (fake, opener) = with(&[("Pwr Consumption", numbered(7)), ("PS1 Input Power", numbered(8))]);
    lock(&fake).capabilities = Some(capabilities(true));
    lock(&fake).power = Some(dcmi);
    lock(&fake).readings.insert(7, available(34));
    (fake, opener)
}

fn inactive(watts: u16) -> Answer {
    let mut data = power(watts).unwrap();
    data[17] = 0;
    Ok(data)
}

fn of_length(length: usize) -> Answer {
    let mut data = power(137).unwrap();
    data.resize(length, 0);
    Ok(data)
}

#[test]
fn where_dcmi_fails_for_good_a_sensor_is_read() {
    let refused = |code| Err(LinkError::Refused(code));
    for dcmi in [
        refused(0xC9),
        refused(0xD6),
        refused(0xD4),
        refused(0xCC),
        refused(0xFF),
        of_length(17),
        of_length(19),
        of_length(0),
        inactive(137),
        power(0),
        power(0xFFFF),
    ] {
        let (fake, mut opener) = with_both(dcmi.clone());
        let (readings, health, detail) = read(&mut opener);
        assert_eq!((readings, health), (watts(136), Health::Healthy), "{dcmi:?}");
        assert!(detail.starts_with("sensor Pwr Consumption") && detail.contains("DCMI power reading cannot be used"));
        // From then on the sensor alone.
        lock(&fake).asked.clear();
        assert_eq!(read(&mut opener).0, watts(136));
        assert_eq!(lock(&fake).asked, [(0x04, 0x2D)]);
    }
}

#[test]
fn a_dcmi_that_has_worked_is_waited_for_a_little() {
    for (code, rounds) in [(0xC9, 3), (0xD5, 6), (0x80, 6)] {
        let (fake, mut opener) = with_both(power(140));
        assert_eq!(read(&mut opener).0, watts(140));
        lock(&fake).power = Some(Err(LinkError::Refused(code)));
        for round in 1..rounds {
            assert!(read(&mut opener).0[0].is_err(), "{code:X}h, {round}");
        }
        assert_eq!(read(&mut opener).0, watts(136), "{code:X}h");
    }
    // A good reading in between starts the count again.
    let (fake, mut opener) = with_both(power(140));
    for _ in 0..5 {
        lock(&fake).power = Some(power(140));
        assert_eq!(read(&mut opener).0, watts(140));
        lock(&fake).power = Some(Err(LinkError::Refused(0xC9)));
        assert!(read(&mut opener).0[0].is_err());
        assert!(read(&mut opener).0[0].is_err());
    }
}

#[test]
fn without_a_sensor_the_reason_is_that_of_dcmi() {
    let (fake, mut opener) = with_both(Err(LinkError::Refused(0xD6)));
    lock(&fake).readings.clear();
    for _ in 0..3 {
        let (readings, health, _) = read(&mut opener);
        assert!(readings[0].is_err() && health.why().contains("D6h"), "{health:?}");
    }
    // The records are slow to read: not in each round.
    lock(&fake).asked.clear();
    read(&mut opener);
    assert_eq!(lock(&fake).asked, [(0x2C, 2)]);
}

#[test]
fn a_value_that_moves_is_taken_although_it_is_said_to_be_deactivated() {
    let (fake, mut opener) = with(&[]);
    lock(&fake).capabilities = Some(capabilities(true));
    for (dcmi, expected) in [(137, None), (137, None), (141, Some(141)), (141, Some(141)), (139, Some(139))] {
        lock(&fake).power = Some(inactive(dcmi));
        let (readings, health, _) = read(&mut opener);
        match expected {
            Some(expected) => assert_eq!((readings, health), (watts(expected), Health::Healthy)),
            None => assert!(readings[0].is_err() && health.why().contains("not active"), "{health:?}"),
        }
    }
}

#[test]
fn odd_capabilities_do_not_hide_a_sensor() {
    let (fake, mut opener) = with_both(power(140));
    lock(&fake).capabilities = Some(Ok(vec![0xDC]));
    assert_eq!(read(&mut opener).0, watts(136));
}
