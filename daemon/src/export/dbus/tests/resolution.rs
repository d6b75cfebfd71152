//! Resolution by caller: epochs, whole joules, signals, callers and their budgets.

use super::*;

/// The snapshot some seconds and microjoules later, with all meters read.
fn later(snapshot: &Snapshot, seconds: u64, microjoules: u64) -> Snapshot {
    let mut next = snapshot.clone();
    let time = Nanos(seconds * Nanos::SECOND.0);
    (next.at.monotonic, next.at.boottime, next.at.realtime) =
        (next.at.monotonic + time, next.at.boottime + time, next.at.realtime + time);
    for row in next.kinds.iter_mut().flat_map(|kind| &mut kind.rows).filter(|row| row.state == State::Running) {
        row.energy.dynamic[Zone::Package.index()] += Microjoules(microjoules);
    }
    for read_at in next.domains.iter_mut().filter_map(|view| view.read_at.as_mut()) {
        *read_at += time;
    }
    let package = &mut next.domains[0];
    (package.energy.total, package.energy.active) =
        (package.energy.total + Microjoules(microjoules), package.energy.active + Microjoules(microjoules));
    next
}

#[test]
fn the_coarse_view_has_whole_joules_and_power_from_them() {
    let mut first = sample::snapshot();
    first.domains.last_mut().unwrap().power = Some(Microwatts(1));
    let second = later(&first, 10, 25_700_000);
    let path = "/org/jouled1/unit/nginx_2eservice";
    let before = coarse(View::of(&first), None, QUANTUM);
    assert_eq!(number(&before, path, Iface::Unit, "PowerMicrowatts"), UNKNOWN, "nothing was told before");
    let told = coarse(View::of(&second), Some(&before), QUANTUM);
    let (earlier, energy) = (
        number(&before, path, Iface::Unit, "EnergyMicrojoules"),
        number(&told, path, Iface::Unit, "EnergyMicrojoules"),
    );
    assert_eq!((earlier, energy), (562_000_000, 588_000_000), "562.5 J and 25.7 J more");
    assert_eq!(
        number(&told, path, Iface::Unit, "PowerMicrowatts"),
        2_600_000,
        "26 J in 10 s, whatever the power is now"
    );
    let power: Vec<(String, String, u64)> = get(&told, path, Iface::Unit, "PowerByZone").try_into().unwrap();
    assert_eq!(power[0], ("package".into(), "dynamic".into(), 2_500_000));
    for object in told.objects.iter().chain(told.processes.iter().map(|(_, process)| process)) {
        let all = object.numbers.energy.dynamic.iter().chain(&object.numbers.energy.idle).chain(&object.numbers.total);
        assert!(all.into_iter().all(|energy| energy.0 % QUANTUM.0 == 0), "{object:?}");
        let power = object.numbers.total_power.unwrap().0;
        assert_eq!(power % 100_000, 0, "{object:?}");
    }
    let node = number(&told, "/org/jouled1", Iface::Manager, "EnergyMicrojoules");
    assert_eq!((node % QUANTUM.0, number(&told, "/org/jouled1", Iface::Manager, "PowerMicrowatts") % 100_000), (0, 0));
    // Another counter under the same name has no power yet.
    let mut reborn = later(&second, 10, 5_000_000);
    rows(&mut reborn, Kind::Unit)[0].since = Nanos(1_700_000_100_000_000_000);
    let told = coarse(View::of(&reborn), Some(&told), QUANTUM);
    assert_eq!(number(&told, path, Iface::Unit, "PowerMicrowatts"), UNKNOWN);
}

#[test]
fn the_interval_of_an_estimate_is_for_the_fine_view_alone() {
    use crate::model::domain::PowerInterval;
    let mut snapshot = sample::snapshot();
    let (low, high) = (Microwatts(50_000_000), Microwatts(90_000_000));
    snapshot.domains[0].interval = Some(PowerInterval { low, high, extrapolating: false });
    let fine = View::of(&snapshot);
    // The other package is measured: 160 W.
    assert_eq!(fine.intervals, [(Zone::Package, Microwatts(210_000_000), Microwatts(250_000_000))]);
    assert_eq!(coarse(fine, None, QUANTUM).intervals, []);
    snapshot.domains[3].power = None;
    assert_eq!(View::of(&snapshot).intervals, [], "a zone without all of its power");
}

