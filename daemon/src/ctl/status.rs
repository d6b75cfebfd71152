//! `joulectl status`: the node's power and energy, sources and their health, domains, use, jouled's own cost. Pure:
//! snapshot in, text out.

use super::billing::Base;
use super::platform;
use super::sources::{Source, ago, remarks};
use super::text::{self, span, watts};
use crate::model::billing::SharedBy;
use crate::model::domain::Quality;
use crate::model::snapshot::{DomainView, IdleFrom, LearnedBand, LearnedView, Snapshot};
use crate::model::source::SourceRole;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use serde::Serialize;

/// As text. `now`: CLOCK_MONOTONIC, for ages of readings.
pub fn lines(snapshot: &Snapshot, now: Nanos) -> Vec<String> {
    let host = &snapshot.host;
    let mut lines = vec![format!(
        "jouled {} on {} ({}, {} CPUs): tick {}, one every {}, the last {}",
        text::safe(&host.version),
        text::safe(&host.node_name),
        text::safe(&host.arch),
        host.cpus.len(),
        snapshot.ticks,
        span(host.interval),
        ago(now, Some(snapshot.at.monotonic)),
    )];
    if stalled(snapshot, now) {
        lines.push("NO TICK FOR LONG: jouled hangs, or the machine was suspended; the numbers are old.".to_owned());
    }
    lines.extend(warning(snapshot));
    lines.push(String::new());
    lines.extend(node(snapshot));
    lines.extend(platform::disagreements(snapshot));
    lines.push(String::new());
    lines.extend(sources(snapshot, now));
    lines.push(String::new());
    lines.extend(domains(snapshot, now));
    lines.push(String::new());
    lines.extend(usage(snapshot));
    lines
}

/// Whether the last tick is too old: three intervals and 2 s.
fn stalled(snapshot: &Snapshot, now: Nanos) -> bool {
    now - snapshot.at.monotonic > Nanos(snapshot.host.interval.0.saturating_mul(3) + 2 * Nanos::SECOND.0)
}

/// The warning that nothing is measured, or nothing but by a model.
pub fn warning(snapshot: &Snapshot) -> Option<String> {
    if snapshot.domains.is_empty() {
        return Some("NO ENERGY IS MEASURED: no meter works on this machine (see the sources).".to_owned());
    }
    let estimated = snapshot.estimated();
    estimated.then(|| "ESTIMATE: no meter can be read here; all watts and joules come from a model.".to_owned())
}

fn or_none(power: Option<Microwatts>) -> String {
    power.map_or_else(|| "-".to_owned(), watts)
}

fn node(snapshot: &Snapshot) -> Vec<String> {
    let base = Base::of(snapshot);
    let node = base.node(snapshot);
    let busy = snapshot.cpu_usage.map(|part| format!("; CPUs {:.1} % busy", part * 100.0)).unwrap_or_default();
    let missing =
        if node.missing == 0 { String::new() } else { format!(", without {} unread domain(s)", node.missing) };
    let charged = node.energy.active - node.energy.unattributed;
    let head = base.heading(snapshot, "");
    vec![
        format!(
            "Power{head}: {} ({}{missing}), of which idle {}{busy}",
            or_none(node.power),
            base.words(),
            or_none(node.idle_power)
        ),
        format!(
            "Energy{head}: {} = {} idle + {} charged + {} unattributed ({})",
            text::joules(node.energy.total),
            text::joules(node.energy.idle),
            text::joules(charged),
            text::joules(node.energy.unattributed),
            text::share(node.energy.unattributed.0, node.energy.total.0),
        ),
        base.lacks(snapshot) + &estimated_before(snapshot, &base),
    ]
}

