//! `jouled_*` of the node: domains, sources, idle floors and jouled itself. Not of entities.

use super::super::encode::{About, Encoder, LabelSet, counters, gauges};
use crate::export::zones::Zones;
use crate::model::snapshot::{DomainView, Snapshot, SourceView};
use crate::model::source::Health;
use crate::model::source::Stamp;
use crate::model::text::shortened;
use crate::model::units::{Microjoules, Microwatts};
use std::fmt;

/// The longest reason that is put into a label, in bytes.
const REASON_MAX: usize = 256;

/// Reads a quantity of a domain.
type Of<T> = fn(&DomainView) -> T;

pub(super) fn encode(encoder: &mut Encoder<'_>, snapshot: &Snapshot, zones: &Zones) -> fmt::Result {
    itself(encoder, snapshot)?;
    sources(encoder, &snapshot.sources)?;
    usage(encoder, snapshot)?;
    domains(encoder, &snapshot.domains)?;
    floors(encoder, &snapshot.domains)?;
    meters(encoder, snapshot)?;

    let about = About {
        name: "jouled_unattributed",
        unit: "joules",
        help: "Energy in joules drawn above idle that nobody could be charged for, by zone, measured or an estimate as \
               jouled_domain_info says",
    };
    let samples = zones
        .charged()
        .map(|zone| (LabelSet::plain([("zone", zone.name()), ("path", &*zone.path)]), zone.energy.unattributed));
    counters(encoder, &about, samples)
}

/// What changes between two snapshots: the ages at the time `now`.
pub(in super::super) fn ages(encoder: &mut Encoder<'_>, snapshot: &Snapshot, now: Stamp) -> fmt::Result {
    let about = About {
        name: "jouled_tick_age",
        unit: "seconds",
        help: "Time in seconds since the tick that this page shows, measured",
    };
    gauges(encoder, &about, [(LabelSet::plain([]), now.monotonic - snapshot.at.monotonic)])?;
    let about = About {
        name: "jouled_source_age",
        unit: "seconds",
        help: "Time in seconds since a source last gave something, measured; absent where it never did",
    };
    let samples = snapshot.sources.iter().filter_map(|view| {
        Some((
            LabelSet::plain([("source", &*view.source), ("role", view.role.as_str())]),
            now.monotonic - view.read_at?,
        ))
    });
    gauges(encoder, &about, samples)?;

    let about = About {
        name: "jouled_domain_age",
        unit: "seconds",
        help: "Time in seconds since the last reading of a domain was taken, measured; absent where there was none",
    };
    let ages = snapshot.domains.iter().filter(|view| !view.past);
    let samples =
        ages.filter_map(|view| Some((LabelSet::plain([("domain", &*view.domain.id)]), now.monotonic - view.read_at?)));
    gauges(encoder, &about, samples)
}

fn itself(encoder: &mut Encoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let about = About { name: "jouled_build_info", unit: "", help: "Always 1; its labels say which jouled this is" };
    let labels = LabelSet::plain([("version", &*snapshot.host.version), ("arch", &*snapshot.host.arch)]);
    gauges(encoder, &about, [(labels, 1)])?;
    let about = About {
        name: "jouled_idle_policy_info",
        unit: "",
        help: "Always 1; its policy label says what becomes of idle energy, and so what mode idle is: apart (it is the node's alone), \
               by-use, or by-allocation (VMs get it by their virtual CPUs)",
    };
    gauges(encoder, &about, [(LabelSet::plain([("policy", snapshot.host.idle.as_str())]), 1)])?;
    let about = About {
        name: "jouled_estimated",
        unit: "",
        help: "1 where every energy number here is a model's estimate, 0 where a meter measures",
    };
    gauges(encoder, &about, [(LabelSet::plain([]), snapshot.estimated())])?;
    let about = About { name: "jouled_ticks", unit: "", help: "Number of ticks since jouled started, measured" };
    counters(encoder, &about, [(LabelSet::plain([]), snapshot.ticks)])?;
    let about = About {
        name: "jouled_cpu",
        unit: "seconds",
        help: "CPU time in seconds that jouled itself used, user and system, measured",
    };
    counters(encoder, &about, [(LabelSet::plain([]), snapshot.own_cpu)])
}

