//! Properties of the page of any snapshot, and the time that a large one takes.

use super::parse::parse;
use super::sample::row;
use super::snapshot;
use crate::export::prometheus::{Dialects, Format, PrometheusOptions, render};
use crate::model::domain::Zone;
use crate::model::entity::Kind;
use crate::model::snapshot::{Snapshot, State};
use crate::model::source::Stamp;
use crate::model::units::Microjoules;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn both() -> PrometheusOptions {
    PrometheusOptions { dialects: Dialects { kepler: true, legacy: true }, ..PrometheusOptions::default() }
}

/// A few short values, so that labels often agree in part.
fn label() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ab]", "[\"\\\\\n a-c{}=,#é]{1,4}", any::<String>()]
}

/// Rows of every kind with arbitrary labels, different within a kind.
fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let rows = prop::collection::btree_map(
        prop::collection::vec(label(), 8),
        (any::<u64>(), any::<bool>(), any::<u64>()),
        0..12,
    );
    let overflow = 1 << 40;
    (prop::collection::vec(rows, Kind::ALL.len()), label()).prop_map(move |(kinds, reason)| {
        let mut snapshot = snapshot();
        for (view, rows) in snapshot.kinds.iter_mut().zip(kinds) {
            let width = view.kind.label_names().len();
            let unique: BTreeMap<Vec<String>, _> =
                rows.into_iter().map(|(labels, rest)| (labels[..width].to_vec(), rest)).collect();
            view.rows = unique
                .into_iter()
                .map(|(labels, (energy, ended, idle))| {
                    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                    let mut row = row(
                        view.kind,
                        &labels,
                        energy % overflow,
                        if ended { State::Terminated } else { State::Running },
                    );
                    row.energy.idle[Zone::Package.index()] = Microjoules(idle % 3);
                    row
                })
                .collect();
        }
        snapshot.sources[0].health = crate::model::source::Health::Failed(reason);
        snapshot
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_series_comes_twice_and_both_formats_agree(snapshot in any_snapshot()) {
        let snapshot = Arc::new(snapshot);
        let classic = parse(&render(&snapshot, None, Stamp::default(), &both(), Format::Classic), false);
        let openmetrics = parse(&render(&snapshot, None, Stamp::default(), &both(), Format::OpenMetrics), true);
        prop_assert_eq!(&classic.samples, &openmetrics.samples);
        // Every row has a series with its labels.
        for row in &snapshot.kind(Kind::Process).rows {
            let labels: Vec<(&str, &str)> = row.labels.pairs().collect();
            prop_assert!(classic.value("kepler_process_cpu_seconds_total", &labels).is_some());
        }
    }

    #[test]
    fn label_values_survive(value in any::<String>()) {
        let mut snapshot = snapshot();
        snapshot.kinds[Kind::Unit.index()].rows = vec![row(Kind::Unit, &[&value, "s"], 1, State::Running)];
        let page = parse(&render(&Arc::new(snapshot), None, Stamp::default(), &both(), Format::Classic), false);
        // Characters that act on a terminal are replaced before.
        let shown = crate::model::text::label(&value);
        prop_assert!(page.value("jouled_unit_cpu_seconds_total", &[("unit", &shown)]).is_some());
    }

    #[test]
    fn joules_are_right_to_the_microjoule(energy in 0..1_u64 << 53) {
        let mut snapshot = snapshot();
        snapshot.kinds[Kind::User.index()].rows = vec![row(Kind::User, &["0"], energy, State::Running)];
        let page = parse(&render(&Arc::new(snapshot), None, Stamp::default(), &both(), Format::OpenMetrics), true);
        let labels = [("user", "0"), ("zone", "package"), ("mode", "dynamic")];
        let printed = page.value("jouled_user_joules_total", &labels).unwrap();
        // The double that a reader makes of the exact decimal.
        let exact = format!("{}.{:06}", energy / 1_000_000, energy % 1_000_000);
        prop_assert_eq!(printed.parse::<f64>().unwrap(), exact.parse::<f64>().unwrap());
    }
}