/// A sentence on energy that was estimated earlier, on a machine that has a meter now.
fn estimated_before(snapshot: &Snapshot, base: &Base) -> String {
    let estimated =
        |view: &&DomainView| view.past && view.domain.quality == Quality::Estimated && base.contains(view.domain.zone);
    let energy: Microjoules = snapshot.domains.iter().filter(estimated).map(|view| view.energy.total).sum();
    if energy == Microjoules::ZERO || snapshot.estimated() {
        return String::new();
    }
    format!(" {} of the energy are an estimate, from a time without a meter.", text::joules(energy))
}

fn sources(snapshot: &Snapshot, now: Nanos) -> Vec<String> {
    let mut rows = vec![["SOURCE", "ROLE", "STATE", "LAST READ", "WHAT, WHY"].map(String::from).to_vec()];
    for view in &snapshot.sources {
        rows.push(vec![
            text::safe(&view.source),
            view.role.as_str().to_owned(),
            view.health.as_str().to_owned(),
            ago(now, view.read_at),
            remarks(view),
        ]);
    }
    text::table(&rows, false, None)
}

fn domains(snapshot: &Snapshot, now: Nanos) -> Vec<String> {
    let heads = ["DOMAIN", "POWER", "ENERGY", "IDLE FLOOR", "QUALITY", "LAST READ", "SOURCE", "PATH"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    rows.extend(snapshot.domains.iter().map(|view| {
        vec![
            text::safe(&view.domain.id),
            or_none(view.power),
            text::joules(view.energy.total),
            floor(view),
            view.domain.quality.as_str().to_owned(),
            ago(now, view.read_at),
            text::safe(&view.domain.source),
            text::safe(&view.domain.path),
        ]
    }));
    let mut lines = Vec::new();
    // Errors and gaps go below the line of their domain. The heading is the first line.
    let views = std::iter::once(None).chain(snapshot.domains.iter().map(Some));
    for (line, view) in text::table(&rows, false, None).into_iter().zip(views) {
        lines.push(line);
        let Some(view) = view else { continue };
        if view.past {
            let estimate = if view.domain.quality == Quality::Estimated { ", an estimate," } else { "" };
            lines.push(format!("  {}: its energy{estimate} stays in the sums", text::safe(&view.error)));
        } else if !view.error.is_empty() {
            lines.push(format!("  cannot be read: {}", text::safe(&view.error)));
        }
        if let (Some(_), Some(interval)) = (view.power, view.interval) {
            let beyond =
                if interval.extrapolating { "; extrapolating: its model has not seen such a load" } else { "" };
            lines.push(format!(
                "  an estimate: in 90 % of cases it is between {} and {}{beyond}",
                watts(interval.low),
                watts(interval.high)
            ));
        }
        if view.floor.is_some_and(|floor| floor.from == IdleFrom::Prior) && !view.past {
            lines.push(
                "  idle and active energy are a guess: loads have not differed enough yet to learn the idle floor"
                    .into(),
            );
        }
        if view.shared_by == Some(SharedBy::Model) {
            lines.push("  shared by what work costs in its learned model: cycles, instructions, cache misses".into());
        }
        lines.extend(view.learned.as_ref().and_then(learned));
        if view.gaps > 0 {
            lines.push(format!("  {} interval(s) not measured, {} in all", view.gaps, span(view.gap_time)));
        }
    }
    lines
}

/// What its meter taught of its power, where that is something already.
fn learned(learned: &LearnedView) -> Option<String> {
    let percent = |ppm: u64| format!("{:.1} %", ppm as f64 / 1e4);
    let bands: Vec<String> = learned
        .bands
        .iter()
        .map(|band| format!("{} to {} % load: {}", band.from_percent, band.to_percent, percent(band.error_ppm)))
        .collect();
    let now = learned.predicted.map_or_else(String::new, |said| {
        let (low, high) = (said.interval.low, said.interval.high);
        format!("; of the last window it says {} ({} to {})", watts(said.power), watts(low), watts(high))
    });
    Some(format!(
        "  its meter taught the model {} for {}; error before it learned each window: {} ({}){now}",
        text::safe(&learned.name),
        span(learned.taught),
        percent(learned.error_ppm?),
        bands.join(", ")
    ))
}

fn floor(view: &DomainView) -> String {
    let Some(floor) = view.floor else { return "-".to_owned() };
    let error = floor.error().filter(|error| *error > Microwatts::ZERO);
    let error = error.map_or_else(String::new, |error| format!(" ± {}", watts(error)));
    format!("{}{error} ({})", watts(floor.power), floor.from.as_str())
}

/// Mean use of CPUs by jouled since it started, in per cent of one core. The time since then is that of its ticks.
fn own_percent(snapshot: &Snapshot) -> f64 {
    let up = snapshot.host.interval.seconds() * snapshot.ticks as f64;
    if up > 0.0 { snapshot.own_cpu.seconds() / up * 100.0 } else { 0.0 }
}

fn usage(snapshot: &Snapshot) -> Vec<String> {
    let from: Vec<_> = snapshot
        .sources
        .iter()
        .filter(|view| view.role == SourceRole::Usage && view.health.answers())
        .map(|view| format!("{} ({})", text::safe(&view.source), view.health.as_str()))
        .collect();
    let from =
        if from.is_empty() { "no source works: all active energy is unattributed".to_owned() } else { from.join(", ") };
    let counted = &snapshot.counted;
    let counters =
        [(counted.cycles, "cycles"), (counted.instructions, "instructions"), (counted.cache_misses, "cache misses")];
    let counters: Vec<_> = counters.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect();
    let counters =
        if counters.is_empty() { "CPU time only".to_owned() } else { format!("CPU time, {}", counters.join(", ")) };
    vec![
        format!("Use: {from}; counted: {counters}"),
        format!("Lost: {} overflow(s), {} of CPU time not attributed", snapshot.overflows, span(snapshot.lost_cpu)),
        format!(
            "jouled itself: {:.2} s of CPU time, {:.2} % of a core",
            snapshot.own_cpu.seconds(),
            own_percent(snapshot)
        ),
    ]
}

/// `joulectl status --json`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    version: &'a str,
    node_name: &'a str,
    arch: &'a str,
    cpus: usize,
    at: String,
    interval_seconds: f64,
    ticks: u64,
    stalled: bool,
    estimated: bool,
    base: String,
    watts: Option<f64>,
    idle_watts: Option<f64>,
    microjoules: u64,
    idle_microjoules: u64,
    unattributed_microjoules: u64,
    cpu_usage: Option<f64>,
    overflows: u64,
    lost_cpu_seconds: f64,
    own_cpu_seconds: f64,
    own_cpu_percent: f64,
    sources: Vec<Source<'a>>,
    domains: Vec<Domain<'a>>,
}