fn sources(encoder: &mut Encoder<'_>, sources: &[SourceView]) -> fmt::Result {
    let states = [
        Health::Healthy,
        Health::Unsupported(String::new()),
        Health::Degraded(String::new()),
        Health::Failed(String::new()),
    ];
    let about = About {
        name: "jouled_source_state",
        unit: "",
        help: "1 for the state that a source of readings is in, 0 for the others; jouled_source_info has the reason",
    };
    let samples = sources.iter().flat_map(|view| {
        states.iter().map(|state| {
            let labels =
                LabelSet::plain([("source", &*view.source), ("role", view.role.as_str()), ("state", state.as_str())]);
            (labels, view.health.as_str() == state.as_str())
        })
    });
    gauges(encoder, &about, samples)?;

    let about = About {
        name: "jouled_source_info",
        unit: "",
        help: "Always 1; its reason label says why a source is not healthy",
    };
    let reasons: Vec<_> = sources.iter().map(|view| shortened(view.health.why(), REASON_MAX)).collect();
    let samples = sources.iter().zip(&reasons).map(|(view, reason)| {
        (LabelSet::plain([("source", &*view.source), ("role", view.role.as_str()), ("reason", reason)]), 1)
    });
    gauges(encoder, &about, samples)
}

fn usage(encoder: &mut Encoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let about = About {
        name: "jouled_usage_overflows",
        unit: "",
        help: "Number of times that something did not fit in a bounded table of the usage source, measured",
    };
    counters(encoder, &about, [(LabelSet::plain([]), snapshot.overflows)])?;
    let about = About {
        name: "jouled_usage_lost_cpu",
        unit: "seconds",
        help: "CPU time in seconds that nobody could be charged for, measured",
    };
    counters(encoder, &about, [(LabelSet::plain([]), snapshot.lost_cpu)])?;
    let about = About {
        name: "jouled_counted",
        unit: "",
        help: "1 where a hardware event is counted and used to share energy out, 0 where CPU time stands in for it",
    };
    let counted = snapshot.counted;
    let samples =
        [("cycles", counted.cycles), ("instructions", counted.instructions), ("cache_misses", counted.cache_misses)]
            .map(|(counter, is)| (LabelSet::plain([("counter", counter)]), is));
    gauges(encoder, &about, samples)
}

fn domains(encoder: &mut Encoder<'_>, domains: &[DomainView]) -> fmt::Result {
    let about = About {
        name: "jouled_domain_info",
        unit: "",
        help: "Always 1; its labels describe one energy domain: quality is measured, derived or estimated, billed whether it is part \
               of the sum that counts nothing twice, role what it is used for (authority: the platform meter that is believed), shares \
               whether entities' shares go by use that was seen or by a rule",
    };
    let samples = domains.iter().map(|view| {
        let domain = &*view.domain;
        let labels = LabelSet::plain([
            ("domain", &*domain.id),
            ("source", &*domain.source),
            ("zone", domain.zone.as_str()),
            ("path", &*domain.path),
            ("quality", domain.quality.as_str()),
            ("billed", if domain.billed { "true" } else { "false" }),
            ("role", view.role.as_str()),
            ("shares", shares(view)),
        ]);
        (labels, 1)
    });
    gauges(encoder, &about, samples)?;

    let divided: &[(&str, Of<Microjoules>)] = &[
        ("idle", |view| view.energy.idle),
        ("attributed", |view| view.energy.active - view.energy.unattributed),
        ("unattributed", |view| view.energy.unattributed),
    ];
    let whole: &[(&str, Of<Microjoules>)] = &[("undivided", |view| view.energy.total)];
    let about = About {
        name: "jouled_domain",
        unit: "joules",
        help: "Energy in joules of one domain, measured or an estimate as jouled_domain_info says: drawn at rest (idle), charged to \
               entities (attributed) or to nobody (unattributed), or not divided itself (undivided: a platform meter); the sum over \
               mode is all that the domain drew",
    };
    let samples = domains.iter().flat_map(|view| {
        let modes = if view.undivided() { whole } else { divided };
        modes.iter().map(move |(mode, of)| {
            (
                LabelSet::plain([("domain", &*view.domain.id), ("zone", view.domain.zone.as_str()), ("mode", *mode)]),
                of(view),
            )
        })
    });
    counters(encoder, &about, samples)?;

    let divided: &[(&str, Of<Option<Microwatts>>)] =
        &[("idle", |view| view.idle_power), ("active", |view| Some(view.power? - view.idle_power?))];
    let whole: &[(&str, Of<Option<Microwatts>>)] = &[("undivided", |view| view.power)];
    let about = About {
        name: "jouled_domain",
        unit: "watts",
        help: "Power in watts of one domain, mean of its last window, measured or an estimate as jouled_domain_info says; the sum \
               over mode is all that the domain drew",
    };
    let samples = domains.iter().flat_map(|view| {
        let modes = if view.undivided() { whole } else { divided };
        modes.iter().filter_map(move |(mode, of)| {
            let labels =
                LabelSet::plain([("domain", &*view.domain.id), ("zone", view.domain.zone.as_str()), ("mode", *mode)]);
            Some((labels, of(view)?))
        })
    });
    gauges(encoder, &about, samples)?;

    let about = About {
        name: "jouled_domain_shares_info",
        unit: "",
        help: "Always 1; by says what the dynamic energy of a domain is shared by: time (of CPUs, or of a GPU), cycles, cache_misses, or \
               model (what work costs by the domain's learned power model); absent where nothing is shared",
    };
    let samples = domains.iter().filter_map(|view| {
        Some((LabelSet::plain([("domain", &*view.domain.id), ("by", view.shared_by?.as_str())]), 1))
    });
    gauges(encoder, &about, samples)?;

    intervals(encoder, domains)?;
    verdicts(encoder, domains)?;
    learned(encoder, domains)?;

    let about = About {
        name: "jouled_domain_gaps",
        unit: "",
        help: "Number of intervals of a domain that were not measured (suspend, counter reset, implausible jump)",
    };
    counters(encoder, &about, domains.iter().map(|view| (LabelSet::plain([("domain", &*view.domain.id)]), view.gaps)))?;
    let about = About {
        name: "jouled_domain_gap",
        unit: "seconds",
        help: "Time in seconds for which a domain was not measured",
    };
    counters(
        encoder,
        &about,
        domains.iter().map(|view| (LabelSet::plain([("domain", &*view.domain.id)]), view.gap_time)),
    )
}

