//! The whole page of one snapshot against golden files, promtool's opinion of it, and its arithmetic. UPDATE_GOLDEN=1
//! rewrites the files.

use super::parse::parse;
use super::{snapshot, with_platform};
use crate::export::guest::Totals;
use crate::export::prometheus::{Dialects, Format, PrometheusOptions, render, render_changing, render_lasting};
use crate::export::push;
use crate::model::entity::Kind;
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::model::usage::Counted;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn page(format: Format, kepler: bool, legacy: bool) -> String {
    let now = Stamp { monotonic: Nanos(100_250_000_000), ..Stamp::default() };
    let options = PrometheusOptions { dialects: Dialects { kepler, legacy }, ..PrometheusOptions::default() };
    let guests = Totals { connections: 3, requests: 20, refused: vec![("unknown", 1), ("rate", 0)] };
    let receiver = push::Totals {
        receiver: "central".into(),
        samples: BTreeMap::from([("written", 4_400), ("refused", 2), ("dropped", 0)]),
        requests: BTreeMap::from([("204".into(), 40), ("none".into(), 1)]),
        waiting: 220,
        log_bytes: 5_539,
        oldest: Some(1_700_000_060_000),
        last_taken: Some(1_700_000_000_250),
    };
    let snapshot = Arc::new(snapshot());
    let changing = render_changing(&snapshot, Some(guests), vec![receiver], now, format);
    render_lasting(&snapshot, &options, format) + &changing
}

fn check(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/integration/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (number, (is, should)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, should, "{file}:{}; UPDATE_GOLDEN=1 accepts the change", number + 1);
    }
    assert_eq!(text.len(), golden.len(), "{file}; UPDATE_GOLDEN=1 accepts the change");
}

#[test]
fn classic_is_as_in_the_golden_file() {
    check("metrics.txt", &page(Format::Classic, true, false));
}

#[test]
fn openmetrics_is_as_in_the_golden_file() {
    check("metrics.openmetrics.txt", &page(Format::OpenMetrics, true, false));
}

#[test]
fn the_legacy_dialect_is_as_in_the_golden_file() {
    let text = page(Format::Classic, false, true);
    let kepler: Vec<&str> = text.split_inclusive('\n').filter(|line| line.contains("kepler_")).collect();
    check("metrics-legacy.txt", &kepler.concat());
}

/// Where the processor's counters work, Kepler 0.9's names have them too, for the same containers, processes and VMs as
/// the time on a CPU, also for what runs in no container.
#[test]
fn the_legacy_dialect_has_the_events_that_are_counted() {
    let mut snapshot = snapshot();
    let options =
        PrometheusOptions { dialects: Dialects { kepler: false, legacy: true }, ..PrometheusOptions::default() };
    let now = Stamp { monotonic: Nanos(100_250_000_000), ..Stamp::default() };
    for counted in [true, false] {
        snapshot.counted = Counted { cycles: counted, instructions: counted, cache_misses: counted };
        let page = render(&Arc::new(snapshot.clone()), None, now, &options, Format::Classic);
        let page = parse(&page, false);
        for kind in ["container", "process", "vm"] {
            let series = |event: &str| -> Vec<_> {
                let name = format!("kepler_{kind}_{event}_total");
                page.samples.keys().filter(|(has, _)| *has == name).map(|(_, labels)| labels.clone()).collect()
            };
            let expected = if counted { series("bpf_cpu_time_ms") } else { Vec::new() };
            for event in ["cpu_cycles", "cpu_instructions", "cache_miss"] {
                assert_eq!(series(event), expected, "{kind} {event}");
            }
            let system =
                |labels: &BTreeMap<String, String>| labels.get("pod_name").is_some_and(|pod| pod == "system_processes");
            assert_eq!(expected.iter().any(system), counted && kind == "container");
        }
    }
}

