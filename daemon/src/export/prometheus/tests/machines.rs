//! Machines with few meters, and the billing base of each, which has to be the same on every export.

use super::parse::parse;
use super::snapshot;
use crate::export::prometheus::{Dialects, Format, PrometheusOptions, render};
use crate::model::billing::Base;
use crate::model::domain::{Domain, NodeEnergy, Scope, Zone};
use crate::model::snapshot::{DomainView, Role, Snapshot};
use crate::model::source::{PackageId, PciAddress, Stamp};
use crate::model::units::{Microjoules, Microwatts};
use std::collections::BTreeSet;
use std::sync::Arc;

const TOTAL: u64 = 8_000_000;

/// A domain of `TOTAL` microjoules at 8 W. `role` is [`Role::Billed`] where it is billed.
fn domain(zone: Zone, role: Role) -> DomainView {
    let scope = match zone {
        Zone::Psys | Zone::Platform | Zone::Other => Scope::Machine,
        Zone::Gpu => Scope::Gpu(PciAddress { domain: 0, bus: 0x41, devfn: 0 }),
        _ => Scope::Package(PackageId(0)),
    };
    let domain = Domain::measured(format!("test/{}", zone.as_str()), "test", zone, scope, "path".into());
    let part = |part: u64| Microjoules(if zone == Zone::Platform { 0 } else { TOTAL / part });
    DomainView {
        domain: Arc::new(Domain { billed: role == Role::Billed, ..domain }),
        role,
        shares_estimated: false,
        past: false,
        energy: NodeEnergy {
            total: Microjoules(TOTAL),
            idle: part(4),
            active: part(2) + part(4),
            unattributed: part(8),
        },
        power: Some(Microwatts(8_000_000)),
        idle_power: Some(Microwatts(2_000_000)),
        interval: None,
        floor: None,
        read_at: Some(snapshot().at.monotonic),
        error: String::new(),
        verdict: Default::default(),
        gaps: 0,
        gap_time: Default::default(),
        learned: None,
        shared_by: None,
    }
}

/// Each machine: what it has, a snapshot of it, and the zones that have to be billed.
pub(crate) fn machines() -> Vec<(&'static str, Snapshot, Vec<Zone>)> {
    use Role::{Authority, Billed, Breakdown, Comparison};
    use Zone::{Core, Dram, Gpu, Other, Package, Platform, Psys, Uncore};
    // From another source than the domain of today, and so with another id.
    let past = |zone: Zone| {
        let view = domain(zone, Billed);
        let earlier = Domain { id: format!("earlier/{}", zone.as_str()).into(), ..(*view.domain).clone() };
        DomainView { past: true, role: Role::Past, power: None, idle_power: None, domain: Arc::new(earlier), ..view }
    };
    let of = |name, domains: Vec<DomainView>, base: &[Zone]| {
        let mut snapshot = snapshot();
        snapshot.domains = domains;
        (name, snapshot, base.to_vec())
    };
    vec![
        of("nothing", vec![], &[]),
        of("psys that is not the authority", vec![domain(Psys, Comparison)], &[]),
        of("psys as the authority", vec![domain(Psys, Authority), domain(Other, Billed)], &[Other]),
        of("cores", vec![domain(Core, Breakdown)], &[]),
        of(
            "a package, its parts and psys",
            {
                let parts = [domain(Core, Breakdown), domain(Uncore, Breakdown), domain(Psys, Comparison)];
                [domain(Package, Billed)].into_iter().chain(parts).collect()
            },
            &[Package],
        ),
        of("memory outside of the package", vec![domain(Package, Billed), domain(Dram, Billed)], &[Package, Dram]),
        of("memory inside of the package", vec![domain(Package, Billed), domain(Dram, Breakdown)], &[Package]),
        of("memory that an earlier run measured", vec![domain(Package, Billed), past(Dram)], &[Package, Dram]),
        of(
            "memory that an earlier run billed",
            vec![domain(Package, Billed), past(Dram), domain(Dram, Breakdown)],
            &[Package],
        ),
        of("a GPU", vec![domain(Gpu, Billed)], &[Gpu]),
        of("a BMC", vec![domain(Platform, Authority), domain(Other, Billed)], &[Other]),
        of("a BMC that is not the authority", vec![domain(Platform, Comparison)], &[]),
        of(
            "everything",
            {
                let billed =
                    [domain(Package, Billed), domain(Dram, Billed), domain(Gpu, Billed), domain(Other, Billed)];
                [domain(Platform, Authority), domain(Core, Breakdown)].into_iter().chain(billed).collect()
            },
            &[Package, Dram, Gpu, Other],
        ),
    ]
}

#[test]
fn the_base_has_what_meters_bill_and_counts_it_once() {
    for (name, snapshot, zones) in machines() {
        let base = Base::of(&snapshot);
        assert_eq!(base.zones(), zones, "{name}");
        let node = base.node(&snapshot);
        assert_eq!(node.energy.total.0, zones.len() as u64 * TOTAL, "{name}");
        let measured = snapshot.domains.iter().any(|view| zones.contains(&view.domain.zone) && !view.past);
        assert_eq!(node.power.is_some(), measured, "{name}");
    }
}

/// `jouled_domain_info{billed="true"}` is what queries sum over; Kepler's old `platform` is the sum itself.
#[test]
fn the_page_bills_the_same() {
    let dialects = Dialects { kepler: true, legacy: true };
    let options = PrometheusOptions { dialects, ..PrometheusOptions::default() };
    for (name, snapshot, zones) in machines() {
        let measured: BTreeSet<&str> = snapshot
            .domains
            .iter()
            .filter(|view| !view.past && zones.contains(&view.domain.zone))
            .map(|view| view.domain.zone.as_str())
            .collect();
        let page = render(&Arc::new(snapshot.clone()), None, Stamp::default(), &options, Format::Classic);
        let page = parse(&page, false);
        let billed = page.samples.keys().filter(|(family, labels)| {
            family == "jouled_domain_info" && labels["billed"] == "true" && labels["role"] != "past"
        });
        let billed: BTreeSet<&str> = billed.map(|(_, labels)| labels["zone"].as_str()).collect();
        // A domain of an earlier run keeps its label, also where the zone is not billed any more.
        assert_eq!(billed, measured, "{name}");
        let platform: f64 =
            page.all("kepler_node_platform_joules_total", &[]).map(|sum| sum.parse::<f64>().unwrap()).sum();
        if zones.contains(&Zone::Other) {
            assert_eq!(platform, Base::of(&snapshot).node(&snapshot).energy.total.joules(), "{name}");
        } else {
            assert_eq!(platform, 0.0, "{name}: without an authority there is no such sum");
        }
    }
}