#[test]
fn a_zone_that_is_read_every_thirty_seconds_has_the_power_between_its_readings() {
    let mut now = sample::snapshot();
    now.domains.last_mut().unwrap().power = Some(Microwatts(1));
    let path = "/org/jouled1/unit/nginx_2eservice";
    let mut told = coarse(View::of(&now), None, QUANTUM);
    let (mut powers, first) = (Vec::new(), now.domains[0].read_at);
    for epoch in 1..=6 {
        let read_at = now.domains[0].read_at;
        // Only each third reading comes, with the energy of all three.
        let read = epoch % 3 == 0;
        now = later(&now, 10, if read { 90_000_000 } else { 0 });
        now.domains[0].read_at =
            if read { first.map(|first| first + Nanos(epoch * 10 * Nanos::SECOND.0)) } else { read_at };
        told = coarse(View::of(&now), Some(&told), QUANTUM);
        let power: Vec<(String, String, u64)> = get(&told, path, Iface::Unit, "PowerByZone").try_into().unwrap();
        assert_eq!(power[0].0, "package");
        powers.push(power[0].2);
    }
    assert_eq!(powers[2..], [3_000_000, 3_000_000, 3_000_000, 3_000_000], "90 J in 30 s, not in 10");
}

#[test]
fn signals_report_changes_only() {
    let mut first = sample::snapshot();
    first.domains.last_mut().unwrap().power = Some(Microwatts(1));
    first.host = Arc::new(crate::model::snapshot::Host { idle: IdlePolicy::Apart, ..(*first.host).clone() });
    let mut views = vec![coarse(View::of(&first), None, QUANTUM)];
    let mut epoch = |snapshot: &Snapshot| {
        views.push(coarse(View::of(snapshot), views.last(), QUANTUM));
        let [.., before, now] = &views[..] else { unreachable!() };
        let mut signals = Signals::default();
        signals.epoch(before.clone(), now, Duration::from_secs(10));
        let mut told = Vec::new();
        while !signals.is_empty() {
            for message in signals.portion(now).unwrap() {
                let header = message.header();
                let (path, member) = (header.path().unwrap().to_string(), header.member().unwrap().to_string());
                told.push(format!("{member} {}", path.replace("/org/jouled1", "")));
                if member == "PropertiesChanged" {
                    let body = message.body();
                    let (_, changed, invalidated): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) =
                        body.deserialize().unwrap();
                    assert!(!changed.is_empty() && invalidated.is_empty());
                    assert!(!changed.contains_key("UpdatedAt") && !changed.contains_key("Id"), "{changed:?}");
                    if let Some(Variant::U64(energy)) = changed.get("EnergyMicrojoules") {
                        assert_eq!(energy % QUANTUM.0, 0, "signals are in whole quanta");
                    }
                }
            }
        }
        told
    };
    let second = later(&first, 10, 0);
    let told = epoch(&second);
    assert!(told.iter().all(|told| told.starts_with("PropertiesChanged")), "power is known now: {told:?}");
    let third = later(&second, 10, 0);
    assert_eq!(epoch(&third), Vec::<String>::new(), "nothing changed");
    let mut fourth = later(&third, 10, 0);
    rows(&mut fourth, Kind::Unit)[0].energy.dynamic[Zone::Package.index()] += Microjoules(3_000_000);
    assert_eq!(epoch(&fourth), ["PropertiesChanged /unit/nginx_2eservice"]);
    let mut fifth = later(&fourth, 10, 0);
    rows(&mut fifth, Kind::Unit).push(sample::row(
        Kind::Unit,
        &["new.service", "system.slice"],
        7_000_000,
        State::Running,
    ));
    rows(&mut fifth, Kind::Container).clear();
    let told = epoch(&fifth);
    assert_eq!(told.iter().filter(|told| *told == "InterfacesRemoved ").count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|told| *told == "InterfacesAdded ").count(), 1, "{told:?}");
}

#[test]
fn many_signals_are_spread_and_none_is_lost() {
    let mut first = sample::snapshot();
    for number in 0..2000 {
        let name = format!("unit-{number}.service");
        rows(&mut first, Kind::Unit).push(sample::row(Kind::Unit, &[&name, "system.slice"], 5_000_000, State::Running));
    }
    let before = coarse(View::of(&first), None, QUANTUM);
    let now = coarse(View::of(&later(&first, 10, 8_000_000)), Some(&before), QUANTUM);
    let mut signals = Signals::default();
    signals.epoch(before, &now, Duration::from_secs(10));
    let mut portions = Vec::new();
    while !signals.is_empty() {
        portions.push(signals.portion(&now).unwrap().len());
    }
    assert!(portions.iter().sum::<usize>() >= 2000 && portions.iter().all(|portion| *portion <= 64), "{portions:?}");
    assert!(portions.len() <= 80, "all within the epoch: {}", portions.len());
}