#[derive(Debug, Serialize)]
struct Domain<'a> {
    domain: &'a str,
    source: &'a str,
    zone: &'static str,
    path: &'a str,
    quality: &'static str,
    in_base: bool,
    watts: Option<f64>,
    low_watts: Option<f64>,
    high_watts: Option<f64>,
    extrapolating: bool,
    idle_watts: Option<f64>,
    microjoules: u64,
    idle_microjoules: u64,
    active_microjoules: u64,
    unattributed_microjoules: u64,
    floor_watts: Option<f64>,
    floor_uncertainty_watts: Option<f64>,
    floor_from: Option<&'static str>,
    shared_by: Option<&'static str>,
    age_seconds: Option<f64>,
    error: &'a str,
    gaps: u64,
    gap_seconds: f64,
    model: Option<Learned<'a>>,
}

/// The model that a domain's meter taught.
#[derive(Debug, Serialize)]
struct Learned<'a> {
    name: &'a str,
    taught_seconds: f64,
    error_percent: Option<f64>,
    bands: Vec<Band>,
    predicted: Option<Said>,
}

/// What it says of the last window, before that taught it.
#[derive(Debug, Serialize)]
struct Said {
    watts: f64,
    low: f64,
    high: f64,
    extrapolating: bool,
}

#[derive(Debug, Serialize)]
struct Band {
    from_percent: u8,
    to_percent: u8,
    error_percent: f64,
}

