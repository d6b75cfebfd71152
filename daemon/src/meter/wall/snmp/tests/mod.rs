//! SNMP: bytes, version 3, presets and faults, against a simulated agent (`agent`), and against Debian's own snmpd
//! where it is installed (`real`).

mod agent;
mod faults;
mod real;

use super::ber::{Pdu, REPORT, RESPONSE};
use super::usm::{Engine, Refusal};
use super::*;
use crate::meter::wall::FailureKind;
use proptest::prelude::*;

/// The password of every user of these tests.
const PASSWORD: &str = "Sw0rdf!sh-7c41e";

fn entry(address: &str, lines: &str) -> SnmpMeter {
    SnmpConfig::one(&format!("name = \"pdu\"\naddress = \"{address}\"\ntimeout = \"1s\"\n{lines}"))
}

fn probe(address: &str, lines: &str) -> SnmpProbe {
    entry(address, lines).probe(CancellationToken::new()).unwrap()
}

/// Watts, and joules of the counter.
fn numbers(answer: Result<Answer, Failure>) -> (Option<f64>, Option<f64>) {
    let answer = answer.unwrap();
    (answer.power.map(|power| power.value.watts()), answer.energy.map(|energy| energy.value.energy.joules()))
}

#[test]
fn oids_and_numbers_as_bytes() {
    let bytes = |text: &str| ber::get(1, &[Oid::parse(text).unwrap()]);
    // 1.3.6.1.4.1.318: 318 is 0x82 0x3e.
    let found = bytes(".1.3.6.1.4.1.318");
    assert!(found.windows(9).any(|part| part == [0x06, 0x07, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x3e]), "{found:x?}");
    assert_eq!(bytes("1.3.6"), bytes(".1.3.6"));
    for wrong in ["", "1", "3.1", "1.40", "1..3", "1.3.x", "1.3.-1", "1.3.+1", "1.3.99999999999", "1.3."] {
        assert_eq!(Oid::parse(wrong), None, "{wrong}");
    }
    for (value, wanted) in [
        (0, vec![2, 1, 0]),
        (127, vec![2, 1, 127]),
        (128, vec![2, 2, 0, 128]),
        (-1, vec![2, 1, 0xff]),
        (-129, vec![2, 2, 0xff, 0x7f]),
        (i64::MAX, vec![2, 8, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ] {
        assert_eq!(ber::integer(value), wanted);
        assert_eq!(ber::Reader(&wanted).integer(), Some(value));
    }
    let long = ber::octets(&[7; 300]);
    assert_eq!((&long[..4], ber::Reader(&long).expect(ber::OCTETS)), (&[4, 0x82, 1, 44][..], Some(&[7; 300][..])));
}

fn user(auth: Auth, privacy: Option<Privacy>) -> User {
    let password = PASSWORD.as_bytes().to_vec();
    User { name: "jouled".into(), auth, password: password.clone(), privacy: privacy.map(|one| (one, password)) }
}

fn engine(user: &User) -> Engine {
    let report = agent::Engine { boots: 7, time: 1000 }.report(user, 5, 4);
    usm::discovered(user, 5, &report).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

#[test]
fn what_is_sealed_is_opened_by_the_same_passwords_alone() {
    let auths = [Auth::Md5, Auth::Sha1, Auth::Sha256, Auth::Sha384, Auth::Sha512];
    for (auth, privacy) in auths
        .iter()
        .flat_map(|auth| [None, Some(Privacy::Aes128), Some(Privacy::Aes256)].map(|privacy| (*auth, privacy)))
    {
        if privacy.is_some_and(|privacy| !privacy.fits(auth)) {
            continue;
        }
        let user = user(auth, privacy);
        let mut engine = engine(&user);
        let pdu = agent::response(9, &[("1.3.6.1", agent::gauge(83))]);
        let bytes = usm::seal(&user, &engine, 9, [3; 8], &pdu).unwrap();
        let shown = bytes.windows(pdu.len()).any(|part| part == pdu);
        assert_eq!(shown, privacy.is_none(), "{auth:?} {privacy:?}: what is private cannot be read");
        let opened = usm::open(&user, &mut engine, 9, &bytes).unwrap();
        assert_eq!((opened.kind, opened.request, opened.values.len()), (RESPONSE, 9, 1));
        assert_eq!(usm::open(&user, &mut engine, 8, &bytes), Err(Refusal::Late));
        // Each bit counts.
        for at in [bytes.len() - 1, bytes.len() / 2] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(usm::open(&user, &mut engine, 9, &changed).is_err(), "{auth:?} {privacy:?} {at}");
        }
        let mut other = user.clone();
        other.password = b"another password".to_vec();
        let mut other_engine = self::engine(&other);
        assert_eq!(usm::open(&other, &mut other_engine, 9, &bytes), Err(Refusal::Forged), "{auth:?} {privacy:?}");
    }
}

/// The localized key of the standard's own example (RFC 3414, A.3): "maplesyrup" for the engine 00…02.
#[test]
fn keys_are_those_of_the_standard() {
    let engine = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&Auth::Md5.key(b"maplesyrup", &engine)), "526f5eed9fcce26f8964c2930787d82b");
    assert_eq!(hex(&Auth::Sha1.key(b"maplesyrup", &engine)), "6695febc9288e36282235fc7151f128497b38f3f");
    // RFC 2202 and RFC 4231: HMAC of "what do ya want for nothing?" with the key "Jefe".
    let text = b"what do ya want for nothing?";
    assert_eq!(hex(&Auth::Md5.sign(b"Jefe", text)), "750c783e6ab0b503eaa86e31");
    assert_eq!(hex(&Auth::Sha1.sign(b"Jefe", text)), "effcdf6ae5eb2fa2d27416d5");
    assert_eq!(hex(&Auth::Sha256.sign(b"Jefe", text)), "5bdcc146bf60754e6a042426089575c75a003f089d273983");
}