#[test]
fn signals_that_were_not_sent_in_their_epoch_are_sent_with_the_next() {
    let first = sample::snapshot();
    let mut second = later(&first, 10, 8_000_000);
    for number in 0..100 {
        rows(&mut second, Kind::Unit).push(sample::row(
            Kind::Unit,
            &[&format!("new-{number}.service"), "system.slice"],
            1,
            State::Running,
        ));
    }
    let third = later(&second, 10, 0);
    let mut views = vec![coarse(View::of(&first), None, QUANTUM)];
    for snapshot in [&second, &third] {
        views.push(coarse(View::of(snapshot), views.last(), QUANTUM));
    }
    let mut signals = Signals::default();
    signals.epoch(views[0].clone(), &views[1], Duration::from_secs(10));
    let _ = signals.portion(&views[1]).unwrap();
    signals.epoch(views[1].clone(), &views[2], Duration::from_secs(10));
    let mut added = 0;
    while !signals.is_empty() {
        let portion = signals.portion(&views[2]).unwrap();
        added += portion
            .iter()
            .filter(|signal| signal.header().member().is_some_and(|name| name == "InterfacesAdded"))
            .count();
    }
    assert_eq!(added, 100);
}

#[test]
fn callers_are_identified_by_the_bus() {
    let mut callers = Callers::new(Trusted { uid: 990, gid: Some(77) });
    let mut who = |name: &'static str, credentials: Option<ConnectionCredentials>| {
        let name = UniqueName::from_static_str(name).unwrap();
        let waiting = call("/", "", "Ping").build(&()).unwrap();
        let Parked::Ask(question) = callers.park(&name, waiting.clone()).unwrap() else { panic!("not asked") };
        assert!(matches!(callers.park(&name, waiting).unwrap(), Parked::Waits), "asked once");
        assert!(callers.known(&name).is_none());
        let (caller, calls) = callers.told(question.primary_header().serial_num(), credentials.as_ref()).unwrap();
        assert_eq!((calls.len(), callers.known(&name)), (2, Some(caller)));
        caller.fine
    };
    let user = |uid: u32, groups: &[u32]| {
        let credentials = ConnectionCredentials::default().set_unix_user_id(uid);
        Some(groups.iter().fold(credentials, |credentials, gid| credentials.add_unix_group_id(*gid)))
    };
    assert!(who(":1.1", user(0, &[])) && who(":1.2", user(990, &[990])) && who(":1.3", user(1000, &[1000, 77])));
    assert!(
        !who(":1.4", user(1000, &[1000])) && !who(":1.5", None) && !who(":1.6", Some(ConnectionCredentials::default()))
    );
    let mut nobodys = Callers::new(Trusted { uid: 990, gid: None });
    let name = UniqueName::from_static_str(":1.7").unwrap();
    let Parked::Ask(question) = nobodys.park(&name, call("/", "", "Ping").build(&()).unwrap()).unwrap() else {
        panic!()
    };
    let told = nobodys.told(question.primary_header().serial_num(), user(1000, &[77]).as_ref());
    assert!(!told.unwrap().0.fine);
}

#[test]
fn waiting_calls_and_known_callers_are_bounded() {
    let mut callers = Callers::new(Trusted { uid: 990, gid: None });
    let mut full = 0;
    for number in 0..10_000 {
        let name = UniqueName::try_from(format!(":1.{number}")).unwrap();
        full +=
            u64::from(matches!(callers.park(&name, call("/", "", "Ping").build(&()).unwrap()).unwrap(), Parked::Full));
    }
    assert_eq!(full, 10_000 - 256);
}

#[test]
fn one_connection_cannot_use_up_the_room_for_waiting_calls() {
    let mut callers = Callers::new(Trusted { uid: 990, gid: None });
    let mut park = |name: &'static str| {
        let name = UniqueName::try_from(name).unwrap();
        matches!(callers.park(&name, call("/", "", "Ping").build(&()).unwrap()).unwrap(), Parked::Full)
    };
    assert_eq!((0..100).filter(|_| park(":1.1")).count(), 84);
    assert!(!park(":1.2"));
}

#[test]
fn a_user_over_the_limit_is_refused_and_other_users_are_not() {
    let mut callers = Callers::new(Trusted { uid: 990, gid: None });
    let mut now = Instant::now();
    let mut ask = |caller, now, bytes| {
        let may = callers.may_ask(caller, now);
        if may {
            callers.answered(caller, bytes);
        }
        may
    };
    assert_eq!((0..2 * BURST).filter(|_| ask(USER, now, 100)).count() as u64, BURST);
    assert!(ask(ROOT, now, 100));
    now += Duration::from_secs(1);
    assert_eq!((0..2 * BURST).filter(|_| ask(USER, now, 100)).count() as u64, RATE);
    now += Duration::from_secs(60);
    let large = (0..2 * BURST).filter(|_| ask(USER, now, 1_000_000)).count() as u64;
    assert!(large < BURST / 200, "a large answer costs as many small ones: {large}");
}
