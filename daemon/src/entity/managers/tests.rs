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
fn labels_of_machines_come_with_version_2() {
    let (managers, now) = (Managers::default(), Instant::now());
    let line = |version: u32, labels: &str| {
        FULL_LINE
            .replace("\"v\":1", &format!("\"v\":{version}"))
            .replace("\"cid\":3", &format!("\"cid\":3,\"labels\":{labels}"))
    };
    let labels = |managers: &Managers| managers.inventory().borrow()[0].labels.clone();
    managers.accept_line(line(2, r#"{"project":"shop","x":"\u202e\n"}"#).as_bytes(), now).unwrap();
    assert_eq!(labels(&managers)["project"], "shop");
    managers.accept_line(line(1, "{}").as_bytes(), now).unwrap();
    managers.accept_line(FULL_LINE.as_bytes(), now).unwrap();
    assert!(labels(&managers).is_empty());
    let many: Vec<String> = (0..17).map(|number| format!("\"l{number}\":\"\"")).collect();
    for (version, bad) in [
        (1, r#"{"project":"shop"}"#.to_owned()),
        (2, format!("{{{}}}", many.join(","))),
        (2, format!(r#"{{"project":"{}"}}"#, "x".repeat(10_000))),
        (2, format!(r#"{{"{}":"shop"}}"#, "x".repeat(10_000))),
        (2, r#"{"project":7}"#.to_owned()),
        (3, "{}".to_owned()),
    ] {
        let why = managers.accept_line(line(version, &bad).as_bytes(), now).unwrap_err();
        assert!(why.len() < 300, "{why}");
    }
    assert_eq!(names(&managers), ["web"]);
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
        (HEARTBEAT.replace("\"v\":1", "\"v\":3,\"more\":[]"), "version 3 is not known"),
        (HEARTBEAT.replace("\"v\":1", "\"v\":3"), "version 3 is not known"),
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

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A line of jouled-containers.
fn of_runtime(uri: &str, rest: &str) -> String {
    format!(r#"{{"v":2,"source":"containers","uri":"unix://{uri}","health":"ok"{rest}}}"#)
}

fn named(id: &str, name: &str) -> String {
    format!(r#""containers":[{{"id":"{id}","name":"{name}","image":"nginx","labels":{{"team":"blue"}}}}]"#)
}

fn containers(managers: &Managers) -> Health {
    managers.sources().borrow().iter().find(|source| source.source == "containers").unwrap().health.clone()
}

/// The name that is known of a container of this owner.
fn name_of(managers: &Managers, owner: Option<u32>, id: &str) -> Option<String> {
    let mut name = None;
    managers.containers().find([(owner, id)], |_, reported| name = Some(reported.name.to_string()));
    name
}

#[test]
fn names_of_containers_are_kept_when_the_helper_is_gone_and_dropped_with_the_container() {
    let managers = Managers::default();
    let at = Instant::now();
    let say = |line: &str| managers.accept_line(line.as_bytes(), at);
    assert!(matches!(containers(&managers), Health::Unsupported(why) if why.contains("jouled-containers")));
    assert!(say(&of_runtime("/a", "")).unwrap_err().contains("has to have \"begin\""));
    say(&of_runtime("/a", &format!(r#","begin":true,{}"#, named(ID, "web\\n\\u202e")))).unwrap();
    assert_eq!(name_of(&managers, None, ID).as_deref(), Some("web\\u{a}\\u{202e}"));
    assert_eq!(containers(&managers), Health::Healthy);
    assert!(managers.containers().is_reporting());
    managers.containers().find([(None, ID)], |_, reported| {
        assert_eq!(reported.details.pairs().collect::<Vec<_>>(), [("image", "nginx"), ("label.team", "blue")]);
    });
    managers.expire(at + STALE);
    assert!(matches!(containers(&managers), Health::Failed(why) if why.contains("systemctl status jouled-containers")));
    assert!(!managers.containers().is_reporting());
    assert!(name_of(&managers, None, ID).is_some(), "names stay");
    say(&of_runtime("/a", "")).unwrap();
    assert_eq!(containers(&managers), Health::Healthy);
    say(&of_runtime("/a", &format!(r#","gone":["{ID}"]"#))).unwrap();
    assert_eq!(name_of(&managers, None, ID), None);
    say(&of_runtime("/a", &format!(",{}", named(ID, "again")))).unwrap();
    say(&of_runtime("/a", r#","begin":true"#)).unwrap();
    assert_eq!(name_of(&managers, None, ID), None, "a new list replaces the earlier one");
    say(&of_runtime("/a", "").replace("\"ok\"", "\"closed\"")).unwrap();
    assert!(matches!(containers(&managers), Health::Failed(why) if why == "unix:///a: closed"));
    say(&of_runtime("/a", "").replace("\"ok\"", "\"absent\"")).unwrap();
    assert!(matches!(containers(&managers), Health::Unsupported(why) if why.contains("no container runtime")));
}

#[test]
fn a_user_names_only_that_users_containers_and_two_names_are_none() {
    let managers = Managers::default();
    let say = |line: &str| managers.accept_line(line.as_bytes(), Instant::now());
    let begin = |uri: &str, user: &str, name: &str| {
        say(&of_runtime(uri, &format!(r#"{user},"begin":true,{}"#, named(ID, name)))).unwrap();
    };
    begin("/docker", "", "web");
    begin("/run/user/1000", r#","user":1000"#, "mine");
    assert_eq!(name_of(&managers, None, ID).as_deref(), Some("web"));
    assert_eq!(name_of(&managers, Some(1000), ID).as_deref(), Some("mine"));
    assert_eq!(name_of(&managers, Some(1001), ID), None);
    begin("/containerd", "", "web");
    assert_eq!((name_of(&managers, None, ID).as_deref(), containers(&managers)), (Some("web"), Health::Healthy));
    begin("/containerd", "", "other");
    assert_eq!(name_of(&managers, None, ID), None, "which of the two is right is not known");
    assert!(matches!(containers(&managers), Health::Degraded(why) if why.contains("name them differently: 1")));
    say(&of_runtime("/containerd", "").replace("\"ok\"", "\"absent\"")).unwrap();
    assert_eq!((name_of(&managers, None, ID).as_deref(), containers(&managers)), (Some("web"), Health::Healthy));
}

#[test]
fn lines_about_containers_that_are_not_what_they_should_be() {
    let managers = Managers::default();
    let many: Vec<String> = (0..17).map(|number| format!(r#""l{number}":"x""#)).collect();
    let labels = |labels: &str| format!(r#","begin":true,"containers":[{{"id":"{ID}","labels":{{{labels}}}}}]"#);
    for (line, words) in [
        (of_runtime("/a", "").replace("\"v\":2", "\"v\":3"), "version 3 is not known: jouled-containers"),
        (of_runtime("/a", r#","x":1"#), "unknown field"),
        (of_runtime("/a", r#","begin":true,"containers":[{"id":"../../etc"}]"#), "is no container id"),
        (of_runtime("/a", r#","begin":true,"gone":["0123"]"#), "is no container id"),
        (of_runtime("/a", &labels(&many.join(","))), "17 labels, at most 16"),
        (of_runtime("/a", &labels(&format!(r#""{}":"x""#, "k".repeat(200)))), "more than 128 bytes"),
        (of_runtime(&"a".repeat(300), r#","begin":true"#), "not the URI"),
        (of_runtime("/a", "").replace("containers", "hologram"), "unknown variant `hologram`"),
    ] {
        let error = managers.accept_line(line.as_bytes(), Instant::now()).unwrap_err();
        assert!(error.contains(words) && error.len() < 600 && !error.contains('\n'), "{error}");
    }
    assert!(matches!(containers(&managers), Health::Unsupported(_)));
    let long = named(ID, &"x".repeat(10_000));
    managers.accept_line(of_runtime("/a", &format!(r#","begin":true,{long}"#)).as_bytes(), Instant::now()).unwrap();
    assert!(name_of(&managers, None, ID).unwrap().len() < 512);
}

#[test]
fn containers_and_changes_are_bounded() {
    use containers::{Changed, Cursor};
    let managers = Managers::default();
    let (mut cursor, known) = (Cursor::default(), managers.containers());
    assert_eq!(known.changed(&mut cursor, 10), Changed::All);
    assert_eq!(known.changed(&mut cursor, 10), Changed::These(Vec::new()));
    let batch = |from: u32, to: u32| {
        let containers: Vec<String> =
            (from..to).map(|number| format!(r#"{{"id":"{number:064x}","name":"a"}}"#)).collect();
        format!(r#","containers":[{}]"#, containers.join(","))
    };
    let say = |rest: &str| managers.accept_line(of_runtime("/a", rest).as_bytes(), Instant::now()).unwrap();
    say(&format!(r#","begin":true{}"#, batch(0, 25)));
    let Changed::These(first) = known.changed(&mut cursor, 10) else { panic!() };
    assert_eq!((first.len(), &first[9]), (10, &(None, format!("{:064x}", 9))));
    let Changed::These(rest) = known.changed(&mut cursor, 100) else { panic!() };
    assert_eq!(rest.len(), 15);
    say(&batch(0, 25));
    assert_eq!(known.changed(&mut cursor, 10), Changed::These(Vec::new()), "nothing changed");
    (0..21).for_each(|thousand| say(&batch(thousand * 1_000, thousand * 1_000 + 1_000)));
    assert_eq!(known.changed(&mut cursor, 10), Changed::All, "more than are kept");
    assert!(matches!(containers(&managers), Health::Degraded(why) if why.contains("more than 20000 containers")));
    assert!(name_of(&managers, None, &format!("{:064x}", 19_999)).is_some());
    assert_eq!(name_of(&managers, None, &format!("{:064x}", 20_000)), None);
    say(r#","begin":true"#);
    assert_eq!(containers(&managers), Health::Healthy);
}

/// A helper that was started again follows other sockets: what it followed before is neither failed forever, nor in the
/// way of new names.
#[test]
fn runtimes_that_a_new_helper_does_not_follow_are_forgotten() {
    let (managers, start) = (Managers::default(), Instant::now());
    let say = |line: &str, at: Instant| managers.accept_line(line.as_bytes(), at).unwrap();
    let full: Vec<String> = (0..20_000).map(|number| format!(r#"{{"id":"{number:064x}","name":"a"}}"#)).collect();
    say(&of_runtime("/a", &format!(r#","begin":true,"containers":[{}]"#, full.join(","))), start);
    say(&of_runtime("/kubelet", r#","begin":true"#).replace("unix://", "https://"), start);
    let second = start + STALE / 2;
    say(&of_runtime("/b", r#","begin":true"#), second);
    say(&of_runtime("/b", &format!(",{}", named(ID, "web"))), second);
    assert_eq!(name_of(&managers, None, ID).as_deref(), Some("web"), "there is room");
    assert_eq!(containers(&managers), Health::Healthy);
    let is_failed = |uri: &str| {
        let health = containers(&managers);
        health.why().contains(&format!("{uri}: jouled-containers said nothing"))
    };
    managers.expire(start + STALE);
    assert!(is_failed("unix:///a") && is_failed("https:///kubelet"), "it may come yet");
    let later = second + STALE;
    say(&of_runtime("/b", ""), later);
    managers.expire(later);
    assert!(!is_failed("unix:///a"));
    assert!(is_failed("https:///kubelet"), "it has a helper of its own");
    // A helper that hangs is not one that follows other sockets.
    managers.expire(later + STALE);
    assert!(is_failed("unix:///b") && is_failed("https:///kubelet"));
}