/// What the page of a machine with factors has more.
#[test]
fn carbon_and_cost_are_as_in_the_golden_file() {
    use crate::model::footprint::{Amount, AmountTotals, Amounts, Factor, Footprint, Measure, Part};
    let factor = |measure, unit: &str, per_kwh, fallback| Factor {
        measure,
        unit: unit.into(),
        per_kwh,
        source: "lab \"x\"".into(),
        fallback,
        from: Some(1_795_876_200),
        until: (!fallback).then_some(1_795_878_000),
        why: "".into(),
    };
    let amount = |grams: u128, credit: u128| Amount {
        charge: grams * 36 * 10_u128.pow(17),
        credit: credit * 36 * 10_u128.pow(17),
    };
    let of = |measure, unit: &str, fallback, credit| {
        let parts = [Part::Idle, Part::Unattributed, Part::Tenant("web".into()), Part::Tenant("db".into())];
        let parts = parts.into_iter().zip(1..).map(|(part, grams)| (part, amount(grams, credit))).collect();
        Amounts { measure, unit: unit.into(), fallback, parts }
    };
    let amounts = vec![
        of(Measure::Co2eLocation, "gCO2e", false, 0),
        of(Measure::Co2eLocation, "gCO2e", true, 0),
        of(Measure::Cost, "EUR", false, 5),
    ];
    let uncounted = [(Measure::Co2eMarket, crate::model::units::Microjoules(7_000_000))].into_iter().collect();
    let factors = vec![
        factor(Measure::Co2eLocation, "gCO2e", Some(344_000_000), true),
        factor(Measure::Co2eMarket, "gCO2e", None, false),
        factor(Measure::Cost, "EUR", Some(-50_000), false),
    ];
    let footprint = Some(Arc::new(Footprint { factors, totals: AmountTotals { amounts, uncounted } }));
    let (now, options) = (Stamp::default(), PrometheusOptions::default());
    let show = |snapshot| render(&Arc::new(snapshot), None, now, &options, Format::Classic);
    let without: std::collections::HashSet<String> = show(snapshot()).lines().map(str::to_owned).collect();
    let text = show(crate::model::snapshot::Snapshot { footprint, ..snapshot() });
    let more: Vec<&str> = text.split_inclusive('\n').filter(|line| !without.contains(line.trim_end())).collect();
    check("metrics-footprint.txt", &more.concat());
    let page = parse(&text, false);
    let node: f64 =
        page.all("jouled_co2e_grams_total", &[("state", "valid")]).map(|one| one.parse::<f64>().unwrap()).sum();
    let tenants: f64 =
        page.all("jouled_tenant_co2e_grams_total", &[("state", "valid")]).map(|one| one.parse::<f64>().unwrap()).sum();
    assert_eq!((node, tenants), (10.0, 7.0), "parts are the node's, and tenants one of them");
}

/// The families and samples of GPUs, platform meters and the remainder: what the page of a machine without them lacks.
#[test]
fn gpus_and_platform_meters_are_as_in_the_golden_file() {
    let options =
        PrometheusOptions { dialects: Dialects { kepler: true, legacy: true }, ..PrometheusOptions::default() };
    let now = Stamp { monotonic: Nanos(100_250_000_000), ..Stamp::default() };
    let text = render(&Arc::new(with_platform()), None, now, &options, Format::Classic);
    let without: std::collections::HashSet<String> =
        render(&Arc::new(snapshot()), None, now, &options, Format::Classic).lines().map(str::to_owned).collect();
    let more: Vec<&str> = text.split_inclusive('\n').filter(|line| !without.contains(line.trim_end())).collect();
    check("metrics-platform.txt", &more.concat());
    let page = parse(&text, false);
    assert_eq!(page.all("kepler_vm_gpu_joules_total", &[]).count(), 0, "Kepler has no such name");
    assert_eq!(page.all("jouled_vm_joules_total", &[("zone", "gpu"), ("mode", "dynamic")]).next(), Some("200.000001"));
    for zone in ["platform", "gpu", "other"] {
        assert_eq!(page.all("kepler_node_cpu_joules_total", &[("zone", zone)]).count(), 0, "{zone}");
        assert_eq!(page.all("kepler_process_cpu_joules_total", &[("zone", zone)]).count(), 0, "{zone}");
    }
    assert_eq!(page.all("jouled_unit_joules_total", &[("zone", "platform")]).count(), 0);
}

#[test]
fn both_formats_say_the_same_and_both_dialects_go_together() {
    let classic = parse(&page(Format::Classic, true, true), false);
    let openmetrics = parse(&page(Format::OpenMetrics, true, true), true);
    assert_eq!(classic.samples, openmetrics.samples);
    assert!(classic.samples.len() > 300);
}

