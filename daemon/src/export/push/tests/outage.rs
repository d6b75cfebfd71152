//! A receiver that does not answer for a day, in virtual time.

use super::*;
use crate::export::prometheus::Dialects;
use crate::export::prometheus::tests::{row, snapshot};
use crate::export::push::config::Receiver as Wanted;
use crate::export::push::series::{Choice, Grid, Known};
use crate::model::domain::Zone;
use crate::model::entity::Kind;
use crate::model::snapshot::{Snapshot, State};
use crate::model::source::Stamp;
use crate::model::units::{Microjoules, Nanos};

/// Units of the host. With two billed zones each has two counters.
const UNITS: u64 = 90;
const DAY: i64 = 24 * 60 * MINUTE;
/// The unit that ends in the middle of the outage.
const ENDS: u64 = 7;

/// The energy of a unit in a zone at a time, in µJ: between 1 W and 60 W, never the same for two minutes.
fn energy(unit: u64, zone: Zone, after: i64) -> Microjoules {
    let (unit, seconds) = (unit + 1, (after / 1_000) as u64);
    let watts = 1_000_000 + unit * 613_007;
    let share = if zone == Zone::Dram { 8 } else { 1 };
    Microjoules((3_600_000_001 * unit + watts * seconds + (seconds * seconds) % 977 * unit) / share)
}

fn host(after: i64, template: &Snapshot) -> Arc<Snapshot> {
    let mut snapshot = template.clone();
    snapshot.ticks = 1;
    snapshot.at = Stamp { realtime: Nanos((START + after) as u64 * 1_000_000), ..Stamp::default() };
    snapshot.kinds[Kind::Unit.index()].rows = (0..UNITS)
        .filter(|unit| *unit != ENDS || after < DAY / 2)
        .map(|unit| {
            let mut row = row(Kind::Unit, &[&format!("{unit}.service"), "system.slice"], 0, State::Running);
            for zone in [Zone::Package, Zone::Dram] {
                row.energy.dynamic[zone.index()] = energy(unit, zone, after);
            }
            row
        })
        .collect();
    Arc::new(snapshot)
}

/// Prometheus' `increase` from one sample to another: the range is closed, and both ends have a sample.
fn increase(samples: &BTreeMap<i64, f64>, from: i64, to: i64) -> f64 {
    let values: Vec<f64> = samples.range(from..=to).map(|(_, value)| *value).collect();
    values.windows(2).map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] }).sum()
}

struct Host {
    grid: Grid,
    counters: Known,
    gauges: Known,
}

impl Host {
    fn new() -> Self {
        Self { grid: Grid::new(MINUTE), counters: Known::default(), gauges: Known::default() }
    }

    fn observe(&mut self, choice: &Choice, courier: &mut Courier, snapshot: &Arc<Snapshot>, now: Now) {
        let Some((time, snapshot)) = self.grid.observe(snapshot) else { return };
        let batch = choice.batch(&snapshot, Vec::new());
        let counters = self.counters.frames(time, &batch.counters);
        self.counters.arrived();
        courier.take(counters, self.gauges.frames(time, &batch.gauges), now);
    }
}

#[test]
fn a_day_without_a_receiver_loses_no_energy() {
    let dir = tempfile::tempdir().unwrap();
    let template = snapshot();
    let choice = Choice::new(&Wanted::default(), Dialects::default());
    let (mut courier, mut host_side) = (courier(dir.path(), terms()), Host::new());
    let mut receiver = Receiver::default();
    let (outage, tick) = (30 * MINUTE..30 * MINUTE + DAY, 20_000);
    let end = 26 * 60 * MINUTE;
    let (mut go_on, mut largest_log, mut recovered) = (None, 0, None);
    let mut after = 0;
    while after <= end {
        if after == 13 * 60 * MINUTE {
            // jouled restarts.
            courier = super::courier(dir.path(), terms());
            host_side = Host::new();
            host_side.observe(&choice, &mut courier, &host(after, &template), at(after));
        }
        host_side.observe(&choice, &mut courier, &host(after, &template), at(after));
        if outage.contains(&after) {
            fail(&mut courier, at(after));
        } else if go_on.is_none_or(|until| until <= after) {
            let before = receiver.count();
            go_on = deliver(&mut courier, &mut receiver, at(after));
            // What the log has is sent at 500 samples in a second.
            if after > outage.end && courier.totals.waiting > 0 {
                assert!(receiver.count() - before <= 1_000, "{}", receiver.count() - before);
                while let Some(until) = go_on.filter(|until| *until < after + tick) {
                    go_on = deliver(&mut courier, &mut receiver, at(until));
                }
            }
        }
        largest_log = largest_log.max(courier.totals.log_bytes);
        if after >= outage.end && courier.totals.waiting == 0 {
            recovered.get_or_insert(after - outage.end);
        }
        after += tick;
    }
    let series_count = receiver.samples.len();
    assert!((200..450).contains(&series_count), "{series_count} series");
    // The series of counters have every minute, but for that of the restart.
    let (from, to) = (START + 60 * MINUTE, START + 60 * MINUTE + DAY);
    let mut checked = 0;
    for unit in (0..UNITS).filter(|unit| *unit != ENDS) {
        for (zone, name) in [(Zone::Package, "package"), (Zone::Dram, "dram")] {
            let labels = [
                format!("(\"unit\", \"{unit}.service\")"),
                format!("(\"zone\", \"{name}\")"),
                "jouled_unit_joules_total".to_owned(),
            ];
            let found = receiver.samples.iter().find(|(series, _)| labels.iter().all(|label| series.contains(label)));
            let (_, samples) = found.unwrap_or_else(|| panic!("{labels:?}"));
            let missing = (0..=24 * 60).filter(|minute| !samples.contains_key(&(from + minute * MINUTE))).count();
            assert!(missing <= 1, "{missing} minutes are missing");
            let ledger = energy(unit, zone, to - START).0 - energy(unit, zone, from - START).0;
            let (of_ledger, of_receiver) = (ledger as f64 / 1e6, increase(samples, from, to));
            assert!((of_receiver / of_ledger - 1.0).abs() < 1e-6, "{labels:?}: {of_receiver} J, {of_ledger} J");
            checked += 1;
        }
    }
    assert_eq!(checked, 2 * (UNITS - 1));
    let ended = receiver
        .samples
        .iter()
        .find(|(series, _)| series.contains("jouled_unit_joules_total") && series.contains("\"7.service\""));
    let (last, marker) = ended.unwrap().1.last_key_value().unwrap();
    assert_eq!((*last, marker.to_bits()), (START + DAY / 2, STALE));
    assert_eq!(courier.totals.waiting, 0);
    println!(
        "{series_count} series: {} kB of log at most, {} bytes a sample, recovered after {} s",
        largest_log / 1_000,
        largest_log as usize * MINUTE as usize / DAY as usize / series_count.max(1),
        recovered.unwrap_or_default() / 1_000
    );
}
