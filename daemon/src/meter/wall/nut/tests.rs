//! Against a server that sends fixed lines, and against NUT's own upsd with dummy-ups where they are installed.

use super::super::FailureKind;
use super::super::entries::until;
use super::*;
use crate::meter::real_programs::{Running, find, free_port};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

fn probe(address: &str, variable: Option<&str>) -> NutProbe {
    let variable = variable.map(|variable| format!("variable = {variable:?}")).unwrap_or_default();
    let lines = format!("name = \"ups\"\naddress = {address:?}\nups = \"rack\"\ntimeout = \"1s\"\n{variable}");
    NutConfig::one(&lines).probe(CancellationToken::new()).unwrap()
}

/// A server that answers each line by a function; `None`: never.
fn server(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, answer) = (listener.local_addr().unwrap().to_string(), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                for line in lines.map_while(Result::ok) {
                    // Without an answer it waits for the next line, which never comes.
                    if let Some(bytes) = answer(line.trim())
                        && (&stream).write_all(&bytes).is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn the_first_variable_with_a_real_power_is_read() {
    let address = server(|line| {
        Some(match line {
            "GET VAR rack output.realpower" => b"VAR rack output.realpower \"123.5\"\n".to_vec(),
            "GET VAR rack outlet.1.realpower" => b"VAR rack outlet.1.realpower \"40\"\n".to_vec(),
            _ => b"ERR VAR-NOT-SUPPORTED\n".to_vec(),
        })
    });
    let mut any = probe(&address, None);
    assert_eq!(any.ask().unwrap().power.unwrap().value.watts(), 123.5);
    assert!(any.describe().contains("output.realpower of rack"), "{}", any.describe());
    assert_eq!(probe(&address, Some("outlet.1.realpower")).ask().unwrap().power.unwrap().value.watts(), 40.0);
    let why = probe(&address, Some("outlet.9.realpower")).ask().unwrap_err().why;
    assert!(why.contains("the UPS has no outlet.9.realpower"), "{why}");
}

#[test]
fn every_fault_is_said() {
    for (answer, kind, words) in [
        (Some("ERR VAR-NOT-SUPPORTED\n"), FailureKind::Unusable, "reports no real power"),
        (Some("ERR UNKNOWN-UPS\n"), FailureKind::Unusable, "knows no UPS rack"),
        (Some("ERR DATA-STALE\n"), FailureKind::Absent, "no fresh data"),
        (Some("ERR DRIVER-NOT-CONNECTED\n"), FailureKind::Absent, "does not run"),
        (Some("ERR ACCESS-DENIED\n"), FailureKind::Login, "denies access"),
        (Some("ERR SOMETHING\u{1b}[2J\n"), FailureKind::Unusable, "upsd answers ERR SOMETHING\\u{1b}"),
        (Some("HTTP/1.0 400 Bad Request\n"), FailureKind::Unusable, "no upsd"),
        (Some("VAR rack ups.realpower \"-5\"\n"), FailureKind::Unusable, "negative"),
        (Some("VAR rack ups.realpower \"NaN\"\n"), FailureKind::Absent, "NaN"),
        (Some("VAR rack ups.realpower \"x\"\n"), FailureKind::Unusable, "no number that a meter gives"),
        (Some("VAR rack ups.realpower \"99999999\"\n"), FailureKind::Unusable, "is the unit right?"),
        (Some("VAR other ups.realpower \"5\"\n"), FailureKind::Unusable, "no upsd"),
        (None, FailureKind::Broken, "no answer within 1 s"),
    ] {
        let address = server(move |_| answer.map(|text| text.as_bytes().to_vec()));
        let failure = probe(&address, None).ask().unwrap_err();
        assert!(failure.kind == kind && failure.why.contains(words), "{answer:?}: {failure:?}");
    }
    let huge = server(|_| Some(vec![b'9'; 10_000_000]));
    assert!(probe(&huge, None).ask().unwrap_err().why.contains("no upsd"));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert!(probe(&gone, None).ask().unwrap_err().why.contains("no TCP connection"));
}

#[test]
fn each_wrong_value_names_its_key() {
    let good = || NutMeter { name: "a".into(), ups: "rack".into(), ..NutMeter::default() };
    let wrong = |change: &dyn Fn(&mut NutMeter)| NutConfig::wrong_keys(&good(), change);
    assert_eq!(wrong(&|_| {}), [""; 0]);
    assert_eq!(wrong(&|meter| meter.ups = String::new()), ["ups"]);
    assert_eq!(wrong(&|meter| meter.ups = "a b".into()), ["ups"]);
    assert_eq!(wrong(&|meter| meter.variable = Some("x\ny".into())), ["variable"]);
    for bad in ["", ":1", "a:b", "a:0", "a/b", "http://a"] {
        assert_eq!(wrong(&|meter| meter.address = bad.into()), ["address"], "{bad}");
    }
    for (good, host, port) in [("::1", "::1", 3493), ("[::1]:7", "::1", 7), ("ups.example:7", "ups.example", 7)] {
        assert_eq!(endpoint(good, PORT), Some((host.to_owned(), port)), "{good}");
    }
}

/// NUT's own programs, where they are installed: dummy-ups reads what the UPS says from a file.
#[test]
fn a_real_upsd_with_a_dummy_ups() {
    let (Some(driver), Some(upsd)) = (find("dummy-ups"), find("upsd")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let port = free_port();
    std::fs::write(path("nut.conf"), "MODE=standalone\n").unwrap();
    std::fs::write(path("ups.conf"), format!("[rack]\ndriver = dummy-ups\nport = {}\n", path("rack.dev").display()))
        .unwrap();
    std::fs::write(path("upsd.conf"), format!("LISTEN 127.0.0.1 {port}\n")).unwrap();
    std::fs::write(path("upsd.users"), "").unwrap();
    std::fs::write(path("rack.dev"), "ups.status: OL\nups.load: 20\nups.realpower: 137\n").unwrap();
    let me = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env("NUT_CONFPATH", dir.path()).env("NUT_STATEPATH", dir.path());
        command.env("NUT_ALTPIDPATH", dir.path()).env("NUT_PIDPATH", dir.path());
        Running::start(&mut command)
    };
    let _driver = run(&driver, &["-a", "rack", "-F", "-u", &me]);
    let begin = Instant::now();
    while !path("dummy-ups-rack").exists() && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let _upsd = run(&upsd, &["-F", "-u", &me]);
    let mut probe = probe(&format!("127.0.0.1:{port}"), None);
    let power = until("a power", &mut probe, Result::is_ok).unwrap().power.unwrap();
    assert_eq!(power.value.watts(), 137.0);
}
