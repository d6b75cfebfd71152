//! Carbon and cost: factors, and what energy came to by them. Absent where neither is configured.

use super::super::encode::{About, Encoder, LabelSet, counters, gauges};
use crate::model::footprint::{Amount, Amounts, Factor, Footprint, Measure, Part};
use crate::model::snapshot::Snapshot;
use std::collections::BTreeMap;
use std::fmt;

pub(super) fn encode(encoder: &mut Encoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let Some(footprint) = &snapshot.footprint else { return Ok(()) };
    factors(encoder, &footprint.factors)?;
    carbon(encoder, footprint)?;
    cost(encoder, footprint)?;
    let about = About {
        name: "jouled_uncounted",
        unit: "joules",
        help: "Energy in joules of the node for which there was no factor, by measure: its amounts lack it",
    };
    let samples = &footprint.totals.uncounted;
    let samples = samples.iter().map(|(measure, energy)| (LabelSet::plain([("measure", measure.as_str())]), *energy));
    counters(encoder, &about, samples)
}

/// Whether the grid's mix or the contract says it; `None`: it is no carbon.
const fn method(measure: Measure) -> Option<&'static str> {
    match measure {
        Measure::Co2eLocation => Some("location"),
        Measure::Co2eMarket => Some("market"),
        Measure::Cost => None,
    }
}

const fn state(fallback: bool) -> &'static str {
    if fallback { "fallback" } else { "valid" }
}

/// Begin or end of the validity of a factor.
type Time = fn(&Factor) -> Option<i64>;

fn factors(encoder: &mut Encoder<'_>, factors: &[Factor]) -> fmt::Result {
    let about = About {
        name: "jouled_carbon_intensity",
        unit: "grams_per_kwh",
        help: "CO2-equivalents in grams by kWh of electricity, as the named source says; state fallback: it stands in for a better \
               one, which is not valid now",
    };
    let samples = factors.iter().filter_map(|factor| {
        let labels =
            [("method", method(factor.measure)?), ("source", &*factor.source), ("state", state(factor.fallback))];
        Some((LabelSet::plain(labels), factor.value()?))
    });
    gauges(encoder, &about, samples)?;
    let about = About {
        name: "jouled_electricity_price",
        unit: "per_kwh",
        help: "Price of a kWh of electricity in the currency, as the named source says; may be negative",
    };
    let samples = factors.iter().filter(|factor| factor.measure == Measure::Cost).filter_map(|factor| {
        let labels = [("currency", &*factor.unit), ("source", &*factor.source), ("state", state(factor.fallback))];
        Some((LabelSet::plain(labels), factor.value()?))
    });
    gauges(encoder, &about, samples)?;
    let times: [(&str, &str, Time); 2] = [
        (
            "begin",
            "Begin of the validity of the factor in use, in seconds since 1970; absent where it has none",
            |one| one.from,
        ),
        (
            "expiry",
            "End of the validity of the factor in use, in seconds since 1970; absent where it has none",
            |one| one.until,
        ),
    ];
    for (name, help, of) in times {
        let name = format!("jouled_factor_{name}_timestamp");
        let about = About { name: &name, unit: "seconds", help };
        let samples = factors
            .iter()
            .filter(|factor| factor.per_kwh.is_some())
            .filter_map(|factor| Some((LabelSet::plain([("measure", factor.measure.as_str())]), of(factor)? as f64)));
        gauges(encoder, &about, samples)?;
    }
    Ok(())
}

fn carbon(encoder: &mut Encoder<'_>, footprint: &Footprint) -> fmt::Result {
    let of = || footprint.totals.amounts.iter().filter_map(|one| Some((one, method(one.measure)?)));
    let about = About {
        name: "jouled_co2e",
        unit: "grams",
        help: "CO2-equivalents in grams of the node's energy by the factors at the time it was drawn, by what drew it; all parts are \
               the node's",
    };
    let samples = of().flat_map(|(one, method)| {
        parts(one).into_iter().map(move |(part, amount)| {
            let labels = [("part", part), ("method", method), ("state", state(one.fallback))];
            (LabelSet::plain(labels), Amount::units(amount.charge))
        })
    });
    counters(encoder, &about, samples)?;
    let about = About {
        name: "jouled_tenant_co2e",
        unit: "grams",
        help: "CO2-equivalents in grams of a tenant's energy by the factors at the time it was drawn",
    };
    let samples = of().flat_map(|(one, method)| {
        tenants(one).map(move |(name, amount)| {
            let labels = [("tenant", name), ("method", method), ("state", state(one.fallback))];
            (LabelSet::plain(labels), Amount::units(amount.charge))
        })
    });
    counters(encoder, &about, samples)
}

fn cost(encoder: &mut Encoder<'_>, footprint: &Footprint) -> fmt::Result {
    let of = || footprint.totals.amounts.iter().filter(|one| one.measure == Measure::Cost);
    // Prices may be negative, and a counter cannot fall.
    let directions = |amount: &Amount| {
        let credit = (amount.credit > 0).then_some(("credit", amount.credit));
        [Some(("charge", amount.charge)), credit].into_iter().flatten()
    };
    let about = About {
        name: "jouled_cost",
        unit: "",
        help: "Cost of the node's energy in the currency by the prices at the time it was drawn, by what drew it; direction credit is \
               of negative prices, to be subtracted",
    };
    let samples = of().flat_map(|one| {
        parts(one).into_iter().flat_map(move |(part, amount)| {
            directions(&amount).map(move |(direction, products)| {
                let (currency, state) = (("currency", &*one.unit), ("state", state(one.fallback)));
                let labels = [("part", part), currency, ("direction", direction), state];
                (LabelSet::plain(labels), Amount::units(products))
            })
        })
    });
    counters(encoder, &about, samples)?;
    let about = About {
        name: "jouled_tenant_cost",
        unit: "",
        help: "Cost of a tenant's energy in the currency by the prices at the time it was drawn; direction credit is of negative \
               prices, to be subtracted",
    };
    let samples = of().flat_map(|one| {
        tenants(one).flat_map(move |(name, amount)| {
            directions(amount).map(move |(direction, products)| {
                let (currency, state) = (("currency", &*one.unit), ("state", state(one.fallback)));
                let labels = [("tenant", name), currency, ("direction", direction), state];
                (LabelSet::plain(labels), Amount::units(products))
            })
        })
    });
    counters(encoder, &about, samples)
}

/// Amounts by part, those of all tenants together.
fn parts(amounts: &Amounts) -> BTreeMap<&'static str, Amount> {
    let mut sums = BTreeMap::new();
    for (part, amount) in &amounts.parts {
        *sums.entry(part.word()).or_insert_with(Amount::default) += *amount;
    }
    sums
}

fn tenants(amounts: &Amounts) -> impl Iterator<Item = (&str, &Amount)> {
    amounts.parts.iter().filter_map(|(part, amount)| match part {
        Part::Tenant(name) => Some((&**name, amount)),
        Part::Idle | Part::Unattributed | Part::Outside | Part::OtherTenants => None,
    })
}