#[test]
fn promtool_has_nothing_to_say() {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = promtool.spawn() else {
        println!("skipped: promtool is not installed");
        return;
    };
    child.stdin.take().unwrap().write_all(page(Format::Classic, true, false).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn rows_rest_and_ended_add_up_whatever_is_switched_on() {
    let view = snapshot();
    for kepler in [true, false] {
        let page = parse(&page(Format::Classic, kepler, false), false);
        for kind in Kind::ALL {
            let view = view.kind(kind);
            let charged: u64 = view.rows.iter().map(|row| row.energy.dynamic[0].0 + row.energy.idle[0].0).sum::<u64>()
                + view.rest.dynamic[0].0
                + view.ended.dynamic[0].0
                + view.ended.idle[0].0;
            let name = kind.as_str().replace('-', "_");
            let shown: u64 = [
                format!("kepler_{name}_cpu_joules_total"),
                format!("jouled_{name}_joules_total"),
                format!("jouled_{name}_rest_joules_total"),
                format!("jouled_{name}_ended_joules_total"),
            ]
            .iter()
            .flat_map(|name| page.all(name, &[("zone", "package")]))
            .map(|joules| (joules.parse::<f64>().unwrap() * 1e6).round() as u64)
            .sum();
            assert_eq!(shown, charged, "{name}, kepler {kepler}");
        }
    }
}

#[test]
fn nothing_is_shown_that_is_not_known() {
    let text = page(Format::Classic, true, false);
    let page = parse(&text, false);
    // A zone without a domain, a zone with a domain without power, meters that do not exist: no samples.
    assert_eq!(page.all("kepler_node_cpu_joules_total", &[("zone", "psys")]).count(), 0);
    assert_eq!(page.all("kepler_node_cpu_watts", &[("zone", "dram")]).count(), 0);
    assert_eq!(page.all("kepler_process_cpu_watts", &[("zone", "dram")]).count(), 0);
    assert_eq!(page.value("kepler_node_cpu_joules_total", &[("zone", "dram")]), Some("750000.0"));
    for absent in [
        "_gpu_",
        "zone=\"gpu\"",
        "kepler_platform",
        "zone=\"platform\"",
        "zone=\"other\"",
        "jouled_platform",
        "jouled_meter",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
    // Ages are relative to the time of the scrape.
    assert_eq!(page.value("jouled_source_age_seconds", &[("source", "bpf")]), Some("1.25"));
    assert_eq!(page.value("jouled_source_age_seconds", &[("source", "estimate")]), None);
    assert_eq!(page.value("jouled_source_state", &[("source", "rapl-powercap"), ("state", "failed")]), Some("1"));
    assert_eq!(page.value("jouled_source_state", &[("source", "rapl-powercap"), ("state", "healthy")]), Some("0"));
    // The sum over `mode` is the domain's total.
    let of_domain: f64 = page
        .all("jouled_domain_joules_total", &[("domain", "rapl/package-0/package")])
        .map(|v| v.parse::<f64>().unwrap())
        .sum();
    assert!((of_domain - 4_000_000.000_001).abs() < 1e-6);
    // Energy beyond 2^52 µJ is exact to the microjoule.
    assert_eq!(
        page.value("kepler_process_cpu_joules_total", &[("pid", "4712"), ("zone", "package")]),
        Some("8000000000.000001")
    );
}

#[test]
fn a_level_that_is_left_out_has_no_series() {
    let options = PrometheusOptions { levels: vec![Kind::Unit], ..PrometheusOptions::default() };
    let text = render(&Arc::new(snapshot()), None, Stamp::default(), &options, Format::Classic);
    assert!(!text.contains("_process_") && !text.contains("_slice_") && text.contains("jouled_unit_joules_total"));
}

/// docs/metrics.md has every family of every page.
#[test]
fn every_family_is_documented() {
    let docs = include_str!("../../../../../docs/metrics.md");
    for page in ["metrics.txt", "metrics-legacy.txt", "metrics-platform.txt"] {
        let page =
            std::fs::read_to_string(format!("{}/../tests/integration/golden/{page}", env!("CARGO_MANIFEST_DIR")))
                .unwrap();
        for family in page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()) {
            let kinds = Kind::ALL.map(|kind| format!("jouled_{}_", kind.as_str().replace('-', "_")));
            let folded =
                kinds.iter().filter_map(|kind| Some(format!("jouled_KIND_{}", family.strip_prefix(kind.as_str())?)));
            let mut names = folded.chain([family.to_string()]);
            assert!(names.any(|name| docs.contains(&format!("`{name}`"))), "{family} is not in docs/metrics.md");
        }
    }
}