#[test]
fn any_bytes_are_read_or_refused() {
    let user = user(Auth::Sha1, Some(Privacy::Aes128));
    let engine = engine(&user);
    proptest!(|(bytes: Vec<u8>, at: usize, by: u8)| {
        let mut engine = engine.clone();
        let _ = usm::open(&user, &mut engine, 1, &bytes);
        let _ = usm::discovered(&user, 1, &bytes).is_ok();
        let _ = ber::Reader(&bytes).pdu();
        // A good message with one byte changed.
        let pdu = agent::response(9, &[("1.3.6.1", agent::gauge(83)), ("1.3.6.1.4.1.318", agent::gauge(1))]);
        let mut good = usm::seal(&user, &engine, 9, [3; 8], &pdu).unwrap();
        let at = at % good.len();
        good[at] = by;
        let _ = usm::open(&user, &mut engine, 9, &good);
        let mut plain = pdu;
        let at = at % plain.len();
        plain[at] = by;
        let _ = ber::Reader(&plain).pdu();
    });
}

#[test]
fn a_counter_of_32_bits_begins_again_or_was_reset() {
    let begin = Instant::now();
    let at = |seconds: u64| begin + Duration::from_secs(seconds);
    let joule = Microjoules(1_000_000);
    let mut wraps = Wraps::default();
    assert_eq!(wraps.take(COUNTER - 1000, joule, at(0)), 0);
    // 2 kJ in 5 s.
    assert_eq!(wraps.take(1000, joule, at(5)), COUNTER);
    assert_eq!(wraps.take(2000, joule, at(10)), COUNTER);
    // From 2 kJ, 4.3 GJ would be missing: no meter measures that in 5 s.
    assert_eq!(wraps.take(0, joule, at(15)), 0);
    // In Wh a counter near its end is reset more likely than it begins again, but cannot be told apart.
    let mut wraps = Wraps::default();
    wraps.take(COUNTER / 2, Microjoules(3_600_000_000), at(0));
    assert_eq!(wraps.take(5, Microjoules(3_600_000_000), at(3600)), 0);
}

#[test]
fn each_wrong_value_names_its_key() {
    let good =
        SnmpMeter { name: "a".into(), address: "192.0.2.40".into(), preset: Preset::Apc, ..SnmpMeter::default() };
    let wrong = |change: &dyn Fn(&mut SnmpMeter)| SnmpConfig::wrong_keys(&good, change);
    assert_eq!(wrong(&|_| {}), [""; 0]);
    type Change = fn(&mut SnmpMeter);
    let cases: &[(&str, Change)] = &[
        ("address", |meter| meter.address = "http://192.0.2.40".into()),
        ("preset", |meter| meter.preset = Preset::Oids),
        ("power", |meter| meter.power = Some("1.3.6".into())),
        ("energy", |meter| (meter.preset, meter.energy) = (Preset::Oids, Some("x".into()))),
        ("power_scale", |meter| meter.power_scale = 10.0),
        ("energy_scale", |meter| meter.energy_scale = f64::NAN),
        ("outlet", |meter| meter.outlet = Some(3)),
        ("sensor", |meter| meter.preset = Preset::EntitySensor),
        ("sensor", |meter| meter.sensor = 3),
        ("username", |meter| meter.username = "x".into()),
        ("privacy", |meter| meter.privacy = Some(Privacy::Aes128)),
        ("password_file", |meter| (meter.version, meter.username) = (Version::V3, "x".into())),
        ("username", |meter| (meter.version, meter.password_file) = (Version::V3, Some("/p".into()))),
        ("password_file", |meter| meter.password_file = Some("p".into())),
        ("privacy_credential", |meter| {
            (meter.version, meter.username, meter.password_file) = (Version::V3, "x".into(), Some("/p".into()));
            (meter.privacy, meter.privacy_password_file) = (Some(Privacy::Aes128), Some("/p".into()));
            meter.privacy_credential = Some("x".into());
        }),
        ("privacy", |meter| {
            (meter.version, meter.username, meter.password_file) = (Version::V3, "x".into(), Some("/p".into()));
            (meter.privacy, meter.privacy_password_file) = (Some(Privacy::Aes256), Some("/p".into()));
            meter.auth = Auth::Sha1;
        }),
    ];
    for (key, change) in cases {
        assert_eq!(wrong(change), [*key]);
    }
}

#[test]
fn a_report_is_believed_for_what_it_says() {
    let user = user(Auth::Sha256, None);
    for (number, refusal) in [
        (1, Refusal::Level),
        (3, Refusal::User),
        (4, Refusal::OtherEngine),
        (5, Refusal::Password),
        (6, Refusal::PrivacyPassword),
        // The clock of an agent is set by what is signed alone.
        (2, Refusal::Garbage),
    ] {
        let mut engine = engine(&user);
        let report = agent::Engine { boots: 9, time: 1 }.report(&user, 9, number);
        assert_eq!(usm::open(&user, &mut engine, 9, &report), Err(refusal), "{number}");
    }
    let report = Pdu { kind: REPORT, request: 0, status: 0, values: Vec::new() };
    assert!(!report.is_about("1.3.6.1.6.3.15.1.1.1.0"));
}
