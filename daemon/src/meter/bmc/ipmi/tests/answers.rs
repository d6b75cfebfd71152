//! DCMI: a BMC that answers late, wrong, short, or with each completion code.

use super::*;

fn with(answer: Answer) -> (Fake, Opener) {
    let fake = fake();
    lock(&fake).capabilities = Some(capabilities(true));
    lock(&fake).power = Some(answer);
    let opener = on(&fake, false);
    (fake, opener)
}

#[test]
fn a_bmc_that_answers_gives_the_machines_power() {
    let (fake, mut opener) = with(power(137));
    let mut meter = opener().unwrap().unwrap();
    let domain = &meter.domains()[0];
    assert_eq!(
        (domain.id.as_str(), domain.zone, domain.scope, domain.billed),
        ("ipmi/platform", Zone::Platform, Scope::Machine, false)
    );
    let (before, mut out) = (Stamp::now().monotonic, Vec::new());
    meter.read(Stamp::now(), &mut out);
    assert!(out[0].at >= before && out[0].at <= Stamp::now().monotonic);
    assert_eq!(out[0].reading, Ok(Reading::Gauge { power: Microwatts(137_000_000) }));
    assert_eq!((meter.health(), meter.detail().as_str()), (Health::Healthy, "DCMI power reading of /dev/ipmi9"));
    // After the first time, one question a reading.
    drop(meter);
    lock(&fake).asked.clear();
    assert_eq!(read(&mut opener).0, watts(137));
    assert_eq!(lock(&fake).asked, [(0x2C, 2)]);
    assert_eq!(lock(&fake).connected, 1);
}

#[test]
fn power_measurement_that_is_switched_off_gives_no_number() {
    let mut inactive = power(137).unwrap();
    inactive[17] = 0;
    let (fake, mut opener) = with(Ok(inactive));
    let (readings, health, _) = read(&mut opener);
    assert!(readings[0].is_err());
    assert!(
        matches!(&health, Health::Degraded(why) if why.starts_with("/dev/ipmi9: power measurement is not active")),
        "{health:?}"
    );
    // It goes on by itself, and nobody logged in anew for it.
    lock(&fake).power = Some(power(140));
    assert_eq!(read(&mut opener).0, watts(140));
    assert_eq!(lock(&fake).connected, 1);
}

#[test]
fn zero_watts_are_no_reading() {
    let (_, mut opener) = with(power(0));
    let (readings, health, _) = read(&mut opener);
    assert!(readings[0].is_err() && health.why().contains("0 W, which is no reading"), "{health:?}");
}

#[test]
fn short_and_long_answers_are_errors_with_their_length() {
    for length in [0, 1, 2, 17, 19, 200] {
        let mut data = power(137).unwrap();
        data.resize(length, 0);
        let (_, mut opener) = with(Ok(data));
        let (readings, health, _) = read(&mut opener);
        assert!(readings[0].is_err(), "{length}");
        let expected = format!("is {length} bytes");
        assert!(
            matches!(&health, Health::Failed(why) if why.contains("wrong answer") && why.contains(&expected)),
            "{health:?}"
        );
    }
}

#[test]
fn an_answer_of_another_group_is_an_error() {
    let mut data = power(137).unwrap();
    data[0] = 0x52;
    let (_, mut opener) = with(Ok(data));
    assert!(read(&mut opener).1.why().contains("no DCMI answer"));
}

#[test]
fn each_completion_code_gives_no_number_and_a_word() {
    for code in 1..=0xFF_u8 {
        let (fake, mut opener) = with(power(100));
        assert_eq!(read(&mut opener).0, watts(100));
        lock(&fake).power = Some(Err(LinkError::Refused(code)));
        let (readings, health, _) = read(&mut opener);
        assert!(readings.len() == 1 && readings[0].is_err(), "{code:02X}");
        assert!(health.why().contains(&format!("{code:02X}h")), "{health:?}");
        let passing = [0x80, 0xC0, 0xC3, 0xC4, 0xC5, 0xCE, 0xCF, 0xD0, 0xD1, 0xD2, 0xD5].contains(&code);
        assert_eq!(health.as_str(), if passing { "degraded" } else { "failed" }, "{code:02X}");
        lock(&fake).power = Some(power(101));
        assert_eq!((read(&mut opener).0, lock(&fake).connected), (watts(101), 1));
    }
}

