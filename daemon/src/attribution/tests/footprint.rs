//! Carbon and cost in the core: parts add up to the node's, only rise, and use the factor of the tick in which energy
//! was drawn. On the made-up host of `tests`.

use super::*;
use crate::model::footprint::{Amount, Factor, Footprint, Measure, Part};
use crate::model::tenant::TenantRule;

fn factor(measure: Measure, value: Option<f64>, fallback: bool) -> Factor {
    let unit = if measure == Measure::Cost { "EUR" } else { "gCO2e" };
    Factor {
        measure,
        unit: unit.into(),
        per_kwh: value.map(|value| (value * 1e6).round() as i64),
        source: "test".into(),
        fallback,
        from: None,
        until: None,
        why: "".into(),
    }
}

fn tenants(idle: IdlePolicy) -> CoreConfig {
    let rules: Vec<TenantRule> = serde_json::from_value(serde_json::json!([
        { "name": "web", "unit": "u1?.service" }, { "name": "db", "unit": "u2?.service" },
    ]))
    .unwrap();
    CoreConfig { idle, tenants: rules, ..floored(10.0) }
}

/// The amount of each part, with and without fallback, of all parts together.
fn sums(footprint: &Footprint, measure: Measure) -> (BTreeMap<Part, Amount>, Amount) {
    let (mut parts, mut whole) = (BTreeMap::<Part, Amount>::new(), Amount::default());
    for (part, amount) in
        footprint.totals.amounts.iter().filter(|one| one.measure == measure).flat_map(|one| &one.parts)
    {
        *parts.entry(part.clone()).or_default() += *amount;
        whole += *amount;
    }
    (parts, whole)
}

fn node(snapshot: &Snapshot) -> u64 {
    crate::model::billing::Base::of(snapshot).node(snapshot).energy.total.0
}

#[test]
fn energy_is_multiplied_by_the_factor_of_its_tick() {
    let config = tenants(IdlePolicy::Apart);
    let (mut core, mut host) = (Core::new(config.clone(), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0; 4], vec![]));
    let mut expected = 0;
    let mut before = node(&core.blank());
    for (value, fallback, joules) in [(300.0, false, 60), (100.0, true, 20), (0.0, false, 40)] {
        let uses = vec![ran(1, 10, 0, 300), ran(2, 20, 0, 100)];
        let mut tick = host.tick(&[joules * 1_000_000, 0, 0, 0], uses);
        tick.factors = vec![factor(Measure::Co2eLocation, Some(value), fallback), factor(Measure::Cost, None, false)];
        let snapshot = core.step(&tick);
        let gained = node(&snapshot) - before;
        before += gained;
        expected += u128::from(gained) * (value * 1e6) as u128;
        let footprint = snapshot.footprint.as_ref().unwrap();
        let (parts, whole) = sums(footprint, Measure::Co2eLocation);
        assert_eq!(whole.charge, expected);
        assert!(!parts.contains_key(&Part::Outside), "every process has a tenant: {parts:?}");
        assert_eq!(footprint.totals.uncounted[&Measure::Cost].0, before);
    }
    let snapshot = core.step(&host.tick(&[0; 4], vec![]));
    assert_eq!(snapshot.footprint, None, "without factors there is nothing to show");
    let state = core.state("b");
    let fallback = state.footprint.amounts.iter().find(|one| one.fallback).unwrap();
    // Of 20 J, 10 are idle; three quarters of the others are web's.
    assert_eq!(fallback.parts[&Part::Tenant("web".into())].charge, 7_500_000 * 100_000_000);

    // A restart goes on, and counts energy drawn meanwhile by the factor of now.
    let mut again = Core::new(config, state, true, Nanos(20 * SECOND));
    host.new = vec![domain(0, Zone::Package)];
    host.ids.clear();
    let mut tick = host.tick(&[50_000_000], vec![ran(1, 10, 0, 300)]);
    tick.factors = vec![factor(Measure::Co2eLocation, Some(10.0), false)];
    let snapshot = again.step(&tick);
    let (parts, whole) = sums(snapshot.footprint.as_ref().unwrap(), Measure::Co2eLocation);
    assert_eq!(whole.charge, expected + u128::from(node(&snapshot) - before) * 10_000_000);
    assert!(parts[&Part::Unattributed].charge > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever is drawn, by whatever factors, over restarts and with tenants that come and go: the node's amounts are
    /// its energy times the factors, and no part falls.
    #[test]
    fn parts_add_up_and_only_rise(
        by_use in any::<bool>(),
        few in any::<bool>(),
        steps in proptest::collection::vec(
            (0..90_000_000_u64, 0..50_000_000_u64, 0..3_u64, -500..500_000_i64, any::<bool>(), any::<u8>()), 1..20),
    ) {
        let mut config = tenants(if by_use { IdlePolicy::ByUse } else { IdlePolicy::Apart });
        if few {
            config.limits.shown = [1; Kind::ALL.len()];
        }
        let (mut core, mut host) = (Core::new(config.clone(), State::default(), false, Nanos(0)), Fake::new());
        core.step(&host.tick(&[0; 4], vec![]));
        let (mut expected, mut seen) = (Amount::default(), BTreeMap::<Part, Amount>::new());
        let mut before = 0;
        for (one, other, who, price, fallback, restart) in steps {
            if restart < 40 {
                let state = core.state("b");
                core = Core::new(config.clone(), state, true, Nanos(host.seconds * SECOND));
                host.new = Fake::new().new;
                host.ids.clear();
            }
            let uses = (0..who).map(|number| ran(number as u32 + 1, 10 * (number + 1), 0, 100 + one % 7)).collect();
            let mut tick = host.tick(&[one, other, 0, 0], uses);
            tick.factors = vec![factor(Measure::Cost, Some(price as f64 / 1e6), fallback)];
            let snapshot = core.step(&tick);
            let now = node(&snapshot);
            expected.add(i128::from(now - before) * i128::from(price));
            before = now;
            let (parts, whole) = sums(snapshot.footprint.as_ref().unwrap(), Measure::Cost);
            for (part, amount) in &seen {
                prop_assert_eq!(amount.later_of(parts[part]), parts[part], "{:?} fell", part);
            }
            seen = parts;
            // What tenants were charged before the node had it waits: here nothing does.
            prop_assert_eq!(whole, expected);
        }
    }
}
