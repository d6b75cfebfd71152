//! Labels of a zone's counters: they say where the energy came from when the zone was first shown, and stay.

use super::plausibility::{Host, counter};
use super::*;
use crate::model::domain::Quality;

/// Kepler's labels `path` of packages and of memory.
fn paths(snapshot: &Snapshot) -> [Option<String>; 2] {
    [Zone::Package, Zone::Dram].map(|zone| Some(snapshot.origins[zone.index()].as_ref()?.path().into_owned()))
}

fn measured(package: u16, zone: Zone) -> Domain {
    let path = format!("/sys/class/powercap/{}-{package}", zone.as_str());
    Domain { path, ..domain(package, zone) }
}

fn estimated() -> Domain {
    let id = DomainId::from("estimate/package-0".to_owned());
    Domain { id, quality: Quality::Estimated, path: "model".into(), ..domain(0, Zone::Package) }
}

#[test]
fn an_estimate_that_stands_in_and_a_package_that_comes_later_change_no_label() {
    let mut host = Host::new(vec![measured(0, Zone::Package)]);
    let first = host.tick(1.0, &[counter(1.0)]);
    let [package, memory] = ["/sys/class/powercap/package-0", "/sys/class/powercap/dram-0"].map(|of| Some(of.into()));
    assert_eq!(paths(&first), [package.clone(), None]);
    for (joules, later) in (2..).map(f64::from).zip([estimated(), measured(0, Zone::Dram), measured(1, Zone::Package)])
    {
        host.add(later);
        let snapshot = host.tick(1.0, &[counter(joules)]);
        assert_eq!(paths(&snapshot)[0], package);
    }
    let last = host.tick(1.0, &[counter(9.0)]);
    assert_eq!(paths(&last), [package.clone(), memory.clone()]);

    // The next core of a reload goes on.
    let state = host.core.state("boot");
    let mut next = Core::new(config(IdlePolicy::Apart), state.clone(), true, Nanos(host.second * SECOND));
    next.follow(&host.core);
    assert_eq!(paths(&next.blank()), [package, memory.clone()]);

    // After a restart, the labels say what the zone has now, also where the estimate comes before the meters.
    let restarted = Core::new(config(IdlePolicy::Apart), state, true, Nanos(host.second * SECOND));
    let mut host = Host::new(vec![estimated()]);
    host.core = restarted;
    host.second += 100;
    let snapshot = host.tick(1.0, &[counter(0.0)]);
    assert_eq!(paths(&snapshot), [Some("aggregated-package".into()), memory]);
}

#[test]
fn a_machine_with_an_estimate_alone_has_its_path() {
    let mut host = Host::new(vec![estimated()]);
    let snapshot = host.tick(1.0, &[counter(1.0)]);
    assert_eq!(paths(&snapshot), [Some("model".into()), None]);
}