/// Whether what meters say of their domains can be true. Estimates, and what the host of a VM reports, are not judged.
fn verdicts(encoder: &mut Encoder<'_>, domains: &[DomainView]) -> fmt::Result {
    let about = About {
        name: "jouled_domain_verdict_info",
        unit: "",
        help: "Always 1; its labels say whether what a meter says of a domain can be true: verdict is usable, doubtful (single values \
               are left out), suspect (it is used, and something speaks against it) or no power (it is not used); reason says why",
    };
    let judged = || domains.iter().filter(|view| view.is_judged());
    let reasons: Vec<_> = judged().map(|view| shortened(view.verdict.why(), REASON_MAX)).collect();
    let samples = judged().zip(&reasons).map(|(view, reason)| {
        let verdict = view.verdict.as_str();
        (LabelSet::plain([("domain", &*view.domain.id), ("verdict", verdict), ("reason", &**reason)]), 1)
    });
    gauges(encoder, &about, samples)
}

/// How well the estimates among the domains know their power.
fn intervals(encoder: &mut Encoder<'_>, domains: &[DomainView]) -> fmt::Result {
    let all = || {
        let known = domains.iter().filter_map(|view| Some((view, view.power.and(view.interval)?)));
        known.map(|(view, interval)| {
            (LabelSet::plain([("domain", &*view.domain.id), ("zone", view.domain.zone.as_str())]), interval)
        })
    };
    let about = About {
        name: "jouled_estimate_low",
        unit: "watts",
        help: "Lower end in watts of the interval that holds the true power of an estimated domain in 90 % of cases, an estimate; \
               absent where a meter measures",
    };
    gauges(encoder, &about, all().map(|(labels, interval)| (labels, interval.low)))?;
    let about = About {
        name: "jouled_estimate_high",
        unit: "watts",
        help: "Upper end in watts of the interval that holds the true power of an estimated domain in 90 % of cases, an estimate; \
               absent where a meter measures",
    };
    gauges(encoder, &about, all().map(|(labels, interval)| (labels, interval.high)))?;
    let about = About {
        name: "jouled_estimate_extrapolating",
        unit: "",
        help: "1 where the load of an estimated domain is outside of what its model has seen, 0 where it is not",
    };
    gauges(encoder, &about, all().map(|(labels, interval)| (labels, interval.extrapolating)))
}

