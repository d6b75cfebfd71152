//! `[[export.push]]` with a real Prometheus as the receiver, which is away at first. Where there is no `prometheus`, it
//! prints that it is skipped. A day's outage, in virtual time, is in daemon/src/export/push/tests.

use crate::common::client::get;
use crate::common::world::ZONES;
use crate::common::{World, joulectl, said, until};
use jouled::model::source::Health;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A child that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn prometheus(folder: &Path, address: SocketAddr) -> Option<Running> {
    fs::write(folder.join("prometheus.yml"), "").unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}")).arg("--web.enable-remote-write-receiver");
    let quiet = command.arg("--log.level=error").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = quiet.current_dir(folder).spawn() else {
        println!("skipped: no prometheus (packaging/dev/deps.sh test)");
        return None;
    };
    let running = Running(child);
    until("prometheus to listen", || TcpStream::connect(address).ok());
    Some(running)
}

/// The samples that a query gives: labels and value.
fn ask(prometheus: SocketAddr, query: &str) -> Vec<(BTreeMap<String, String>, f64)> {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02X}") };
    let query: String = query.bytes().map(byte).collect();
    let answer = get(prometheus, &format!("/api/v1/query?query={query}"), &[]);
    if answer.status == 503 {
        // It has just started.
        return Vec::new();
    }
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer["status"], "success", "{answer}");
    let sample = |one: &Value| {
        let labels = one["metric"].as_object().unwrap().iter();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        (labels, one["value"][1].as_str().unwrap().parse().unwrap())
    };
    answer["data"]["result"].as_array().unwrap().iter().map(sample).collect()
}

#[test]
fn prometheus_is_sent_what_it_missed() {
    let world = World::new();
    world.spawn(50, 1, "web", "/system.slice/web.service", 0);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let entry = |name: &str, path: &str| {
        format!(
            "[[export.push]]\nname = \"{name}\"\nurl = \"http://{address}{path}\"\ninterval = \"10s\"\nspread = \"0s\"\n\
             labels = {{ cluster = \"north\" }}\n"
        )
    };
    world.config(&(entry("central", "/api/v1/write") + &entry("lost", "/api/v1/nothing")));
    let daemon = world.start();
    let work = || {
        world.run(50, 2);
        ZONES.iter().for_each(|(zone, _)| world.draw(zone, 3_000_000));
    };
    let source = |name: &str| {
        let sources = daemon.snapshot().sources;
        sources.into_iter().find(|view| view.source == name).map(|view| view.health)
    };
    // Nothing listens there yet.
    let why = until("the receiver to be missed", || {
        work();
        match source("push:central") {
            Some(Health::Degraded(why)) if why.contains("wait") && !why.contains("nothing waits") => Some(why),
            _ => None,
        }
    });
    assert!(why.contains("nothing can be sent now: no TCP connection"), "{why}");
    let waiting = daemon.page().values("jouled_push_waiting_samples", &[("receiver", "central")]).sum::<f64>();
    assert!(waiting > 0.0, "{waiting}");
    let data = tempfile::tempdir().unwrap();
    let Some(_running) = prometheus(data.path(), address) else { return };
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();

    until("all to be sent", || {
        let page = daemon.page();
        let waiting = page.values("jouled_push_waiting_samples", &[("receiver", "central")]).sum::<f64>();
        (waiting == 0.0 && source("push:central") == Some(Health::Healthy)).then_some(())
    });
    // Samples of before it was there.
    let oldest = until("samples", || {
        let oldest = ask(address, "min(min_over_time(timestamp(jouled_unit_joules_total)[10m:1s]))");
        oldest.first().map(|(_, value)| *value)
    });
    assert!(oldest < began, "{oldest} {began}");
    // The same series as on the page, of the billed zones.
    let sent = ask(address, "jouled_unit_joules_total{unit=\"web.service\"}");
    assert!(!sent.is_empty());
    for (labels, value) in sent {
        assert_eq!((&*labels["job"], &*labels["cluster"]), ("jouled", "north"));
        assert_eq!(labels["instance"], daemon.snapshot().host.node_name);
        let page = daemon.page();
        let wanted = [("unit", "web.service"), ("zone", &*labels["zone"]), ("mode", &*labels["mode"])];
        let now: f64 = page.values("jouled_unit_joules_total", &wanted).sum();
        assert!(value <= now, "{labels:?}: {value} {now}");
    }
    assert!(ask(address, "count({__name__=~\".+_process_.+\"})").is_empty());
    // A wrong path is no reason to ask again and again.
    let why = until("the wrong path to be noticed", || match source("push:lost") {
        Some(Health::Failed(why)) => Some(why),
        _ => None,
    });
    assert!(why.contains("takes no remote write at this url (status 404"), "{why}");
    let status = said(joulectl(&daemon.state, &["status"]));
    assert!(status.contains("push:lost"), "{status}");
    let page = daemon.page();
    let requests = |status: &str| {
        page.values("jouled_push_requests_total", &[("receiver", "central"), ("status", status)]).sum::<f64>()
    };
    assert!(requests("none") > 0.0 && requests("204") > 0.0);
    assert_eq!(
        page.values("jouled_push_samples_total", &[("receiver", "central"), ("result", "refused")]).sum::<f64>(),
        0.0
    );
}
