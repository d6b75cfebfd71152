//! Messages of Tasmota, Zigbee2MQTT and others through Debian's own mosquitto, where it is installed: logins, TLS, a
//! broker that goes away, retained messages, garbage. And brokers that are none.

use super::super::FailureKind;
use super::super::entries::until;
use super::packet::{Decoder, Packet, connect, publish};
use super::*;
use crate::meter::open::Section as _;
use crate::meter::real_programs::{Running, find, free_port};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

const PASSWORD: &str = "Sw0rdf!sh-7c41e";
const TASMOTA: &str = "tele/plug/SENSOR";

fn probe(port: u16, lines: &str) -> MqttProbe {
    let broker =
        if lines.contains("broker") { String::new() } else { format!("broker = \"mqtt://127.0.0.1:{port}\"\n") };
    MqttConfig::one(&format!("name = \"plug\"\n{broker}timeout = \"2s\"\n{lines}"))
        .probe(CancellationToken::new())
        .unwrap()
}

fn tasmota(port: u16, more: &str) -> MqttProbe {
    probe(port, &format!("topic = \"{TASMOTA}\"\npower = \"/ENERGY/Power\"\nenergy = \"/ENERGY/Total\"\n{more}"))
}

/// Watts, and joules of the counter.
fn numbers(answer: &Answer) -> (Option<f64>, Option<f64>) {
    (answer.power.map(|power| power.value.watts()), answer.energy.map(|energy| energy.value.energy.joules()))
}

/// mosquitto on a port of its own.
struct Mosquitto {
    dir: tempfile::TempDir,
    program: PathBuf,
    port: u16,
    running: Option<Running>,
}

impl Mosquitto {
    /// With these lines in its configuration.
    fn start(lines: &str) -> Option<Self> {
        let program = find("mosquitto")?;
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let text = format!(
            "listener {port} 127.0.0.1\npersistence false\n{}",
            lines.replace("DIR", dir.path().to_str().unwrap())
        );
        fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
        // As it writes them itself: PBKDF2 with SHA-512.
        let (salt, mut hash) = ([7; 12], [0; 64]);
        let rounds = std::num::NonZeroU32::new(101).unwrap();
        ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA512, rounds, &salt, PASSWORD.as_bytes(), &mut hash);
        fs::write(
            dir.path().join("users"),
            format!("jouled:$7$101${}${}\n", STANDARD.encode(salt), STANDARD.encode(hash)),
        )
        .unwrap();
        fs::write(dir.path().join("password"), PASSWORD).unwrap();
        fs::write(dir.path().join("wrong"), "another").unwrap();
        let mut mosquitto = Self { dir, program, port, running: None };
        mosquitto.run();
        Some(mosquitto)
    }

    fn run(&mut self) {
        self.running = None;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.dir.path().join("mosquitto.conf"));
        self.running = Some(Running::start(&mut command));
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Publishes over a connection of its own, as soon as the broker is there.
    fn publish(&self, topic: &str, payload: &str, retained: bool) {
        let begin = std::time::Instant::now();
        loop {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                stream.write_all(&connect("test", 60, None)).unwrap();
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer, [0x20, 2, 0, 0]);
                stream.write_all(&publish(topic, payload.as_bytes(), retained)).unwrap();
                return stream.write_all(&[0xe0, 0]).unwrap();
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "no broker");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Publishes again and again until a message arrived, and returns what the probe made of it.
    fn through(&self, probe: &mut MqttProbe, topic: &str, payload: &str) -> Result<Answer, Failure> {
        let begin = std::time::Instant::now();
        loop {
            self.publish(topic, payload, false);
            std::thread::sleep(Duration::from_millis(100));
            let answer = probe.ask();
            // Before the subscription nothing arrives.
            let is_early = matches!(&answer, Ok(answer) if answer.power.is_none() && answer.energy.is_none())
                || matches!(&answer, Err(failure) if failure.why.contains("connection"));
            if !is_early {
                return answer;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{answer:?}");
        }
    }
}

