//! jouled's own dashboards (docs/grafana) on fake hosts with one of everything: a real Prometheus scrapes them, and
//! each query that asks for what a fake host can know has data. Kepler's dashboards are in dashboards.rs. Where there
//! is no `prometheus`, it prints that it is skipped.

use crate::common::world::ZONES;
use crate::common::{World, until};
use crate::dashboards::{Host, VM, ask, prometheus, tell};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

/// A tenant, factors of carbon and price, and one factor that is missing.
const CONFIG: &str = r#"
[[tenant]]
name = "shop"
project = "shop"
[carbon]
intensity = 300
market_file = "/nonexistent/carbon.json"
[price]
currency = "EUR"
per_kwh = 0.3
"#;

/// Why a query has nothing on these hosts, in the words of its metric: two meters of the whole machine that differ; a
/// model that was learned for some minutes beside a meter.
const BEYOND: [&str; 2] = ["jouled_meter_disagreement_", "jouled_model_predicted_"];

fn dashboard(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/grafana/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A query as Grafana asks it. Its own interval is at least four times that of scrapes.
fn filled(query: &str, values: &BTreeMap<String, String>) -> String {
    let mut query = query.replace("$__rate_interval", "20s").replace("$__range", "60s");
    // Long names first: one may be the begin of another.
    for (name, value) in values.iter().rev() {
        query = query.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    assert!(!query.contains('$'), "{query}");
    query
}

/// The variables with what they begin with, and what each that asks offers.
fn variables(
    dashboard: &Value,
    prometheus: SocketAddr,
) -> (BTreeMap<String, String>, BTreeMap<String, BTreeSet<String>>) {
    let (mut chosen, mut offered) = (BTreeMap::new(), BTreeMap::new());
    for one in dashboard["templating"]["list"].as_array().unwrap() {
        let name = one["name"].as_str().unwrap().to_owned();
        match one["type"].as_str().unwrap() {
            "datasource" => {}
            "query" => {
                let asked = one["definition"].as_str().unwrap();
                let inner = asked.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
                let (series, label) = inner.rsplit_once(", ").unwrap();
                let samples = ask(prometheus, &filled(series, &chosen));
                let values = samples.into_iter().filter_map(|(mut labels, _)| labels.remove(label));
                offered.insert(name.clone(), values.collect());
                chosen.insert(name, one["allValue"].as_str().unwrap().to_owned());
            }
            _ => {
                chosen.insert(name, one["current"]["value"].as_str().unwrap().to_owned());
            }
        }
    }
    (chosen, offered)
}

/// Titles of panels, with their queries.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (title, query) = (panel["title"].as_str().unwrap(), target["expr"].as_str().unwrap());
            queries.push((title.to_owned(), query.to_owned()));
        }
    }
    queries
}

/// A host with a job of Slurm and a user's program.
fn busy_world() -> World {
    let world = World::new();
    world.spawn(201, 201, "sim", "/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0", 0);
    world.host.write_proc("201/environ", "SLURM_JOB_ID=7\0SLURM_JOB_UID=1000\0SLURM_JOB_ACCOUNT=physics\0");
    world.spawn(202, 202, "vi", "/user.slice/user-1000.slice/session-1.scope", 0);
    world
}

/// What jouled-libvirt says of the VM.
fn name_the_vm(host: &mut Host) {
    let machine = format!(r#"{{"name":"foo","uuid":"{VM}","state":"running","cid":3,"labels":{{"project":"shop"}}}}"#);
    let line = r#"{"v":2,"source":"libvirt","uri":"qemu:///system","health":"ok","machines":["#;
    host.helpers.push(tell(&host.daemon, &format!("{line}{machine}]}}")));
}

/// A host without any meter, whose power is estimated.
fn without_a_meter() -> World {
    let world = World::new();
    ZONES.iter().rev().for_each(|(zone, _)| world.host.remove_zone(zone));
    world.spawn(101, 1, "nginx", "/system.slice/nginx.service", 0);
    world
}

#[test]
fn every_panel_that_a_host_can_answer_shows_data() {
    let Some(mut host) = Host::with(busy_world(), CONFIG) else { return };
    host.more = vec![201, 202];
    name_the_vm(&mut host);
    let estimated = without_a_meter();
    let other = estimated.start();
    let folder = tempfile::tempdir().unwrap();
    let jobs = [("jouled", host.daemon.address), ("jouled-estimate", other.address)];
    let Some((_running, prometheus)) = prometheus(folder.path(), &jobs) else { return };
    let mut used = 0;
    for name in ["jouled", "fleet"] {
        let dashboard = dashboard(name);
        let queries = queries(&dashboard);
        let is_beyond = |query: &str| BEYOND.iter().any(|metric| query.contains(metric));
        let beyond: Vec<_> = queries.iter().filter(|(_, query)| is_beyond(query)).collect();
        let mut empty: Vec<&(String, String)> = Vec::new();
        until(&format!("data in {name}"), || {
            host.work();
            used += 2;
            estimated.host.stat(&[used; 4], &[used; 4]);
            estimated.run(101, 2);
            let (values, _) = variables(&dashboard, prometheus);
            let has_data =
                |query: &str| ask(prometheus, &filled(query, &values)).iter().any(|(_, value)| value.is_finite());
            let before = std::mem::replace(&mut empty, queries.iter().filter(|(_, query)| !has_data(query)).collect());
            if empty != before {
                println!(
                    "{name}: without data yet: {:#?}",
                    empty.iter().filter(|one| !beyond.contains(one)).collect::<Vec<_>>()
                );
            }
            (empty.len() <= beyond.len()).then_some(())
        });
        assert_eq!(empty, beyond, "{name}");
        println!("{name}: data in {} of {} queries", queries.len() - empty.len(), queries.len());
        for (variable, values) in variables(&dashboard, prometheus).1 {
            assert!(!values.is_empty(), "{name}: {variable} offers nothing");
        }
    }
    costs_and_carbon_are_right(prometheus);
}

/// The panels of carbon and cost against the counters: energy times the factors.
fn costs_and_carbon_are_right(prometheus: SocketAddr) {
    let job = r#"job="jouled""#;
    let of = |query: &str| ask(prometheus, query).iter().map(|(_, value)| value).sum::<f64>();
    let billed = format!(
        "sum(jouled_domain_joules_total{{{job}}} * on (domain) group_left () max by (domain) \
         (jouled_domain_info{{{job}, billed=\"true\"}}))"
    );
    // One scrape, in which all counters are of one tick.
    let ratio = of(&format!("sum(jouled_co2e_grams_total{{{job},method=\"location\"}}) / {billed} * 3600000"));
    assert!((ratio - 300.0).abs() < 3.0, "{ratio} g/kWh");
    let ratio = of(&format!("sum(jouled_cost_total{{{job}}}) / {billed} * 3600000"));
    assert!((ratio - 0.3).abs() < 0.003, "{ratio} EUR/kWh");
}
