use super::*;
use proptest::prelude::*;

fn answer(current: u16, state: u8) -> Vec<u8> {
    let mut data = vec![0xDC];
    for watts in [current, 90, 410, 200] {
        data.extend(watts.to_le_bytes());
    }
    data.extend(1_700_000_000_u32.to_le_bytes());
    data.extend(60_000_u32.to_le_bytes());
    data.push(state);
    data
}

#[test]
fn a_power_reading_is_its_current_watts() {
    let reading = PowerReading::parse(&answer(137, 0x40)).unwrap();
    assert_eq!(reading.power(), Ok(Microwatts(137_000_000)));
    assert_eq!(
        (reading.range, reading.clock, reading.statistics),
        ((90, 410, 200), 1_700_000_000, Nanos(60_000_000_000))
    );
    // Watts above 255 use both bytes.
    assert_eq!(PowerReading::parse(&answer(0x0203, 0xFF)).unwrap().power(), Ok(Microwatts(515_000_000)));
    assert_eq!(
        (get_power_reading().net_fn, get_power_reading().command, get_power_reading().data),
        (0x2C, 2, vec![0xDC, 1, 0, 0])
    );
}

#[test]
fn what_is_no_reading_is_no_power() {
    for (current, state, words) in [
        (137, 0x00, "not active"),
        (137, 0xBF, "not active"),
        (0, 0x40, "0 W"),
        (0xFFFF, 0x40, "65535 W"),
        (0, 0, "not active"),
    ] {
        let why = PowerReading::parse(&answer(current, state)).unwrap().power().unwrap_err();
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn answers_that_are_short_long_or_foreign_say_so() {
    let good = answer(137, 0x40);
    for length in 1..good.len() {
        let why = PowerReading::parse(&good[..length]).unwrap_err();
        assert!(why.contains(&format!("{length} bytes, not 18")), "{why}");
    }
    assert!(PowerReading::parse(&[good.clone(), vec![0]].concat()).unwrap_err().contains("19 bytes, not 18"));
    assert!(PowerReading::parse(&[]).unwrap_err().contains("0 bytes: no DCMI answer"));
    let foreign = [&[0xDD], &good[1..]].concat();
    assert!(PowerReading::parse(&foreign).unwrap_err().contains("DD 89 00 5A"), "{:?}", PowerReading::parse(&foreign));
}

#[test]
fn capabilities_tell_of_power_management_by_one_bit() {
    assert_eq!(manages_power(&[0xDC, 1, 5, 2, 0, 1, 7]), Ok(true));
    assert_eq!(manages_power(&[0xDC, 1, 5, 2, 0xFF, 0xFE, 7]), Ok(false));
    for bad in [&[][..], &[0xDC], &[0xDC, 1, 5, 2, 0], &[0, 1, 5, 2, 0, 1, 7]] {
        assert!(manages_power(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_value_that_moves_is_taken_whatever_its_state_says() {
    let second = |seconds: u64| Nanos(seconds * Nanos::SECOND.0);
    let mut movement = Movement::default();
    let mut take = |watts: u16, state: u8, seconds: u64| {
        movement.power(&PowerReading::parse(&answer(watts, state)).unwrap(), second(seconds)).map(|power| power.watts())
    };
    assert!(take(137, 0, 0).unwrap_err().contains("not active"));
    assert!(take(137, 0, 10).is_err());
    assert!(take(0, 0, 20).is_err() && take(137, 0, 30).is_err(), "0 W is no value");
    assert!(take(0xFFFF, 0, 40).is_err() && take(137, 0, 50).is_err());
    assert_eq!(take(141, 0, 60), Ok(141.0));
    assert_eq!(take(141, 0, 600), Ok(141.0), "a steady load");
    assert!(take(0, 0, 610).unwrap_err().contains("0 W"));
    assert!(take(141, 0, 661).unwrap_err().contains("not active"), "it has stood still for too long");
    assert_eq!(take(140, 0, 670), Ok(140.0));
    assert_eq!(take(140, 0x40, 10_000), Ok(140.0), "active is active");
}

fn run(steps: &[(u32, u64)]) -> Result<(), String> {
    let mut timestamps = TimestampCheck::default();
    steps.iter().try_for_each(|(stamp, seconds)| timestamps.check(*stamp, Nanos(seconds * Nanos::SECOND.0)))
}

#[test]
fn a_time_stamp_that_went_and_stands_still_tells_an_old_reading() {
    let live = [(1000, 0), (1010, 10), (1020, 20), (1031, 30)];
    let still: Vec<_> = (4..=9).map(|n| (1031, n * 10)).collect();
    assert_eq!(run(&[&live[..], &still].concat()), Ok(()));
    let why = run(&[&live[..], &still, &[(1031, 100)]].concat()).unwrap_err();
    assert!(why.contains("more than 60 s"), "{why}");
    // It goes on: so does the reading.
    let mut timestamps = TimestampCheck::default();
    for (stamp, seconds) in [&live[..], &still, &[(1131, 130), (1141, 140)]].concat() {
        assert_eq!(timestamps.check(stamp, Nanos(seconds * Nanos::SECOND.0)), Ok(()));
    }
}

#[test]
fn time_stamps_that_never_went_as_time_does_mean_nothing() {
    let at_zero: Vec<_> = (0..1000).map(|n| (0, n * 10)).collect();
    assert_eq!(run(&at_zero), Ok(()));
    let hourly: Vec<_> = (0..1000).map(|n| (3600 * (n as u32 * 10 / 3600), n * 10)).collect();
    assert_eq!(run(&hourly), Ok(()));
    let all_ones: Vec<_> = (0..1000).map(|n| (u32::MAX, n * 10)).collect();
    assert_eq!(run(&all_ones), Ok(()));
    // A clock that is set, forth and back, and one that runs wild.
    assert_eq!(run(&[(1000, 0), (1010, 10), (1020, 20), (5, 30), (5, 40), (5, 200)]), Ok(()));
    let wild: Vec<_> = (0..100).map(|n| ((n as u32).wrapping_mul(2_654_435_761), n * 10)).collect();
    assert_eq!(run(&wild), Ok(()));
}

proptest! {
    #[test]
    fn any_bytes_are_a_reading_or_an_error(data in proptest::collection::vec(any::<u8>(), 0..40)) {
        let reading = PowerReading::parse(&data);
        prop_assert_eq!(reading.is_ok(), data.len() == 18 && data[0] == 0xDC);
        if let Ok(Ok(power)) = reading.map(|reading| reading.power()) {
            prop_assert!(power > Microwatts::ZERO && power < Microwatts(65_535_000_000));
        }
        let _ = manages_power(&data);
    }
}