#[test]
fn messages_of_makers_through_a_real_mosquitto() {
    let Some(mosquitto) = Mosquitto::start("allow_anonymous true\n") else { return };
    let sensor = r#"{"Time":"2026-11-28T21:00:00","ENERGY":{"Total":0.123,"Today":0.1,"Power":41,"Voltage":230}}"#;
    let mut probe = tasmota(mosquitto.port, "");
    let answer = mosquitto.through(&mut probe, TASMOTA, sensor).unwrap();
    assert_eq!(numbers(&answer), (Some(41.0), Some(442_800.0)));
    let age = i128::from(Stamp::now().realtime.0) - answer.power.unwrap().time.unwrap();
    assert!((0..60_000_000_000).contains(&age), "{age}");
    assert!(probe.describe().contains("topic tele/plug/SENSOR"), "{}", probe.describe());

    let zigbee = r#"{"current":0.4,"energy":12.34,"linkquality":105,"power":83.5,"state":"ON","voltage":230}"#;
    let mut probe =
        self::probe(mosquitto.port, "topic = \"zigbee2mqtt/plug\"\npower = \"/power\"\nenergy = \"/energy\"");
    let answer = mosquitto.through(&mut probe, "zigbee2mqtt/plug", zigbee).unwrap();
    assert_eq!(numbers(&answer), (Some(83.5), Some(44_424_000.0)));
    // ESPHome and the first generation of Shelly publish a number alone.
    let mut probe = self::probe(mosquitto.port, "topic = \"shellies/plug/relay/0/power\"\npower = \"\"");
    let answer = mosquitto.through(&mut probe, "shellies/plug/relay/0/power", "61.25").unwrap();
    assert_eq!(numbers(&answer), (Some(61.25), None));

    let mut probe = tasmota(mosquitto.port, "");
    for (payload, kind, words) in [
        ("<html>", FailureKind::Unusable, "is no JSON"),
        ("{}", FailureKind::Absent, "no value now"),
        (r#"{"ENERGY":{"Power":"x","Total":1}}"#, FailureKind::Unusable, "no number that a meter gives"),
        (r#"{"ENERGY":{"Power":-5,"Total":1}}"#, FailureKind::Unusable, "negative"),
        (r#"{"ENERGY":{"Power":5000000,"Total":1}}"#, FailureKind::Unusable, "is the unit right?"),
    ] {
        let failure = mosquitto.through(&mut probe, TASMOTA, payload).unwrap_err();
        assert!(failure.kind == kind && failure.why.contains(words), "{payload}: {failure:?}");
    }
    let huge = format!("\"{}\"", "9".repeat(300 << 10));
    mosquitto.publish(TASMOTA, &huge, false);
    let failure = until("the huge message", &mut probe, |answer| answer.is_err()).unwrap_err();
    assert!(failure.why.contains("longer than 262144 bytes"), "{failure:?}");
    until("another connection", &mut probe, Result::is_ok).unwrap();
    let answer = mosquitto.through(&mut probe, TASMOTA, sensor);
    assert_eq!(numbers(&answer.unwrap()), (Some(41.0), Some(442_800.0)), "after it connected again");
}

#[test]
fn a_retained_message_is_no_reading_and_a_broker_comes_back() {
    let Some(mut mosquitto) = Mosquitto::start("allow_anonymous true\n") else { return };
    let sensor = r#"{"ENERGY":{"Total":0.123,"Power":41}}"#;
    mosquitto.publish(TASMOTA, sensor, true);
    let mut probe = tasmota(mosquitto.port, "");
    let retained = |probe: &MqttProbe| lock(&probe.link.inbox).retained;
    until("the retained message", &mut probe, |_| true).ok();
    let begin = std::time::Instant::now();
    while !retained(&probe) {
        assert!(begin.elapsed() < Duration::from_secs(60), "the retained message does not arrive");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(numbers(&probe.ask().unwrap()), (None, None));
    // As if a minute had passed.
    lock(&probe.link.inbox).heard = Some(Nanos(1));
    let failure = probe.ask().unwrap_err();
    assert!(failure.kind == FailureKind::Absent && failure.why.contains("only a retained message"), "{failure:?}");
    assert_eq!(numbers(&mosquitto.through(&mut probe, TASMOTA, sensor).unwrap()).0, Some(41.0));
    lock(&probe.link.inbox).heard = Some(Nanos(1));
    assert!(probe.ask().unwrap_err().why.contains("no message comes any more"));

    mosquitto.running = None;
    let failure = until("the end of the broker", &mut probe, |answer| answer.is_err()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Absent, "it connects by itself: {failure:?}");
    mosquitto.run();
    assert_eq!(numbers(&mosquitto.through(&mut probe, TASMOTA, sensor).unwrap()).0, Some(41.0));
}

#[test]
fn logins_and_certificates_of_a_real_mosquitto() {
    let users = "allow_anonymous false\npassword_file DIR/users\n";
    let Some(plain) = Mosquitto::start(users) else { return };
    let login = |name: &str, file: &str| format!("username = \"{name}\"\npassword_file = \"{file}\"\ntls = \"none\"\n");
    let is_welcome = |probe: &mut MqttProbe| {
        until("the broker", probe, |answer| {
            answer.as_ref().is_ok_and(|_| true)
                || answer.as_ref().is_err_and(|failure| failure.kind == FailureKind::Login)
        })
    };
    is_welcome(&mut tasmota(plain.port, &login("jouled", &plain.file("password")))).unwrap();
    let mut wrong = tasmota(plain.port, &login("jouled", &plain.file("wrong")));
    let failure = is_welcome(&mut wrong).unwrap_err();
    assert!(failure.why.contains("wrong user or password") && !failure.why.contains("another"), "{failure:?}");
    assert!(!wrong.has_new_secret());
    fs::write(plain.file("wrong"), PASSWORD).unwrap();
    assert!(wrong.has_new_secret());
    is_welcome(&mut wrong).unwrap();
    let failure = is_welcome(&mut tasmota(plain.port, "")).unwrap_err();
    assert!(failure.why.contains("it wants a login"), "{failure:?}");

    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    fs::write(file("cert.pem"), certificate.cert.pem()).unwrap();
    fs::write(file("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    let encrypted =
        Mosquitto::start(&format!("{users}certfile {}\nkeyfile {}\n", file("cert.pem"), file("key.pem"))).unwrap();
    let over_tls = |more: &str| {
        let login = login("jouled", &encrypted.file("password")).replace("tls = \"none\"\n", "");
        tasmota(encrypted.port, &format!("broker = \"mqtts://localhost:{}\"\n{login}{more}", encrypted.port))
    };
    is_welcome(&mut over_tls(&format!("ca_file = \"{}\"\n", file("cert.pem")))).unwrap();
    is_welcome(&mut over_tls("tls = \"insecure\"\n")).unwrap();
    let mut stranger = over_tls("");
    let failure = until("a refusal", &mut stranger, |answer| {
        answer.as_ref().is_err_and(|failure| failure.why.contains("certificate"))
    });
    assert!(failure.unwrap_err().kind != FailureKind::Login);
}

#[test]
fn what_is_no_broker_is_said() {
    for (bytes, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "no MQTT broker"),
        (&[0x20, 0xff, 0xff, 0xff, 0xff, 0xff], "no MQTT broker"),
        (&[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0, 0x30, 0xff, 0xff, 0xff, 0x7f], "longer than 262144 bytes"),
        (&[0x20, 2, 0, 1], "does not speak MQTT 3.1.1"),
        (&[0x20, 2, 0, 3], "refuses the connection (CONNACK 3)"),
        (&[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0x80], "does not let this user read the topic"),
        (&[], "no answer within 2 s"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let _ = stream.write_all(bytes);
                    // Until the other side closes.
                    let _ = stream.read_to_end(&mut Vec::new());
                });
            }
        });
        let mut probe = tasmota(port, "");
        let failure = until(words, &mut probe, |answer| {
            answer.as_ref().is_err_and(|failure| !failure.why.contains("no connection yet"))
        });
        let why = failure.unwrap_err().why;
        assert!(why.contains(words) && why.starts_with("mqtt://127.0.0.1:"), "{bytes:?}: {why}");
    }
    let mut nobody = tasmota(free_port(), "");
    let failure = until("nobody", &mut nobody, |answer| {
        answer.as_ref().is_err_and(|failure| failure.why.contains("no TCP connection"))
    });
    assert_eq!(failure.unwrap_err().kind, FailureKind::Absent);
}

proptest! {
    #[test]
    fn any_bytes_are_packets_or_refused(parts: Vec<Vec<u8>>, payload: Vec<u8>, retained: bool) {
        let mut decoder = Decoder::default();
        for part in &parts {
            decoder.add(part);
            while let Ok(Some(_)) = decoder.next() {}
        }
        let mut decoder = Decoder::default();
        for byte in publish("a/b", &payload, retained) {
            prop_assert_eq!(decoder.next(), Ok(None));
            decoder.add(&[byte]);
        }
        prop_assert_eq!(decoder.next(), Ok(Some(Packet::Message { payload, retained })));
        prop_assert_eq!(decoder.next(), Ok(None));
    }
}

#[test]
fn each_wrong_value_names_its_key() {
    let good = MqttMeter {
        name: "a".into(),
        broker: "mqtt://broker.example".into(),
        topic: "a/b".into(),
        power: Some("/p".into()),
        ..MqttMeter::default()
    };
    let wrong = |change: &dyn Fn(&mut MqttMeter)| MqttConfig::wrong_keys(&good, change);
    assert_eq!(wrong(&|_| {}), [""; 0]);
    type Change = fn(&mut MqttMeter);
    let cases: &[(&str, Change)] = &[
        ("broker", |meter| meter.broker = String::new()),
        ("broker", |meter| meter.broker = "http://broker.example".into()),
        ("broker", |meter| meter.broker = "mqtt://user:password@broker.example".into()),
        ("broker", |meter| (meter.username, meter.password_file) = ("x".into(), Some("/p".into()))),
        ("tls", |meter| (meter.broker, meter.tls) = ("mqtts://broker.example".into(), Tls::None)),
        ("topic", |meter| meter.topic = String::new()),
        ("topic", |meter| meter.topic = "tele/#".into()),
        ("power", |meter| meter.power = None),
        ("power", |meter| meter.power = Some("p".into())),
        ("time", |meter| meter.time = Some(String::new())),
        ("username", |meter| (meter.password_file, meter.tls) = (Some("/p".into()), Tls::None)),
        ("password_file", |meter| meter.username = "x".into()),
        ("ca_file", |meter| meter.ca_file = Some("ca.pem".into())),
    ];
    for (key, change) in cases {
        assert_eq!(wrong(change), [*key]);
    }
    let two = Entries(vec![good.clone(), good]).check();
    assert_eq!(two[0].0, "1.name");
}
