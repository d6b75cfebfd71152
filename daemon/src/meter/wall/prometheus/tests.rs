//! Queries and pages, against a simulated server, and against a real Prometheus where there is one.

use super::super::FailureKind;
use super::super::entries::until;
use super::*;
use crate::meter::fake_plug::{Fault, Plug};
use crate::meter::real_programs::{Running, find, free_port};
use crate::model::source::Stamp;
use proptest::prelude::*;
use std::process::Command;

fn probe(url: &str, lines: &str) -> PrometheusProbe {
    let entry = PrometheusConfig::one(&format!("name = \"p\"\nurl = {url:?}\ntimeout = \"1s\"\n{lines}"));
    entry.probe(CancellationToken::new()).unwrap()
}

fn vector(samples: &str) -> String {
    format!(r#"{{"status": "success", "data": {{"resultType": "vector", "result": [{samples}]}}}}"#)
}

const QUERY: &str = "/api/v1/query?query=pdu%5Fwatts";
const TIME: &str = "/api/v1/query?query=timestamp%28pdu%5Fwatts%29&time=1700000012.000";

#[test]
fn a_query_is_the_sample_at_its_own_time() {
    let plug = Plug::start();
    plug.page(QUERY, vector(r#"{"metric": {}, "value": [1700000012, "83.5"]}"#));
    plug.page(TIME, vector(r#"{"metric": {}, "value": [1700000012, "1700000003.25"]}"#));
    let mut probe = probe(&plug.url(), "power = \"pdu_watts\"");
    let said = probe.ask().unwrap().power.unwrap();
    assert_eq!((said.value.watts(), said.time), (83.5, Some(1_700_000_003_250_000_000)));
    for (page, kind, words) in [
        (vector(""), FailureKind::Absent, "no series has a value now"),
        (vector(r#"{"value": [1, "1"]}, {"value": [1, "2"]}"#), FailureKind::Unusable, "2 series, and one is wanted"),
        (vector(r#"{"value": [1700000012, "NaN"]}"#), FailureKind::Absent, "NaN"),
        (vector(r#"{"value": [1700000012, "-7"]}"#), FailureKind::Unusable, "negative"),
        (vector(r#"{"value": [1700000012, 5]}"#), FailureKind::Unusable, "no sample"),
        (
            r#"{"status": "error", "error": "parse error"}"#.into(),
            FailureKind::Unusable,
            "refuses the query: parse error",
        ),
        (
            r#"{"status": "success", "data": {"resultType": "matrix", "result": []}}"#.into(),
            FailureKind::Unusable,
            "is it a range?",
        ),
        ("<html>".into(), FailureKind::Unusable, "is url a Prometheus?"),
    ] {
        plug.page(QUERY, page.clone());
        let failure = probe.ask().unwrap_err();
        assert!(failure.kind == kind && failure.why.contains(words), "{page}: {failure:?}");
    }
    plug.fault(Some(Fault::Huge));
    assert!(probe.ask().unwrap_err().why.contains("longer than 4194304 bytes"));
}

const PAGE: &str = "# TYPE pdu_energy_joules counter
pdu_energy_joules_total{outlet=\"6\",name=\"a, \\\"b\\\"\"} 1.5e3
pdu_energy_joules_total{outlet=\"7\"} 4000 1700000003250
pdu_power_watts{outlet=\"7\"} 83.5
pdu_power_watts_max 100
";

#[test]
fn a_page_has_one_series_of_a_name_and_labels() {
    let plug = Plug::start();
    plug.page("/metrics", PAGE);
    let url = format!("{}/metrics", plug.url());
    let lines = "from = \"page\"\npower = 'pdu_power_watts'\nenergy = 'pdu_energy_joules_total{outlet=\"7\"}'";
    let answer = probe(&url, lines).ask().unwrap();
    assert_eq!(answer.power.unwrap().value.watts(), 83.5);
    let energy = answer.energy.unwrap();
    assert_eq!((energy.value.energy.joules(), energy.time), (4000.0, Some(1_700_000_003_250_000_000)));
    for (query, words) in [
        ("pdu_energy_joules_total", "several series"),
        ("pdu_energy_joules_total{outlet=\"8\"}", "no such series"),
        ("pdu", "no such series"),
    ] {
        let why = page::sample(PAGE, query).unwrap_err().why;
        assert!(why.contains(words), "{query}: {why}");
    }
    let found = page::sample(PAGE, r#"pdu_energy_joules_total{name="a, \"b\""}"#).unwrap();
    assert_eq!(found.value, "1.5e3");
    for bad in ["", "{}", "a{b}", "a{b=c}", "a{b=\"c\"", "7a", "a b", "sum(a)"] {
        assert_eq!(page::Selector::parse(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn any_page_is_read_or_refused(page: String, query: String) {
        let _ = page::sample(&page, &query);
        let _ = page::sample(&format!("a{page}"), "a");
    }
}

/// A real Prometheus scrapes an exporter; its series stops.
#[test]
fn a_real_prometheus_gives_samples_their_own_time() {
    let Some(program) = find("prometheus") else { return };
    let (dir, exporter) = (tempfile::tempdir().unwrap(), Plug::start());
    exporter.page("/metrics", "pdu_watts 83.5\npdu_joules_total 1000\n");
    let port = free_port();
    let file = dir.path().join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n- job_name: pdu\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n  - targets: ['{}']\n",
        exporter.address
    );
    std::fs::write(&file, text).unwrap();
    let _server = Running::start(
        Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
    );
    let mut probe = probe(&format!("http://127.0.0.1:{port}"), "power = \"pdu_watts\"\nenergy = \"pdu_joules_total\"");
    let first = until("a sample", &mut probe, Result::is_ok).unwrap().power.unwrap();
    assert_eq!(first.value.watts(), 83.5);
    let age = i128::from(Stamp::now().realtime.0) - first.time.unwrap();
    assert!((0..60_000_000_000).contains(&age), "{age}");
    let later =
        |answer: &Result<Answer, Failure>| answer.as_ref().is_ok_and(|one| one.power.unwrap().time > first.time);
    let _ = until("a later sample", &mut probe, later);
    // The series is gone from the page: Prometheus marks it stale, and there is no reading.
    exporter.page("/metrics", "other 1\n");
    let gone =
        |answer: &Result<Answer, Failure>| answer.as_ref().is_err_and(|failure| failure.kind == FailureKind::Absent);
    until("the end of the series", &mut probe, gone).unwrap_err();
}
