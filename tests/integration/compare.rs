//! `joulectl meters compare` against a simulated plug before a fake host whose load changes. Needs no root.

use crate::common::World;
use crate::common::plug_sim::Plug;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the plug shows beyond each watt of the packages, and for each.
const OFFSET: f64 = 20.0;
const SLOPE: f64 = 1.25;

fn compare(socket: &std::path::Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joulectl"));
    command.arg("--socket").arg(socket).args(["meters", "compare"]).args(words);
    command
}

#[test]
fn a_plug_is_compared_with_the_packages() {
    let (world, plug) = (World::new(), Plug::start());
    plug.page("/", r#"{"power": 100}"#);
    world.config(&format!(
        "[[meter.http]]\nname = \"plug\"\nurl = \"{}\"\npower = \"/power\"\nperiod = \"1s\"\n",
        plug.url()
    ));
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find("the plug", |snapshot| snapshot.domains.iter().any(|view| view.domain.source == "http:plug"));
    let socket = daemon.state.join("jouled.sock");
    let none = compare(&socket, &["--against", "socket", "--for", "20s"]).output().unwrap();
    let why = String::from_utf8_lossy(&none.stderr);
    assert!(none.status.code() == Some(2) && why.contains("\"socket\"") && why.contains("http:plug"), "{why}");

    let mut child = compare(&socket, &["--against", "plug", "--for", "20s", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Idle and work in turn. What is drawn is by the time that has passed, however late this thread is.
    let (begin, mut last) = (Instant::now(), Instant::now());
    while child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(150), "the comparison does not end");
        let watts = if (begin.elapsed().as_secs() / 5).is_multiple_of(2) { 60.0 } else { 140.0 };
        let passed = last.elapsed().as_secs_f64();
        last = Instant::now();
        world.draw("intel-rapl:0", (watts * passed * 1e6) as u64);
        plug.page("/", format!("{{\"power\": {}}}", OFFSET + SLOPE * watts));
        std::thread::sleep(Duration::from_millis(30));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key}: {json}"));
    assert_eq!(json["against"], "http:plug");
    assert!(number("readings") >= 5.0, "{json}");
    // 60 to 140 W, and what the plug makes of it.
    assert!((60.0..140.0).contains(&number("own_watts")), "{json}");
    let expected = OFFSET + SLOPE * number("own_watts");
    assert!((number("meter_watts") / expected - 1.0).abs() < 0.15, "{json}");
    assert!((number("ratio") - number("meter_watts") / number("own_watts")).abs() < 1e-9, "{json}");
    daemon.stop();
}