impl<'a> Learned<'a> {
    fn of(learned: &'a LearnedView) -> Self {
        let percent = |ppm: u64| ppm as f64 / 1e4;
        let band = |band: &LearnedBand| Band {
            from_percent: band.from_percent,
            to_percent: band.to_percent,
            error_percent: percent(band.error_ppm),
        };
        Self {
            name: &learned.name,
            taught_seconds: learned.taught.seconds(),
            error_percent: learned.error_ppm.map(percent),
            bands: learned.bands.iter().map(band).collect(),
            predicted: learned.predicted.map(|said| Said {
                watts: said.power.watts(),
                low: said.interval.low.watts(),
                high: said.interval.high.watts(),
                extrapolating: said.interval.extrapolating,
            }),
        }
    }
}

/// As JSON. `now`: CLOCK_MONOTONIC, for ages of readings.
pub fn json(snapshot: &Snapshot, now: Nanos) -> Status<'_> {
    let base = Base::of(snapshot);
    let node = base.node(snapshot);
    let age = |then: Option<Nanos>| then.map(|then| (now - then).seconds());
    let in_watts = |power: Option<Microwatts>| power.map(Microwatts::watts);
    Status {
        version: &snapshot.host.version,
        node_name: &snapshot.host.node_name,
        arch: &snapshot.host.arch,
        cpus: snapshot.host.cpus.len(),
        at: text::rfc3339(snapshot.at.realtime),
        interval_seconds: snapshot.host.interval.seconds(),
        ticks: snapshot.ticks,
        stalled: stalled(snapshot, now),
        estimated: snapshot.estimated(),
        base: base.words(),
        watts: in_watts(node.power),
        idle_watts: in_watts(node.idle_power),
        microjoules: node.energy.total.0,
        idle_microjoules: node.energy.idle.0,
        unattributed_microjoules: node.energy.unattributed.0,
        cpu_usage: snapshot.cpu_usage,
        overflows: snapshot.overflows,
        lost_cpu_seconds: snapshot.lost_cpu.seconds(),
        own_cpu_seconds: snapshot.own_cpu.seconds(),
        own_cpu_percent: own_percent(snapshot),
        sources: snapshot.sources.iter().map(|view| Source::of(view, now)).collect(),
        domains: snapshot
            .domains
            .iter()
            .map(|view| Domain {
                domain: &view.domain.id,
                source: &view.domain.source,
                zone: view.domain.zone.as_str(),
                path: &view.domain.path,
                quality: view.domain.quality.as_str(),
                in_base: base.contains(view.domain.zone),
                watts: in_watts(view.power),
                low_watts: in_watts(view.power.and(view.interval).map(|interval| interval.low)),
                high_watts: in_watts(view.power.and(view.interval).map(|interval| interval.high)),
                extrapolating: view.interval.is_some_and(|interval| interval.extrapolating),
                idle_watts: in_watts(view.idle_power),
                microjoules: view.energy.total.0,
                idle_microjoules: view.energy.idle.0,
                active_microjoules: view.energy.active.0,
                unattributed_microjoules: view.energy.unattributed.0,
                floor_watts: in_watts(view.floor.map(|floor| floor.power)),
                floor_uncertainty_watts: in_watts(view.floor.and_then(|floor| floor.error())),
                floor_from: view.floor.map(|floor| floor.from.as_str()),
                shared_by: view.shared_by.map(SharedBy::as_str),
                age_seconds: age(view.read_at),
                error: &view.error,
                gaps: view.gaps,
                gap_seconds: view.gap_time.seconds(),
                model: view.learned.as_ref().map(Learned::of),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::model::domain::{PowerInterval, Quality};
    use crate::model::snapshot::PredictedPower;

    fn text_of(snapshot: &Snapshot) -> String {
        lines(snapshot, snapshot.at.monotonic + Nanos(300_000_000)).join("\n")
    }

    #[test]
    fn everything_is_said() {
        let mut snapshot = fixture::snapshot();
        snapshot.domains[3].error = "psys: Permission denied\x1b[0m".into();
        snapshot.domains[3].power = None;
        snapshot.domains[3].gaps = 2;
        let text = text_of(&snapshot);
        for said in [
            "jouled 0.1.0 on node1 (x86_64, 0 CPUs): tick 50, one every 1.0 s, the last 0.3 s ago",
            "Power: 55.0 W (package + dram), of which idle 22.0 W; CPUs 25.0 % busy",
            "Energy: 1.10 kJ = 440 J idle + 605 J charged + 55.0 J unattributed (5.0 %)",
            "fans, disks and power supply losses are not in these numbers",
            "bpf            usage  degraded     0.3 s ago  no PMU in this guest",
            "rapl-powercap  meter  unsupported  never      no intel-rapl zone",
            "20.0 W ± 1.00 W (learned)",
            "  cannot be read: psys: Permission denied\\u{1b}[0m",
            "  2 interval(s) not measured",
            "Use: bpf (degraded); counted: CPU time, cycles",
            "Lost: 3 overflow(s), 2.0 s of CPU time",
            "jouled itself: 0.10 s of CPU time, 0.20 % of a core",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
        assert!(!text.contains("ESTIMATE") && !text.contains("NO TICK"), "{text}");
    }

    #[test]
    fn an_estimate_is_called_one() {
        let mut snapshot = fixture::snapshot();
        for at in 0..4 {
            fixture::domain(&mut snapshot, at).quality = Quality::Estimated;
        }
        let text = text_of(&snapshot);
        assert!(text.contains("\nESTIMATE: ") && text.contains("Power (est.): "), "{text}");
        assert!(json(&snapshot, Nanos(0)).estimated);
    }

    #[test]
    fn what_a_meter_taught_is_shown_with_its_error() {
        let mut snapshot = fixture::snapshot();
        let bands = vec![LearnedBand { from_percent: 0, to_percent: 10, error_ppm: 41_000 }];
        let learned = LearnedView {
            name: "learned-rapl-package-0".into(),
            taught: Nanos(7_200_000_000_000),
            taught_at: None,
            error_ppm: Some(23_400),
            bands,
            predicted: None,
            model: None,
        };
        snapshot.domains[0].learned = Some(learned.clone());
        let text = text_of(&snapshot);
        let line = "  its meter taught the model learned-rapl-package-0 for 2 h 0 min; error before it learned each \
                    window: 2.3 % (0 to 10 % load: 4.1 %)\n";
        assert!(text.contains(line), "{text}");
        let shown = serde_json::to_value(json(&snapshot, Nanos(0))).unwrap();
        assert_eq!(shown["domains"][0]["model"]["error_percent"], 2.34);
        assert!(shown["domains"][1]["model"].is_null());
        let interval = PowerInterval { low: Microwatts(38_000_000), high: Microwatts(44_500_000), extrapolating: true };
        let predicted = Some(PredictedPower { power: Microwatts(41_250_000), interval });
        snapshot.domains[0].learned = Some(LearnedView { predicted, ..learned.clone() });
        let text = text_of(&snapshot);
        assert!(text.contains("4.1 %); of the last window it says 41.2 W (38.0 W to 44.5 W)\n"), "{text}");
        let shown = serde_json::to_value(json(&snapshot, Nanos(0))).unwrap();
        let said = serde_json::json!({"watts": 41.25, "low": 38.0, "high": 44.5, "extrapolating": true});
        assert_eq!(shown["domains"][0]["model"]["predicted"], said);
        snapshot.domains[0].learned = Some(LearnedView { error_ppm: None, ..learned });
        assert!(!text_of(&snapshot).contains("taught the model"), "nothing was predicted yet");
    }

    #[test]
    fn an_estimate_has_an_interval() {
        let mut snapshot = fixture::snapshot();
        let (low, high) = (Microwatts(31_500_000), Microwatts(62_000_000));
        snapshot.domains[0].interval = Some(PowerInterval { low, high, extrapolating: true });
        let text = text_of(&snapshot);
        let said = "  an estimate: in 90 % of cases it is between 31.5 W and 62.0 W; extrapolating: its model";
        assert!(text.contains(said), "{text}");
        let value = serde_json::to_value(json(&snapshot, snapshot.at.monotonic)).unwrap();
        let domain = &value["domains"][0];
        assert_eq!((&domain["low_watts"], &domain["high_watts"]), (&31.5.into(), &62.0.into()));
        assert_eq!((&domain["extrapolating"], &value["domains"][1]["low_watts"]), (&true.into(), &().into()));
        snapshot.domains[0].power = None;
        assert!(!text_of(&snapshot).contains("in 90 % of cases"));
    }

    #[test]
    fn missing_is_not_zero() {
        let mut snapshot = fixture::snapshot();
        snapshot.domains[1].power = None;
        assert!(text_of(&snapshot).contains("Power: 50.0 W (package + dram, without 1 unread domain(s))"));
        snapshot.domains.clear();
        let text = text_of(&snapshot);
        assert!(text.contains("NO ENERGY IS MEASURED") && text.contains("Power: - (nothing)"), "{text}");
    }

    #[test]
    fn the_base_is_that_of_every_export() {
        for (name, snapshot, zones) in crate::export::prometheus::tests::machines() {
            let value = serde_json::to_value(json(&snapshot, Nanos(0))).unwrap();
            let domains = value["domains"].as_array().unwrap().iter().filter(|domain| domain["in_base"] == true);
            let billed: std::collections::BTreeSet<&str> = domains.map(|one| one["zone"].as_str().unwrap()).collect();
            assert_eq!(billed, zones.iter().map(|zone| zone.as_str()).collect(), "{name}");
            assert_eq!(value["base"] == "nothing", zones.is_empty(), "{name}");
            assert_eq!(value["watts"].is_null(), zones.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_jouled_that_hangs_shows() {
        let snapshot = fixture::snapshot();
        let text = lines(&snapshot, snapshot.at.monotonic + Nanos(60 * Nanos::SECOND.0)).join("\n");
        assert!(text.contains("NO TICK FOR LONG"), "{text}");
    }

    #[test]
    fn json_keeps_exact_numbers() {
        let mut snapshot = fixture::snapshot();
        snapshot.domains[0].energy.total.0 = 1_000_000_001;
        let value = serde_json::to_value(json(&snapshot, snapshot.at.monotonic)).unwrap();
        assert_eq!(value["microjoules"], 1_100_000_001_u64);
        assert_eq!(value["domains"][3]["in_base"], false);
        assert_eq!(value["sources"][2]["age_seconds"], serde_json::Value::Null);
        assert_eq!(value["sources"][1]["why"], "no PMU in this guest");
    }

    #[test]
    fn what_an_earlier_run_estimated_is_said() {
        let mut snapshot = fixture::snapshot();
        let mut past = snapshot.domains[0].clone();
        (past.past, past.error) = (true, "not found since this start".into());
        std::sync::Arc::make_mut(&mut past.domain).quality = Quality::Estimated;
        snapshot.domains.push(past);
        let text = lines(&snapshot, snapshot.at.monotonic).join("\n");
        assert!(text.contains("of the energy are an estimate, from a time without a meter"), "{text}");
        assert!(text.contains("not found since this start: its energy, an estimate, stays in the sums"), "{text}");
    }
}
