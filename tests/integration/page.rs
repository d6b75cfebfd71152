//! The page to look at, asked from outside without a browser: the document, the event stream, and what they may not do.
//! What a browser makes of it is in `browser/`.

use crate::common::known::known_run;
use crate::common::{World, get, until};
use jouled::model::billing::Base;
use jouled::model::entity::Kind;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

/// An event stream.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(address: SocketAddr, headers: &str) -> Self {
        let mut io = TcpStream::connect(address).unwrap();
        io.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
        io.write_all(format!("GET /v1/events HTTP/1.0\r\n{headers}\r\n").as_bytes()).unwrap();
        Self(BufReader::new(io))
    }

    /// The next frame with its mark; `None` at the end of the stream.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut mark = String::new();
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            if let Some(id) = line.strip_prefix("id: ") {
                mark = id.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((mark, serde_json::from_str(data).unwrap()));
            }
        }
    }
}

#[test]
fn the_stream_says_what_the_snapshot_says() {
    let (_world, daemon, snapshot) = known_run();
    let mut events = Events::open(daemon.address, "");
    let (mark, all) = events.next().unwrap();
    let base = Base::of(&snapshot);
    let kinds: Vec<&str> = all["kinds"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap()).collect();
    let of = |kind: Kind| {
        let place = kinds.iter().position(|word| *word == kind.as_str()).unwrap();
        let rows = all["rows"].as_array().unwrap().iter().filter(move |row| row[1] == place);
        let mut energy: Vec<f64> = rows.map(|row| row[7].as_f64().unwrap()).collect();
        energy.sort_by(f64::total_cmp);
        energy
    };
    for kind in [Kind::Unit, Kind::Process, Kind::Container, Kind::Vm, Kind::Slice, Kind::User] {
        let mut expected: Vec<f64> =
            snapshot.kind(kind).rows.iter().map(|row| base.energy(&row.energy).0 as f64).collect();
        expected.sort_by(f64::total_cmp);
        let shown = of(kind);
        assert_eq!(shown.len(), expected.len(), "{kind:?}");
        let near = |(shown, expected): (&f64, &f64)| (shown - expected).abs() <= expected * 6e-4;
        assert!(shown.iter().zip(&expected).all(near), "{kind:?}: {shown:?}, {expected:?}");
    }
    assert_eq!(all["node"], "node-1");
    // Each further frame has what changed, and a reader goes on after the frame that it names. What came while the
    // first one was made may be sent once more.
    let (next, tick) = loop {
        let (next, tick) = events.next().unwrap();
        assert!(tick["tick"].as_u64() >= all["tick"].as_u64() && tick.get("node").is_none(), "{tick}");
        if tick["tick"].as_u64() > all["tick"].as_u64() {
            break (next, tick);
        }
    };
    let (_, again) = Events::open(daemon.address, &format!("Last-Event-ID: {next}\r\n")).next().unwrap();
    assert!(again.get("node").is_none() && again["tick"].as_u64() > tick["tick"].as_u64(), "{again}");
    let (other, _) = Events::open(daemon.address, "Last-Event-ID: 0.1\r\n").next().unwrap();
    assert_eq!(other.split('.').next(), mark.split('.').next());
    daemon.stop();
    // The stream ends with jouled.
    while events.next().is_some() {}
}

#[test]
fn a_restart_is_another_life() {
    let world = World::new();
    let daemon = world.start();
    let (before, _) = Events::open(daemon.address, "").next().unwrap();
    daemon.stop();
    let daemon = world.start();
    let (after, all) = Events::open(daemon.address, &format!("Last-Event-ID: {before}\r\n")).next().unwrap();
    assert_ne!(after.split('.').next(), before.split('.').next());
    assert_eq!(all["node"], "node-1", "it begins again");
    daemon.stop();
}

#[test]
fn the_document_is_for_browsers_of_this_address() {
    let world = World::new();
    world.spawn(7, 7, "<script>alert(1)", "/system.slice/a&b<img src=x>.service", 0);
    let daemon = world.start();
    until("a row", || {
        world.run(7, 5);
        world.draw("intel-rapl:0", 5_000_000);
        get(daemon.address, "/", &[]).body.contains("a&amp;b&lt;img").then_some(())
    });
    let page = get(daemon.address, "/", &[]);
    assert!(page.head.contains("content-security-policy: default-src 'none'; script-src 'sha256-"), "{}", page.head);
    assert!(!page.head.contains("unsafe") && page.head.contains("cache-control: no-store"), "{}", page.head);
    assert!(!page.body.contains("<img") && !page.body.contains("<script>"), "markup of a stranger");
    for (path, word) in [("/?kind=unit", "a&amp;b&lt;img"), ("/troubleshooting", "only root may read it")] {
        assert!(get(daemon.address, path, &[]).body.contains(word), "{path}");
    }
    let once = get(daemon.address, "/v1/events?once=1", &[]);
    assert!(once.head.contains("text/event-stream") && once.body.contains("event: full"), "{once:?}");
    assert_eq!(get(daemon.address, "/v1/events?once=1", &["Sec-Fetch-Site: cross-site"]).status, 403);
    for path in ["/v1/page/row?life=x&id=0", "/v1/page/curves?life=x&ids=0"] {
        assert_eq!(get(daemon.address, path, &[]).status, 404, "{path}");
    }
    for path in ["/v1/page/meters", "/v1/page/hours"] {
        serde_json::from_str::<Value>(&get(daemon.address, path, &[]).body).unwrap();
    }
    daemon.stop();
}

#[test]
fn it_can_be_switched_off_and_has_the_kinds_of_the_metrics_page() {
    let world = World::new();
    world.config("[export.page]\nuse = \"off\"\n");
    let daemon = world.start();
    assert!(get(daemon.address, "/", &[]).body.contains("<h2>Energy domains</h2>"));
    assert_eq!(get(daemon.address, "/v1/events", &[]).status, 404);
    daemon.stop();
    world.config("[export.prometheus]\nlevels = [\"unit\"]\n");
    let daemon = world.start();
    let (_, all) = Events::open(daemon.address, "").next().unwrap();
    assert_eq!(all["kinds"], serde_json::json!(["unit"]));
    daemon.stop();
}