/// What meters taught of the power of their domains, and how wrong it was before each window taught it.
fn learned(encoder: &mut Encoder<'_>, domains: &[DomainView]) -> fmt::Result {
    let all = || {
        domains.iter().filter_map(|view| Some((view, view.learned.as_ref()?))).map(|(view, learned)| {
            (LabelSet::plain([("domain", &*view.domain.id), ("zone", view.domain.zone.as_str())]), learned)
        })
    };
    let about = About {
        name: "jouled_model_error",
        unit: "ratio",
        help: "Mean absolute error of the power that the model of a domain said before each window taught it, as a part \
               of the measured power, over about a week of each band of load; measured; absent before the first one",
    };
    let errors = all().filter_map(|(labels, learned)| Some((labels, learned.error_ppm? as f64 / 1e6)));
    gauges(encoder, &about, errors)?;
    let about = About {
        name: "jouled_model_taught",
        unit: "seconds",
        help: "Time in seconds whose measured power taught the model of a domain, over all runs of jouled",
    };
    gauges(encoder, &about, all().map(|(labels, learned)| (labels, learned.taught)))?;
    let said = || all().filter_map(|(labels, learned)| Some((labels, learned.predicted?)));
    let about = About {
        name: "jouled_model_predicted",
        unit: "watts",
        help: "Power in watts that the model of a metered domain says of its last window, before that taught the model, an estimate \
               beside the measured jouled_domain_watts; absent where nothing is measured, and before the model has learned enough",
    };
    gauges(encoder, &about, said().map(|(labels, said)| (labels, said.power)))?;
    let about = About {
        name: "jouled_model_predicted_low",
        unit: "watts",
        help: "Lower end in watts of the interval in which the model expects the power of a metered domain in 90 % of cases, an estimate",
    };
    gauges(encoder, &about, said().map(|(labels, said)| (labels, said.interval.low)))?;
    let about = About {
        name: "jouled_model_predicted_high",
        unit: "watts",
        help: "Upper end in watts of the interval in which the model expects the power of a metered domain in 90 % of cases, an estimate",
    };
    gauges(encoder, &about, said().map(|(labels, said)| (labels, said.interval.high)))
}

fn floors(encoder: &mut Encoder<'_>, domains: &[DomainView]) -> fmt::Result {
    let floors = || domains.iter().filter_map(|view| Some((&*view.domain.id, view.floor?)));
    let about = About {
        name: "jouled_idle_floor",
        unit: "watts",
        help: "Power in watts that a domain is taken to draw at rest: configured, learned from measurements, or a prior (an estimate)",
    };
    let samples =
        floors().map(|(id, floor)| (LabelSet::plain([("domain", id), ("from", floor.from.as_str())]), floor.power));
    gauges(encoder, &about, samples)?;
    let about = About {
        name: "jouled_idle_floor_uncertainty",
        unit: "watts",
        help: "Standard error in watts of a domain's idle floor, an estimate; absent where it is not known",
    };
    let known = floors().filter_map(|(id, floor)| Some((id, floor.error()?)));
    gauges(encoder, &about, known.map(|(id, error)| (LabelSet::plain([("domain", id)]), error)))
}

/// How the shares of a domain were made: the value of label `shares`.
fn shares(view: &DomainView) -> &'static str {
    match () {
        () if view.undivided() => "none",
        () if view.shares_estimated => "estimated",
        () => "measured",
    }
}

fn meters(encoder: &mut Encoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let platform = &snapshot.platform;
    if let Some(authority) = &platform.authority {
        let about = About {
            name: "jouled_platform_authority_info",
            unit: "",
            help: "Always 1; its labels say which kind of platform meter is believed, and what the configuration says of it",
        };
        gauges(
            encoder,
            &about,
            [(LabelSet::plain([("authority", authority.as_str()), ("choice", platform.choice.as_str())]), 1)],
        )?;
    }
    let ratio = |ppm: u64| ppm as f64 / 1e6;
    let pairs = || {
        platform
            .comparisons
            .iter()
            .map(|one| (LabelSet::plain([("source", &*one.source), ("against", &*one.against)]), one))
    };
    let about = About {
        name: "jouled_meter_disagreement",
        unit: "ratio",
        help: "By how much of what the believed platform meter says another meter differs from it, over the last minute or more, measured; \
               source components: by how much packages, memory and GPUs together exceed it",
    };
    gauges(encoder, &about, pairs().map(|(labels, one)| (labels, ratio(one.off_ppm.unsigned_abs()))))?;
    let about = About {
        name: "jouled_meter_disagreement_allowed",
        unit: "ratio",
        help: "What two meters may differ by, as their makers say, or 5 % each where they say nothing",
    };
    gauges(encoder, &about, pairs().map(|(labels, one)| (labels, ratio(u64::from(one.allowed_ppm)))))
}
