//! The yearly figures of this machine for the operator of a data centre, who reports those of Delegated Regulation
//! (EU) 2024/1364 (http://data.europa.eu/eli/reg_del/2024/1364/oj): indicators of Annex II, and ratios of these of
//! Annex III. A machine knows its part of one of them, E_IT. All others are listed as not known. Pure.
//!
//! The list was made from summaries of the regulation, as its text could not be had here.

use super::{KWH, date_time};
use crate::ctl::text;
use crate::history::local::Calendar;
use crate::history::report::{Part, Report};
use crate::history::slot::Spans;
use crate::model::units::Nanos;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Indicators of Annex II that a machine does not know: name, what it is, and unit.
const INDICATORS: [(&str, &str, &str); 22] = [
    ("", "installed information technology power demand", "kW"),
    ("", "floor areas of the data centre and of its computer rooms", "m²"),
    ("E_DC", "total energy consumption of the data centre", "kWh"),
    ("E_DC-BG", "of that, from backup generators", "kWh"),
    ("", "electrical grid functions", ""),
    ("", "average battery capacity", "kW"),
    ("W_IN", "total water input", "m³"),
    ("W_IN-POT", "total potable water input", "m³"),
    ("E_REUSE", "waste heat reused", "kWh"),
    ("", "average waste heat temperature", "°C"),
    ("", "average setpoint of the intake air temperature", "°C"),
    ("", "types of refrigerants", ""),
    ("", "cooling degree days", "degree days"),
    ("E_RES-TOT", "total renewable energy consumption", "kWh"),
    ("E_RES-GOO", "of that, by guarantees of origin", "kWh"),
    ("E_RES-PPA", "of that, by power purchase agreements", "kWh"),
    ("", "of that, from on-site generation", "kWh"),
    ("", "ICT capacity of servers", ""),
    ("", "ICT capacity of storage equipment", "PB"),
    ("", "incoming and outgoing traffic bandwidth", "Gb/s"),
    ("", "incoming data traffic", "EB"),
    ("", "outgoing data traffic", "EB"),
];

/// Ratios of Annex III: name, what it is, and unit.
const RATIOS: [(&str, &str, &str); 4] = [
    ("PUE", "power usage effectiveness, E_DC / E_IT", ""),
    ("WUE", "water usage effectiveness, W_IN / E_IT", "m³/MWh"),
    ("ERF", "energy reuse factor, E_REUSE / E_DC", ""),
    ("REF", "renewable energy factor, E_RES-TOT / E_DC", ""),
];

/// Zones that a machine's energy consists of where no meter sees the whole machine.
const WHOLE: &str = "other";

/// The figures of a year.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    regulation: &'static str,
    node: String,
    time_zone: String,
    year: i16,
    from: String,
    until: String,
    /// Whether the year is over.
    complete: bool,
    e_it: Energy,
    quality: Quality,
    months: Vec<Month>,
    not_known: Vec<NotKnown>,
}

/// E_IT, as far as this machine knows it.
#[derive(Clone, Debug, Serialize)]
struct Energy {
    /// `None`: there is no history of the year.
    kwh: Option<f64>,
    /// The same in µJ.
    microjoules: Option<u64>,
    /// Names of the zones that it is the sum of.
    zones: BTreeSet<String>,
    kwh_by_zone: BTreeMap<String, f64>,
    /// Whether a meter of the whole machine was among them in some part of the year.
    whole_machine: bool,
    note: &'static str,
}

/// What is known how well. The seconds add up to those of the year until now.
#[derive(Clone, Debug, Serialize)]
struct Quality {
    measured: Known,
    derived: Known,
    estimated: Known,
    /// jouled ran, and a meter gave nothing.
    not_measured: Known,
    /// jouled did not run, or kept no history.
    not_running: Known,
    /// Recorded by a version of jouled that did not keep these times.
    time_of_unknown_quality: Known,
}

