//! What is chosen of a snapshot, and which snapshot is that of a time.

use super::*;
use crate::export::prometheus::tests::snapshot;
use crate::export::prometheus::{Dialects, Format, PrometheusOptions, render};
use crate::export::push::config::{Amount, Receiver as Wanted};
use crate::export::push::series::{Batch, Choice, Grid, Known};
use crate::model::entity::Kind;
use crate::model::snapshot::Snapshot;
use crate::model::source::Stamp;
use crate::model::units::Nanos;

fn batch(wanted: &Wanted) -> Batch {
    Choice::new(wanted, Dialects::default()).batch(&snapshot(), Vec::new())
}

fn all(batch: &Batch) -> impl Iterator<Item = &Series> {
    batch.counters.iter().chain(&batch.gauges)
}

fn label<'a>(series: &'a Series, wanted: &str) -> &'a str {
    series.labels.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value)
}

#[test]
fn names_labels_and_values_are_those_of_the_page() {
    let wanted = Wanted { series: Amount::All, levels: Kind::ALL.to_vec(), ..Wanted::default() };
    let of_push = batch(&wanted);
    assert!(of_push.counters.iter().all(|series| label(series, "__name__").ends_with("_total")));
    let page = render(&Arc::new(snapshot()), None, Stamp::default(), &PrometheusOptions::default(), Format::Classic);
    // Of the page's families, those about ages are not of the snapshot.
    let on_page: BTreeMap<String, usize> = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_age_"))
        .map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned())
        .fold(BTreeMap::new(), |mut names, name| {
            *names.entry(name).or_default() += 1;
            names
        });
    let sent = all(&of_push).fold(BTreeMap::new(), |mut names, series| {
        *names.entry(label(series, "__name__").to_owned()).or_default() += 1;
        names
    });
    assert_eq!(sent, on_page);
    for series in all(&of_push) {
        assert!(series.labels.is_sorted() && series.labels.iter().all(|(_, value)| !value.is_empty()));
        assert_eq!((label(series, "job"), label(series, "instance")), ("jouled", &*snapshot().host.node_name));
    }
    let sum: f64 = all(&of_push).map(|series| series.value).filter(|value| value.is_finite()).sum();
    let on_page: f64 = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_age_"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .filter(|value| value.is_finite())
        .sum();
    assert!((sum - on_page).abs() <= on_page.abs() * 1e-12, "{sum} {on_page}");
}

#[test]
fn by_default_energy_of_billed_zones_without_processes() {
    let batch = batch(&Wanted::default());
    assert!(!batch.counters.is_empty() && !batch.gauges.is_empty());
    for series in all(&batch) {
        let name = label(series, "__name__");
        let is_energy = name.ends_with("_joules_total") || name.ends_with("_watts") || name.ends_with("_joules");
        assert!(is_energy || name == "jouled_domain_info", "{name}");
        assert!(!name.contains("_process_") && !name.contains("_slice_"), "{name}");
        assert!(!matches!(label(series, "zone"), "core" | "uncore" | "psys" | "platform"), "{:?}", series.labels);
    }
    let born = |name: &str| {
        let of_name: Vec<_> = batch.counters.iter().filter(|one| label(one, "__name__") == name).collect();
        assert!(!of_name.is_empty(), "{name}");
        of_name.iter().map(|series| series.since).collect::<BTreeSet<_>>()
    };
    assert_eq!(born("jouled_unit_joules_total"), BTreeSet::from([1_700_000_000_000]));
    assert_eq!(born("kepler_vm_cpu_joules_total"), BTreeSet::from([1_700_000_000_000]));
    // Nobody knows when these began.
    assert_eq!(born("jouled_domain_joules_total"), BTreeSet::from([0]));
}

#[test]
fn labels_of_the_configuration_come_first() {
    let labels = BTreeMap::from([("zone", "north"), ("instance", "host-7")]);
    let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let batch = batch(&Wanted { labels, ..Wanted::default() });
    let series = batch.counters.iter().find(|one| label(one, "__name__") == "jouled_unit_joules_total").unwrap();
    assert_eq!((label(series, "zone"), label(series, "instance")), ("north", "host-7"));
    assert_eq!(label(series, "exported_zone"), "package");
}

#[test]
fn a_series_that_ends_gets_a_marker_until_one_has_arrived() {
    let (one, two) = (one("watts", 1, 1.0, false), one("watts", 2, 2.0, false));
    let values = |frames: Vec<Frame>| -> Vec<(String, u64)> {
        let [frame] = &frames[..] else { panic!("{frames:?}") };
        let of = |number: usize| {
            let value = frame.request.timeseries[number].samples[0].value.to_bits();
            (frame.labels(number)[1].1.to_owned(), value)
        };
        (0..frame.samples()).map(of).collect()
    };
    let is = |number: usize, value: u64| (format!("{number}.service"), value);
    let (first, second) = (1.0_f64.to_bits(), 2.0_f64.to_bits());
    let mut known = Known::default();
    let both = [one.clone(), two.clone()];
    assert_eq!(values(known.frames(START, &both)), [is(1, first), is(2, second)]);
    known.arrived();
    for _ in 0..2 {
        assert_eq!(values(known.frames(START, &both[..1])), [is(1, first), is(2, STALE)]);
    }
    known.arrived();
    assert_eq!(values(known.frames(START, &both[..1])), [is(1, first)]);
    assert_eq!(values(known.frames(START, &both[1..])), [is(2, second), is(1, STALE)]);
    // It is back before the marker arrived.
    assert_eq!(values(known.frames(START, &both)), [is(1, first), is(2, second)]);
    known.arrived();
    assert_eq!(known.frames(START, &[]).len(), 1);
}

#[test]
fn a_sample_is_of_the_last_tick_up_to_its_time() {
    let snapshot = |after: i64| {
        let realtime = Nanos((START + after) as u64 * 1_000_000);
        Arc::new(Snapshot { ticks: 1, at: Stamp { realtime, ..Stamp::default() }, ..snapshot() })
    };
    let mut grid = Grid::new(MINUTE);
    let mut observe = |after: i64| {
        let of =
            |(at, snapshot): (i64, Arc<Snapshot>)| (at - START, (snapshot.at.realtime.0 / 1_000_000) as i64 - START);
        grid.observe(&snapshot(after)).map(of)
    };
    // The time before the start is not this run's.
    assert_eq!(observe(100), None);
    assert_eq!(observe(59_100), None);
    assert_eq!(observe(60_100), Some((60_000, 59_100)));
    assert_eq!(observe(61_100), None);
    // A tick at the time itself.
    assert_eq!(observe(120_000), Some((120_000, 120_000)));
    assert_eq!(observe(120_500), None);
    // After a pause there is no tick that stands for the time.
    assert_eq!(observe(1_000_000), None);
    assert_eq!(observe(1_019_500), None);
    assert_eq!(observe(1_020_500), Some((1_020_000, 1_019_500)));
    // A clock that is set back a little waits, and one that is set back by hours goes on.
    assert_eq!(observe(990_000), None);
    assert_eq!(observe(1_030_000), None);
    assert_eq!(observe(2_000), None);
    assert_eq!(observe(59_900), None);
    assert_eq!(observe(60_900), Some((60_000, 59_900)));
}
