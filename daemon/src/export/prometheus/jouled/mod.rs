//! `jouled_*`: the metrics that Kepler has no name for. Entities are here; domains, sources and jouled itself in
//! [`node`]; names of containers and pods in [`names`]; properties of VMs in [`vms`]; receivers in [`push`].

mod footprint;
mod names;
mod node;
mod push;
mod vms;

pub(super) use node::ages;
pub(super) use push::encode as push;

use super::encode::{About, Encoder, LabelSet, counters, gauges};
use super::{MODES, PrometheusOptions, kepler};
use crate::export::guest::Totals;
use crate::export::zones::Zones;
use crate::model::entity::Kind;
use crate::model::snapshot::{KindView, Snapshot};
use std::fmt;

pub(super) fn encode(
    encoder: &mut Encoder<'_>,
    snapshot: &Snapshot,
    zones: &Zones,
    options: &PrometheusOptions,
) -> fmt::Result {
    node::encode(encoder, snapshot, zones)?;
    for view in snapshot.kinds.iter().filter(|view| options.levels.contains(&view.kind)) {
        let in_kepler = options.dialects.kepler && kepler::KINDS.contains(&view.kind);
        let seconds_in_kepler = in_kepler && matches!(view.kind, Kind::Process | Kind::Container);
        rows(encoder, view, zones, in_kepler, seconds_in_kepler)?;
        others(encoder, view, zones)?;
    }
    footprint::encode(encoder, snapshot)?;
    names::encode(encoder, snapshot, &options.levels)?;
    if options.levels.contains(&Kind::Vm) { vms::encode(encoder, snapshot) } else { Ok(()) }
}

/// The series of a kind's entities, without those that Kepler's names cover.
fn rows(
    encoder: &mut Encoder<'_>,
    view: &KindView,
    zones: &Zones,
    in_kepler: bool,
    seconds_in_kepler: bool,
) -> fmt::Result {
    let word = noun(view.kind);
    let name = format!("jouled_{}", view.kind.as_str().replace('-', "_"));

    let by_kepler = |zone| in_kepler && kepler::says(view.kind, zone);
    let help = format!(
        "Energy in joules charged to a {word}, by zone; mode dynamic is from its own work, idle its part of the idle energy where \
         that is handed out; measured or an estimate as jouled_domain_info says"
    );
    let samples = MODES.iter().flat_map(|(mode, of)| {
        zones.charged().filter(move |zone| *mode == "idle" || !by_kepler(zone.zone)).flat_map(move |zone| {
            view.page_rows().filter_map(move |(labels, row)| {
                let energy = of(&row.energy)[zone.zone.index()];
                let labels = LabelSet::of(labels, [("zone", zone.name()), ("mode", mode)]).since(row.since);
                (*mode == "dynamic" || energy.0 > 0).then_some((labels, energy))
            })
        })
    });
    counters(encoder, &About { name: &name, unit: "joules", help: &help }, samples)?;

    if zones.charged().any(|zone| !by_kepler(zone.zone)) {
        let help = format!(
            "Power in watts charged to a {word}, by zone, mean of the last window, measured or an estimate as jouled_domain_info says"
        );
        let shown = zones.charged().filter(|zone| zone.power.is_some() && !by_kepler(zone.zone));
        let samples = shown.flat_map(|zone| {
            view.page_rows().map(move |(labels, row)| {
                (LabelSet::of(labels, [("zone", zone.name())]), row.whole_power()[zone.zone.index()])
            })
        });
        gauges(encoder, &About { name: &name, unit: "watts", help: &help }, samples)?;
    }
    if !seconds_in_kepler {
        let help = format!("Time in seconds that a {word} was on a CPU, measured");
        let about = About { name: &format!("{name}_cpu"), unit: "seconds", help: &help };
        let samples =
            view.page_rows().map(|(labels, row)| (LabelSet::of(labels, []).since(row.since), row.used.on_cpu));
        counters(encoder, &about, samples)?;
    }
    Ok(())
}

/// Energy of a kind outside of its rows (rest, ended, parked), so that the sum is complete.
fn others(encoder: &mut Encoder<'_>, view: &KindView, zones: &Zones) -> fmt::Result {
    let words = match view.kind {
        Kind::Process => "processes".to_owned(),
        kind => format!("{}s", noun(kind)),
    };
    let name = format!("jouled_{}", view.kind.as_str().replace('-', "_"));
    let totals = [
        ("rest", "without a series of their own", &view.rest),
        ("ended", "whose series have ended, as far as those had got", &view.ended),
    ];
    for (suffix, which, energy) in totals {
        let help = format!(
            "Energy in joules charged to {words} {which}, by zone and mode, measured or an estimate as jouled_domain_info says"
        );
        let about = About { name: &format!("{name}_{suffix}"), unit: "joules", help: &help };
        let samples = MODES.iter().flat_map(|(mode, of)| {
            zones.charged().filter_map(move |zone| {
                let energy = of(energy)[zone.zone.index()];
                let labels = LabelSet::plain([("zone", zone.name()), ("mode", *mode)]);
                (*mode == "dynamic" || energy.0 > 0).then_some((labels, energy))
            })
        });
        counters(encoder, &about, samples)?;
    }
    let help = format!(
        "Energy in joules of living {words} whose series made room for busier ones or are too small yet, by zone and mode; falls \
         when one is shown or ends"
    );
    let parked = &view.page_parked();
    let samples = MODES.iter().flat_map(|(mode, of)| {
        zones.charged().filter_map(move |zone| {
            let energy = of(parked)[zone.zone.index()];
            let labels = LabelSet::plain([("zone", zone.name()), ("mode", *mode)]);
            (*mode == "dynamic" || energy.0 > 0).then_some((labels, energy))
        })
    });
    gauges(encoder, &About { name: &format!("{name}_parked"), unit: "joules", help: &help }, samples)?;
    let help = format!(
        "Power in watts charged to {words} without a series of their own, by zone, mean of the last window, measured or an estimate \
         as jouled_domain_info says"
    );
    let about = About { name: &format!("{name}_rest"), unit: "watts", help: &help };
    let samples = zones
        .charged()
        .filter(|zone| zone.power.is_some())
        .map(|zone| (LabelSet::plain([("zone", zone.name())]), view.rest_power[zone.zone.index()]));
    gauges(encoder, &about, samples)
}

/// The guest channel.
pub(super) fn guests(encoder: &mut Encoder<'_>, guests: &Totals) -> fmt::Result {
    let about =
        About { name: "jouled_guest_connections", unit: "", help: "Number of open connections of guests, measured" };
    gauges(encoder, &about, [(LabelSet::plain([]), guests.connections)])?;
    let about = About { name: "jouled_guest_requests", unit: "", help: "Number of requests of guests, measured" };
    counters(encoder, &about, [(LabelSet::plain([]), guests.requests)])?;
    let help = "Number of connections that were not let in as guests', by reason, measured: host and unknown are no VM's, port and \
                process have no proof, connections and rate are more than one may have";
    let about = About { name: "jouled_guest_refused", unit: "", help };
    counters(
        encoder,
        &about,
        guests.refused.iter().map(|(reason, times)| (LabelSet::plain([("reason", *reason)]), *times)),
    )
}

/// The kind as a word in a sentence.
fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Unit => "system unit",
        Kind::UserUnit => "user unit",
        Kind::Session => "login session",
        Kind::Vm => "VM",
        Kind::JobStep => "job step",
        kind => kind.as_str(),
    }
}