/// `None`: not known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Known {
    kwh: Option<f64>,
    share: Option<f64>,
    seconds: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Month {
    from: String,
    until: String,
    kwh: f64,
    microjoules: u64,
    observed_seconds: u64,
    missing_seconds: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct NotKnown {
    /// `II` or `III`.
    annex: &'static str,
    figure: Option<&'static str>,
    what: &'static str,
    unit: Option<&'static str>,
    value: Option<f64>,
}

/// The figures, of a report by zone of the months of `span`, the year. `now`: seconds since 1970.
pub fn figures(report: &Report, year: i16, span: &Range<i64>, now: i64) -> Figures {
    let calendar = Calendar::system();
    let until = span.end.min(now);
    let mut spans = Spans::default();
    let (mut total, mut by_quality, mut observed) = (0, [0; 3], 0);
    let (mut zones, mut by_zone) = (BTreeSet::new(), BTreeMap::new());
    for part in &report.parts {
        let node = &part.node;
        spans.add(&node.quality_ms);
        total += node.total;
        by_quality.iter_mut().zip([node.measured, node.derived, node.estimated]).for_each(|(sum, one)| *sum += one);
        observed += part.observed_seconds;
        zones.extend(node.billed.iter().cloned());
        for zone in &node.billed {
            *by_zone.entry(zone.clone()).or_insert(0) += node.zones.get(zone).copied().unwrap_or_default();
        }
    }
    let length = until.saturating_sub(span.start).max(0).unsigned_abs();
    let known = |energy: u64, ms: u64| Known {
        kwh: Some(energy as f64 / KWH),
        share: (total > 0).then(|| energy as f64 / total as f64),
        seconds: ms / 1_000,
    };
    let unknown = |seconds| Known { kwh: None, share: None, seconds };
    let settled = spans.measured.saturating_add(spans.derived).saturating_add(spans.estimated);
    let whole_machine = zones.contains(WHOLE);
    let is_known = !report.parts.is_empty();
    Figures {
        regulation: "Delegated Regulation (EU) 2024/1364, Annexes II and III",
        node: report.node.clone(),
        time_zone: report.zone.clone(),
        year,
        from: date_time(&calendar, span.start),
        until: date_time(&calendar, until),
        complete: now >= span.end,
        e_it: Energy {
            kwh: is_known.then_some(total as f64 / KWH),
            microjoules: is_known.then_some(total),
            kwh_by_zone: by_zone.into_iter().map(|(zone, energy)| (zone, energy as f64 / KWH)).collect(),
            zones,
            whole_machine,
            note: if !is_known {
                "Not known: jouled kept no history of this machine in this year."
            } else if whole_machine {
                "The part of this machine in the E_IT of its data centre, by the machine's own meters. The regulation \
                 measures E_IT at the outputs of the UPS, or at PDUs: losses between these and the machine are not in it."
            } else {
                "Less than the part of this machine in the E_IT of its data centre: no meter of the whole machine, so that \
                 power supplies, disks, fans and cards without a meter are not in it."
            },
        },
        quality: Quality {
            measured: known(by_quality[0], spans.measured),
            derived: known(by_quality[1], spans.derived),
            estimated: known(by_quality[2], spans.estimated),
            not_measured: unknown(spans.of.saturating_sub(settled) / 1_000),
            not_running: unknown(length.saturating_sub(observed)),
            time_of_unknown_quality: unknown(observed.saturating_sub(spans.of.max(settled) / 1_000)),
        },
        months: report.parts.iter().map(|part| month(part, &calendar, until)).collect(),
        not_known: not_known(),
    }
}

fn month(part: &Part, calendar: &Calendar, until: i64) -> Month {
    Month {
        from: date_time(calendar, part.from),
        until: date_time(calendar, part.until.min(until)),
        kwh: part.node.total as f64 / KWH,
        microjoules: part.node.total,
        observed_seconds: part.observed_seconds,
        missing_seconds: part.node.missing_seconds,
    }
}

fn not_known() -> Vec<NotKnown> {
    let some = |word: &'static str| (!word.is_empty()).then_some(word);
    let of = |annex| {
        move |(figure, what, unit): (&'static str, &'static str, &'static str)| NotKnown {
            annex,
            figure: some(figure),
            what,
            unit: some(unit),
            value: None,
        }
    };
    INDICATORS.into_iter().map(of("II")).chain(RATIOS.into_iter().map(of("III"))).collect()
}

/// The figures as text.
pub fn lines(figures: &Figures) -> Vec<String> {
    let Figures { node, year, from, until, e_it, quality, .. } = figures;
    let so_far = if figures.complete { "" } else { ", so far" };
    let node = text::safe(node);
    let mut lines = vec![
        format!("{node}, {year}{so_far}: {from} to {until} ({})", figures.time_zone),
        format!("Figures of {}, as far as this machine knows", figures.regulation),
        String::new(),
    ];
    match e_it.kwh {
        Some(kwh) => {
            let zones = Vec::from_iter(e_it.zones.iter().map(String::as_str)).join(" + ");
            lines.push(format!("E_IT      {kwh:.6} kWh ({zones})"));
            lines.extend(wrapped(e_it.note));
        }
        None => lines.push(format!("E_IT      {}", e_it.note)),
    }
    lines.push(String::new());
    let rows = [
        ("measured", quality.measured),
        ("derived", quality.derived),
        ("estimated", quality.estimated),
        ("not measured", quality.not_measured),
        ("jouled did not run", quality.not_running),
        ("quality of an earlier version: not known", quality.time_of_unknown_quality),
    ];
    let mut cells = vec![vec!["QUALITY".to_owned(), "KWH".into(), "SHARE".into(), "SECONDS".into(), "TIME".into()]];
    for (name, known) in rows.into_iter().filter(|(_, known)| known.seconds > 0 || known.kwh.unwrap_or_default() > 0.0)
    {
        let kwh = known.kwh.map_or_else(|| "not known".to_owned(), |kwh| format!("{kwh:.6}"));
        let share = known.share.map(|share| format!("{:.1} %", share * 100.0)).unwrap_or_default();
        let time = text::span(Nanos(known.seconds.saturating_mul(Nanos::SECOND.0)));
        cells.push(vec![name.to_owned(), kwh, share, known.seconds.to_string(), time]);
    }
    lines.extend(text::table(&cells, true, None));
    if !figures.months.is_empty() {
        lines.push(String::new());
        lines.extend(months(&figures.months));
    }
    lines.push(String::new());
    lines.push("Not known to this machine, by Annex:".into());
    for NotKnown { annex, figure, what, unit, .. } in &figures.not_known {
        let unit = unit.map(|unit| format!(" ({unit})")).unwrap_or_default();
        lines.push(format!("{annex:<4} {:<9} {what}{unit}", figure.unwrap_or_default()));
    }
    lines
}

/// A table of months.
fn months(months: &[Month]) -> Vec<String> {
    let mut cells = vec![vec!["MONTH".to_owned(), "KWH".into(), "JOULED RAN".into(), "A METER MISSED".into()]];
    let span = |seconds: u64| text::span(Nanos(seconds.saturating_mul(Nanos::SECOND.0)));
    for month in months {
        let name = month.from.get(..7).unwrap_or(&month.from).to_owned();
        cells.push(vec![name, format!("{:.6}", month.kwh), span(month.observed_seconds), span(month.missing_seconds)]);
    }
    text::table(&cells, true, None)
}

/// A text in lines of at most 78 columns, under the numbers.
fn wrapped(note: &str) -> Vec<String> {
    let mut lines = vec![" ".repeat(9)];
    for word in note.split(' ') {
        if lines.last().is_some_and(|line| line.len() + word.len() >= 78) {
            lines.push(" ".repeat(9));
        }
        if let Some(line) = lines.last_mut() {
            *line += " ";
            *line += word;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::tests::part;
    use super::*;

    fn report(zone: &str) -> Report {
        let mut part = part();
        part.node.billed = BTreeSet::from(["package".to_owned(), zone.to_owned()]);
        part.node.zones = BTreeMap::from([("package".to_owned(), 15_000_000), (zone.to_owned(), 5_000_001)]);
        part.node.quality_ms = Spans { of: 2_000_000, measured: 1_500_000, estimated: 488_000, ..Spans::default() };
        Report {
            node: "n".into(),
            zone: "UTC".into(),
            by: "zone".into(),
            parts: vec![part],
            declared: Default::default(),
        }
    }

    #[test]
    fn energy_and_time_are_told_apart_by_quality_and_add_up() {
        let figures = figures(&report("other"), 1970, &(0..31_536_000), 86_400);
        let Figures { e_it, quality, complete, .. } = &figures;
        assert_eq!((e_it.microjoules, e_it.whole_machine, complete), (Some(20_000_001), true, &false));
        let seconds = |known: Known| known.seconds;
        let all = [
            seconds(quality.measured),
            seconds(quality.derived),
            seconds(quality.estimated),
            seconds(quality.not_measured),
            seconds(quality.not_running),
            seconds(quality.time_of_unknown_quality),
        ];
        assert_eq!(all, [1_500, 0, 488, 12, 86_400 - 3_000, 1_000]);
        assert_eq!(all.iter().sum::<u64>(), 86_400);
        assert_eq!(quality.measured.kwh.unwrap() + quality.estimated.kwh.unwrap(), e_it.kwh.unwrap());
        assert_eq!((quality.not_measured.kwh, quality.not_running.share), (None, None), "not known, and not 0");
    }

    #[test]
    fn what_a_machine_cannot_know_is_null_and_never_0() {
        let figures = figures(&report("dram"), 1970, &(0..86_400), 86_400);
        let json = serde_json::to_value(&figures).unwrap();
        let not_known = json["not_known"].as_array().unwrap();
        assert!(not_known.iter().all(|figure| figure["value"].is_null()));
        for wanted in ["E_DC", "W_IN", "E_REUSE", "E_RES-TOT", "PUE"] {
            let is_ratio = wanted == "PUE";
            let found = not_known.iter().find(|figure| figure["figure"] == wanted).unwrap();
            assert_eq!(found["annex"], if is_ratio { "III" } else { "II" }, "{wanted}");
        }
        assert_eq!((&json["complete"], &json["e_it"]["whole_machine"]), (&true.into(), &false.into()));
        let text = lines(&figures).join("\n");
        assert!(
            text.contains("Less than the part of this machine") && text.contains("II   W_IN      total water"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn a_year_without_history_is_all_not_running() {
        let report = Report { parts: Vec::new(), ..report("other") };
        let figures = figures(&report, 1970, &(0..86_400), 86_400);
        assert_eq!(
            (figures.quality.not_running.seconds, figures.e_it.microjoules),
            (86_400, None),
            "not known, and not 0"
        );
        assert_eq!(figures.quality.measured.share, None);
        let text = lines(&figures).join("\n");
        assert!(text.contains("jouled did not run") && !text.contains("MONTH"), "{text}");
        assert!(text.contains("E_IT      Not known: jouled kept no history"), "{text}");
    }
}