#[test]
fn a_busy_bmc_is_asked_once_more_and_then_left_until_later() {
    let (fake, mut opener) = with(power(100));
    read(&mut opener);
    lock(&fake).asked.clear();
    lock(&fake).power = Some(Err(LinkError::Refused(0xC0)));
    let health = read(&mut opener).1;
    assert!(matches!(&health, Health::Degraded(why) if why.contains("busy")), "{health:?}");
    assert_eq!(lock(&fake).asked.len(), 2);
}

#[test]
fn a_session_without_the_privilege_says_what_to_configure() {
    let (fake, _) = with(Err(LinkError::Refused(0xD4)));
    let (readings, health, _) = read(&mut on(&fake, true));
    assert!(readings[0].is_err());
    assert!(
        matches!(&health, Health::Failed(why) if why.contains("privilege (D4h)") && why.contains("[[meter.ipmi.lan]]")),
        "{health:?}"
    );
    assert!(!read(&mut on(&fake, false)).1.why().contains("lan"));
}

#[test]
fn a_bmc_that_is_silent_is_connected_to_anew() {
    let (fake, mut opener) = with(power(100));
    read(&mut opener);
    lock(&fake).power = Some(Err(LinkError::Silent(Duration::from_secs(5))));
    let (readings, health, _) = read(&mut opener);
    assert!(readings[0].is_err());
    assert!(
        matches!(&health, Health::Failed(why) if why == "/dev/ipmi9: the BMC gives no answer within 5s"),
        "{health:?}"
    );
    // It may be another one by then, so that everything is asked again.
    lock(&fake).power = Some(power(90));
    assert_eq!((read(&mut opener).0, lock(&fake).connected), (watts(90), 2));
}

#[test]
fn a_bmc_that_is_silent_from_the_beginning_is_a_failure() {
    let (fake, mut opener) = with(power(100));
    lock(&fake).capabilities = Some(Err(LinkError::Silent(Duration::from_secs(5))));
    assert_eq!(opener().err().as_deref(), Some("/dev/ipmi9: the BMC gives no answer within 5s"));
    lock(&fake).capabilities = Some(Ok(vec![0xDC]));
    assert!(opener().err().unwrap().contains("its DCMI capabilities are 1 bytes"));
    lock(&fake).capabilities = Some(capabilities(true));
    assert_eq!(read(&mut opener).0, watts(100));
}

#[test]
fn a_device_that_is_not_there_is_looked_for_again_and_one_that_may_not_be_opened_says_what_it_needs() {
    let (fake, mut opener) = with(power(100));
    lock(&fake).present = false;
    assert!(opener().unwrap().is_none());
    lock(&fake).refuses = Some("Permission denied".into());
    assert!(opener().is_err());
    lock(&fake).present = true;
    lock(&fake).refuses = None;
    assert_eq!(read(&mut opener).0, watts(100));

    assert!(open_device(Path::new("/nonexistent/ipmi0")).unwrap().is_none());
    // A file that is no device of the driver.
    let file = tempfile::NamedTempFile::new().unwrap();
    let connect: Connect = {
        let path = file.path().to_path_buf();
        Box::new(move || open_device(&path))
    };
    let why = Bmc::new(connect, false).ready().unwrap_err();
    assert!(why.contains("cannot be asked: ") && why.contains("ioctl"), "{why}");
}

#[test]
fn capabilities_that_are_refused_do_not_hide_a_reading() {
    for refusal in [0xC1, 0xC9, 0xFF] {
        let (fake, mut opener) = with(power(100));
        lock(&fake).capabilities = Some(Err(LinkError::Refused(refusal)));
        assert_eq!(read(&mut opener).0, watts(100));
    }
}
