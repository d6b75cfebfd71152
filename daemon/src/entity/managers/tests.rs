//! Tests of the inventory: which lines are accepted, and when machines are dropped.

use super::*;

const FULL_LINE: &str = r#"{"v":1,"source":"libvirt","uri":"qemu:///system","health":"ok","machines":[
    {"name":"web","uuid":"8c0dd3f4-6a4b-4c5e-9a0e-1f6f3c1f2a11","state":"running","title":"","vcpus":2,"cid":3,"profile":"trusted"}]}"#;
const HEARTBEAT: &str = r#"{"v":1,"source":"libvirt","uri":"qemu:///system","health":"ok"}"#;

fn libvirt(managers: &Managers) -> Health {
    managers.sources().borrow().iter().find(|source| source.source == "libvirt").unwrap().health.clone()
}

fn names(managers: &Managers) -> Vec<String> {
    managers.inventory().borrow().iter().map(|known| known.name.clone()).collect()
}

#[test]
fn a_list_stays_while_heartbeats_come_and_is_dropped_after() {
    let (managers, start) = (Managers::default(), Instant::now());
    assert!(
        matches!(libvirt(&managers), Health::Unsupported(why) if why.contains("install the package jouled-libvirt"))
    );
    managers.accept_line(FULL_LINE.as_bytes(), start).unwrap();
    assert_eq!((libvirt(&managers), names(&managers)), (Health::Healthy, vec!["web".to_string()]));
    let known = managers.inventory().borrow()[0].clone();
    assert_eq!((known.cid, known.vcpus, known.profile.as_deref()), (Some(3), Some(2), Some("trusted")));
    let mut inventory = managers.inventory();
    inventory.mark_unchanged();
    managers.accept_line(HEARTBEAT.as_bytes(), start + STALE / 2).unwrap();
    managers.expire(start + STALE);
    assert!(!inventory.has_changed().unwrap() && names(&managers) == ["web"]);
    managers.expire(start + STALE + STALE / 2);
    assert!(inventory.has_changed().unwrap() && names(&managers).is_empty());
    assert!(matches!(libvirt(&managers), Health::Failed(why) if why.contains("30 s")));
    // After that it has to send every machine again.
    assert!(managers.accept_line(HEARTBEAT.as_bytes(), start + STALE * 2).unwrap_err().contains("machines"));
    managers.accept_line(FULL_LINE.as_bytes(), start + STALE * 2).unwrap();
    assert_eq!(libvirt(&managers), Health::Healthy);
}

#[test]
fn one_of_two_libvirts_fails() {
    let (managers, now) = (Managers::default(), Instant::now());
    managers.accept_line(FULL_LINE.as_bytes(), now).unwrap();
    let other =
        r#"{"v":1,"source":"libvirt","uri":"qemu:///session","health":"cannot\u001b[31m\nconnect","machines":[]}"#;
    managers.accept_line(other.as_bytes(), now).unwrap();
    assert_eq!(libvirt(&managers), Health::Degraded("qemu:///session: cannot [31m connect".into()));
    let same = FULL_LINE.replace("system", "session").replace("trusted", "off").replace("web", "mine");
    managers.accept_line(same.as_bytes(), now).unwrap();
    assert_eq!(names(&managers), ["web"], "a user's own libvirt is left out");
    managers.accept_line(other.as_bytes(), now).unwrap();
    managers.accept_line(HEARTBEAT.replace("\"ok\"", "\"gone\"").as_bytes(), now).unwrap();
    assert!(matches!(libvirt(&managers), Health::Failed(_)));
    // The machines of a libvirt that fails are kept: its VMs go on running.
    assert_eq!(names(&managers), ["web"]);
    // The session's machines are left out also where the system's libvirt has none.
    managers.accept_line(HEARTBEAT.replace('}', ",\"machines\":[]}").as_bytes(), now).unwrap();
    managers.accept_line(same.as_bytes(), now).unwrap();
    assert!(names(&managers).is_empty());
}

#[test]
fn machined_comes_after_libvirt() {
    let managers = Managers::default();
    managers.set_machined(vec![KnownMachine { name: "qemu-1-web".into(), ..KnownMachine::default() }], Health::Healthy);
    managers.accept_line(FULL_LINE.as_bytes(), Instant::now()).unwrap();
    assert_eq!(names(&managers), ["web", "qemu-1-web"]);
}

#[test]
fn a_line_that_cannot_be_used_is_refused_in_one_short_line() {
    let managers = Managers::default();
    let machine = |fields: &str| {
        let line = HEARTBEAT.replace('}', r#","machines":[{"name":"a","uuid":"b""#) + fields + "}]}";
        managers.accept_line(line.as_bytes(), Instant::now())
    };
    machine("").unwrap();
    for (line, words) in [
        (String::new(), "EOF"),
        ("\u{1b}[2J\n".into(), "expected value"),
        (HEARTBEAT.replace("\"v\":1", "\"v\":2,\"more\":[]"), "version 2 is not known"),
        (HEARTBEAT.replace("\"v\":1", "\"v\":2"), "version 2 is not known"),
        (HEARTBEAT.replace("\"libvirt\"", "\"machined\""), "unknown variant `machined`"),
        (HEARTBEAT.replace("\"health\"", &format!("\"{}\\n\"", "x".repeat(5_000))), "unknown field"),
        (HEARTBEAT.replace("qemu:", "qemu:\\n"), "not a connection URI"),
        (HEARTBEAT.replace("qemu:", &"x".repeat(300)), "not a connection URI"),
        (format!("{HEARTBEAT} {HEARTBEAT}"), "trailing"),
        (
            HEARTBEAT.replace('}', &format!(",\"more\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000))),
            "unknown field",
        ),
    ] {
        let why = managers.accept_line(line.as_bytes(), Instant::now()).unwrap_err();
        assert!(why.contains(words) && why.len() < 400 && !why.contains(char::is_control), "{why:?}");
    }
    assert!(machine(",\"cid\":-1").unwrap_err().contains("-1"));
    assert!(machine(",\"energy\":1").unwrap_err().contains("unknown field"));
    assert!(managers.accept_line(b"\xff\xfe", Instant::now()).is_err());
    let many = format!(
        "{}{}]}}",
        HEARTBEAT.replace('}', ",\"machines\":["),
        vec![r#"{"name":"","uuid":""}"#; MACHINES_MAX + 1].join(",")
    );
    assert!(managers.accept_line(many.as_bytes(), Instant::now()).unwrap_err().contains("at most 10000"));
    for number in 0..LIBVIRTS_MAX + 1 {
        let line = HEARTBEAT.replace('}', ",\"machines\":[]}").replace("system", &number.to_string());
        assert_eq!(
            managers.accept_line(line.as_bytes(), Instant::now()).is_ok(),
            number + 1 < LIBVIRTS_MAX,
            "{number}"
        );
    }
}
