//! The follower against libvirt's test driver in this process, whose domains are started and ended meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

use jouled_libvirt::board::{Board, Version};
use jouled_libvirt::domain::NAMESPACE;
use jouled_libvirt::{events, follow};
use serde_json::Value;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

const TIME_LIMIT: Duration = Duration::from_secs(20);

fn events_run() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| events::run_loop().unwrap());
}

fn follow(uris: &[&str]) -> Arc<Board> {
    events_run();
    let uris: Vec<String> = uris.iter().map(|uri| uri.to_string()).collect();
    let board = Arc::new(Board::new(&uris));
    for (which, uri) in uris.into_iter().enumerate() {
        let board = Arc::clone(&board);
        std::thread::spawn(move || follow::follow(&uri, which, &board));
    }
    board
}

/// The lines that jouled would receive.
fn lines_of(board: &Board) -> Vec<Value> {
    board.lines(0, Version::Labels).1.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn find(line: &Value, key: &str, value: &str) -> Option<Value> {
    line["machines"].as_array().unwrap().iter().find(|machine| machine[key] == value).cloned()
}

/// Waits until the lines satisfy `seen`: much shorter than the time between two full lists, so only events can cause
/// it.
fn until<T>(what: &str, board: &Board, seen: impl Fn(&[Value]) -> Option<T>) -> T {
    let end = Instant::now() + TIME_LIMIT;
    loop {
        let lines = lines_of(board);
        if let Some(seen) = seen(&lines) {
            return seen;
        }
        assert!(Instant::now() < end, "{what}: {lines:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn xml(name: &str, uuid: &str, more: &str) -> String {
    format!(
        "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid>{more}<memory>1024</memory><vcpu current='2'>4</vcpu>\
         <os><type>hvm</type></os><devices><vsock model='virtio'><cid auto='no' address='42'/></vsock></devices></domain>"
    )
}

#[test]
fn domains_start_change_and_end() {
    let board = follow(&["test:///default"]);
    // libvirt's test driver has a domain from the start.
    let first = until("the first list", &board, |lines| {
        find(lines.first().filter(|line| line["health"] == "ok")?, "name", "test")
    });
    assert_eq!((first["state"].as_str(), first["vcpus"].as_u64(), first.get("cid")), (Some("running"), Some(2), None));

    let writer = Connect::open(Some("test:///default")).unwrap();
    let uuid = "8c0dd3f4-6a4b-4c5e-9a0e-1f6f3c1f2a11";
    let domain = writer.create_domain_xml(&xml("web", uuid, "<title>The shop</title>"), sys::VIR_DOMAIN_NONE).unwrap();
    let web = until("it was started", &board, |lines| find(&lines[0], "uuid", uuid));
    assert_eq!(
        (&web["name"], &web["title"], &web["vcpus"], &web["cid"]),
        (&"web".into(), &"The shop".into(), &2.into(), &42.into())
    );
    assert_eq!(web.get("profile"), None);

    domain.suspend().unwrap();
    until("it is paused", &board, |lines| find(&lines[0], "uuid", uuid).filter(|web| web["state"] == "paused"));
    domain.resume().unwrap();
    until("it runs again", &board, |lines| find(&lines[0], "uuid", uuid).filter(|web| web["state"] == "running"));
    set_profile(&domain, Some("<guest profile='multi-tenant'/>"));
    until("it has a profile", &board, |lines| {
        find(&lines[0], "uuid", uuid).filter(|web| web["profile"] == "multi-tenant")
    });
    set_profile(&domain, None);
    until("it has none any more", &board, |lines| {
        find(&lines[0], "uuid", uuid).filter(|web| web.get("profile").is_none())
    });
    domain
        .set_metadata(
            sys::VIR_DOMAIN_METADATA_TITLE as i32,
            Some("a \"new\" one"),
            None,
            None,
            sys::VIR_DOMAIN_AFFECT_LIVE,
        )
        .unwrap();
    until("it has a new title", &board, |lines| {
        find(&lines[0], "uuid", uuid).filter(|web| web["title"] == "a \"new\" one")
    });

    // Defined persistently with another title while it runs: there is one machine, with the title of the running one.
    writer.define_domain_xml(&xml("web", uuid, "<title>twice</title>")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let lines = lines_of(&board);
    let twice = lines[0]["machines"].as_array().unwrap().iter().filter(|machine| machine["name"] == "web").count();
    assert_eq!((twice, find(&lines[0], "uuid", uuid).unwrap()["title"].as_str()), (1, Some("a \"new\" one")));

    domain.destroy().unwrap();
    until("it was ended", &board, |lines| find(&lines[0], "uuid", uuid).is_none().then_some(()));
    let defined = writer.lookup_domain_by_uuid_string(uuid).unwrap();
    defined.create().unwrap();
    until("it was started again", &board, |lines| find(&lines[0], "uuid", uuid).filter(|web| web["title"] == "twice"));
    defined.destroy().unwrap();
    defined.undefine().unwrap();
    until("it is no more", &board, |lines| find(&lines[0], "uuid", uuid).is_none().then_some(()));
}

fn set_profile(domain: &Domain, xml: Option<&str>) {
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
    domain.set_metadata(kind, xml, Some("jouled"), Some(NAMESPACE), sys::VIR_DOMAIN_AFFECT_LIVE).unwrap();
}

#[test]
fn a_missing_libvirt_does_not_affect_the_others() {
    let missing = "qemu+unix:///system?socket=/nonexistent/libvirt-sock-ro";
    let board = follow(&[missing, "test:///default"]);
    let health =
        |lines: &[Value], uri: &str| lines.iter().find(|line| line["uri"] == uri)?["health"].as_str().map(String::from);
    until("one of two", &board, |lines| health(lines, "test:///default").filter(|health| health == "ok"));
    let why = until("the reason", &board, |lines| health(lines, missing).filter(|why| why.contains("/nonexistent")));
    assert!(!why.contains('\n') && board.status().contains(&why), "{why}");
}

#[test]
fn many_domains_start_and_end_at_once() {
    let board = follow(&["test:///default"]);
    until("the first list", &board, |lines| (lines.first()?["health"] == "ok").then_some(()));
    let writer = Connect::open(Some("test:///default")).unwrap();
    let uuid = |number: u32| format!("00000000-0000-4000-8000-{number:012}");
    let made: Vec<Domain> = (0..300)
        .map(|number| {
            writer.create_domain_xml(&xml(&format!("many-{number}"), &uuid(number), ""), sys::VIR_DOMAIN_NONE).unwrap()
        })
        .collect();
    until("all are there", &board, |lines| {
        (0..300).all(|number| find(&lines[0], "uuid", &uuid(number)).is_some()).then_some(())
    });
    for domain in &made {
        domain.destroy().unwrap();
    }
    until("none is there", &board, |lines| {
        (0..300).all(|number| find(&lines[0], "uuid", &uuid(number)).is_none()).then_some(())
    });
}
