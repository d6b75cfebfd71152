//! What is told, and when: epochs, quanta, carries, generations.

use super::*;
use crate::export::guest::book::{Book, HostNow, Names, ZoneFacts};
use crate::export::guest::object::Object;
use crate::model::snapshot::{DomainView, LearnedView};
use crate::power_model::basis::{Basis, Feature};
use crate::power_model::model::{BANDS, Form, Interval, Machine, Model, Seen};
use crate::power_model::samples::Target;
use crate::power_model::{Features, file};
use proptest::prelude::*;

/// One VM's book, fed by hand.
struct Hand {
    host: Host,
    book: Book,
    facts: ZoneFacts,
    names: Names,
}

impl Hand {
    fn new() -> Self {
        let names = Names::new("0123", "boot");
        Self { host: Host::new([vm(1)]), book: Book::default(), facts: ZoneFacts::default(), names }
    }

    /// A tick, so many milliseconds later; what is told then.
    fn tick(&mut self, millis: u64, profile: Profile) -> Option<Object> {
        let snapshot = self.host.tick(millis);
        self.facts.learn(&snapshot);
        let grain = profile.grain().unwrap();
        let now = HostNow { snapshot: &snapshot, facts: &self.facts, names: &self.names, idle: IdlePolicy::Apart };
        let row = &snapshot.kind(Kind::Vm).rows[0];
        self.book
            .ends(snapshot.at.monotonic, grain)
            .then(|| self.book.object(&now, &snapshot.vms[0], row, grain).object)
    }
}

fn package(object: &Object) -> u64 {
    object.zones.iter().find(|zone| zone.zone == "package").unwrap().energy_uj
}

#[test]
fn numbers_change_at_the_ends_of_epochs_only() {
    let mut hand = Hand::new();
    assert_eq!(package(&hand.tick(1000, Profile::Default).unwrap()), 0, "a guest need not wait for its first object");
    for epoch in 1..5 {
        for _ in 0..9 {
            hand.host.charge(0, 1_234_567);
            assert_eq!(hand.tick(1000, Profile::Default), None);
        }
        hand.host.charge(0, 1_234_567);
        let object = hand.tick(1000, Profile::Default).unwrap();
        let total = 12_345_670 * epoch;
        assert_eq!(
            (package(&object), object.period_ns, object.quantum_uj),
            (total - total % 1_000_000, 10_000_000_000, 1_000_000)
        );
    }
}

#[test]
fn a_tick_that_comes_late_or_early_costs_no_epoch() {
    let mut hand = Hand::new();
    let told =
        [1000, 1060, 940, 1000, 1001, 999, 1030, 970, 1000].map(|millis| hand.tick(millis, Profile::Trusted).is_some());
    assert_eq!(told, [true; 9]);
    // Ticks that do not fit the period make it longer, never shorter.
    let mut hand = Hand::new();
    let told: Vec<usize> = (0..100).filter(|_| hand.tick(700, Profile::Trusted).is_some()).collect();
    assert!(told.windows(2).all(|pair| pair[1] - pair[0] == 2), "{told:?}");
}

#[test]
fn the_object_is_the_protocols() {
    let mut hand = Hand::new();
    hand.host.charge(0, 1_234_567);
    let first = hand.tick(1000, Profile::Trusted).unwrap();
    let object = serde_json::to_value(hand.tick(1003, Profile::Trusted).unwrap()).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut all = keys(&object);
    all.sort();
    let words = "at_ns epoch generation idle period_ns protocol quantum_uj running_ns source vm zones";
    assert_eq!(all, words.split(' ').collect::<Vec<_>>());
    assert_eq!((object["source"].as_str().unwrap().len(), object["generation"].as_str().unwrap().len()), (32, 16));
    assert_eq!(object["idle"], "apart");
    assert_eq!(object["epoch"], first.epoch + 1);
    assert_eq!(object["at_ns"].as_u64().unwrap(), object["epoch"].as_u64().unwrap() * 1_000_000_000);
    let zone = &object["zones"][0];
    assert_eq!(
        (&zone["zone"], &zone["billed"], &zone["quality"]),
        (&"package".into(), &true.into(), &"measured".into())
    );
    assert_eq!(
        (zone["window_ns"].as_u64().unwrap(), zone["age_ns"].as_u64().unwrap()),
        (1_000_000_000, 0),
        "to 10 ms: {zone}"
    );
    // 1001 clock ticks after the boot it was started.
    assert_eq!(object["running_ns"].as_u64().unwrap(), 101_003_000_000 / 10_000_000 * 10_000_000 - 10_010_000_000);
}

#[test]
fn billed_is_what_every_export_bills() {
    for (name, snapshot, zones) in crate::export::prometheus::tests::machines() {
        let mut hand = Hand::new();
        hand.host.snapshot.domains.clone_from(&snapshot.domains);
        let object = serde_json::to_value(hand.tick(1000, Profile::Trusted).unwrap()).unwrap();
        let told: Vec<&serde_json::Value> = object["zones"].as_array().unwrap().iter().collect();
        for zone in Zone::ALL {
            let told = told.iter().find(|told| told["zone"] == zone.as_str());
            let measured = snapshot.domains.iter().any(|view| view.domain.zone == zone && !view.past);
            assert_eq!(told.is_some(), measured && zone != Zone::Platform, "{name}: {object}");
            assert!(told.is_none_or(|told| told["billed"] == zones.contains(&zone)), "{name}: {object}");
        }
    }
}

#[test]
fn a_zone_that_is_not_read_grows_old_and_keeps_its_total() {
    let mut hand = Hand::new();
    hand.host.charge(0, 5_000_000);
    let before = hand.tick(1000, Profile::Trusted).unwrap();
    let read_at = hand.host.snapshot.domains[0].read_at;
    let mut old = None;
    for _ in 0..3 {
        let mut snapshot = (*hand.host.tick(1000)).clone();
        snapshot.domains.iter_mut().for_each(|view| view.read_at = read_at);
        hand.facts.learn(&snapshot);
        let grain = Profile::Trusted.grain().unwrap();
        assert!(hand.book.ends(snapshot.at.monotonic, grain));
        let now = HostNow { snapshot: &snapshot, facts: &hand.facts, names: &hand.names, idle: IdlePolicy::Apart };
        old = Some(hand.book.object(&now, &snapshot.vms[0], &snapshot.kind(Kind::Vm).rows[0], grain).object);
    }
    let old = old.unwrap();
    assert_eq!(package(&old), package(&before));
    assert_eq!(old.zones[0].age_ns, 3_000_000_000);
}

#[test]
fn another_quantum_is_another_generation_and_falls_in_none() {
    let mut hand = Hand::new();
    hand.host.charge(0, 19_999_999);
    let fine = hand.tick(1000, Profile::Trusted).unwrap();
    let coarse = hand.tick(1000, Profile::MultiTenant).unwrap();
    let again = hand.tick(60_000, Profile::Trusted).unwrap();
    assert_eq!([package(&fine), package(&coarse), package(&again)], [19_999_000, 10_000_000, 19_999_000]);
    assert_eq!((&fine.source, &fine.generation), (&again.source, &again.generation));
    assert!(fine.source == coarse.source && fine.generation != coarse.generation);
    assert!(fine.epoch < coarse.epoch && coarse.epoch < again.epoch);
}

#[test]
fn a_clock_that_is_set_back_sets_no_epoch_back() {
    let mut hand = Hand::new();
    let first = hand.tick(1000, Profile::Trusted).unwrap();
    hand.host.snapshot.at.realtime = Nanos(1_000_000_000_000);
    let then = hand.tick(1000, Profile::Trusted).unwrap();
    assert_eq!(then.epoch, first.epoch + 1);
    assert_eq!(then.at_ns, 1_001_000_000_000);
}

#[test]
fn over_a_restart_of_jouled_source_and_generation_stay_and_totals_go_on() {
    let mut hand = Hand::new();
    hand.host.charge(0, 1_234_567);
    let before = hand.tick(1000, Profile::Trusted).unwrap();
    // What jouled has of its own is lost; the host's totals were kept.
    let mut hand = Hand { book: Book::default(), facts: ZoneFacts::default(), ..hand };
    hand.host.charge(0, 433);
    let after = hand.tick(1000, Profile::Trusted).unwrap();
    assert_eq!((&before.source, &before.generation), (&after.source, &after.generation));
    assert_eq!(package(&after) - package(&before), 1_000, "what was carried is not lost");
    assert!(after.epoch > before.epoch);
    // Another boot, another host, totals that began anew: each is another generation.
    let mut other = |names: Names| {
        hand.names = names;
        hand.book = Book::default();
        hand.tick(1000, Profile::Trusted).unwrap()
    };
    let booted = other(Names::new("0123", "boot2"));
    assert!(booted.source == after.source && booted.generation != after.generation);
    let moved = other(Names::new("4567", "boot"));
    assert!(moved.source != after.source && moved.generation != after.generation);
}

#[tokio::test]
async fn nothing_measured_yet_is_503() {
    let mut host = Host::new([vm(1)]);
    host.tick(0);
    let mut rig = Cids::start(GuestConfig::default(), host);
    settle().await;
    let mut silent = vm(9);
    silent.id = "not in the rows".into();
    let mut snapshot = (*rig.server.host.tick(1000)).clone();
    snapshot.vms = [silent].into();
    rig.server.snapshots.send_replace(Arc::new(snapshot));
    settle().await;
    for path in ["/v1/energy", "/v1/stream", "/metrics"] {
        let mut io = rig.dial(109).await;
        io.write_all(format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    }
}

/// A model of a package of 8 threads: 16 W at rest and 32 W by load.
fn learned_model() -> String {
    let form = Form {
        basis: Basis::Time,
        weights: std::array::from_fn(|at| [16.0, 0.0, 0.0, 32.0].get(at).copied().unwrap_or_default()),
        usual_ghz: None,
        hull: vec![Seen { feature: Feature::Busy, low: 0.0, high: 1.0 }],
        intervals: BANDS.windows(2).map(|band| Interval { from: band[0], to: band[1], low: -0.1, high: 0.1 }).collect(),
        held: Default::default(),
    };
    let machine = Machine { processor: "CPU".into(), packages: Some(1), threads: 8, memory_gib: None };
    let name = "rapl-package-0".to_owned();
    file::write(&Model { name, target: Target::Package, machine, forms: vec![form], training: Default::default() })
}

#[tokio::test]
async fn a_vm_gets_its_part_of_the_host_s_model_where_the_operator_opts_in() {
    let answer_with = async |model: bool, learned: bool| {
        let mut host = Host::new([vm(1)]);
        host.tick(0);
        if learned {
            let package = |view: &&mut DomainView| view.domain.zone == Zone::Package && !view.past;
            host.snapshot.domains.iter_mut().find(package).unwrap().learned = Some(LearnedView {
                name: "rapl-package-0".into(),
                taught: Nanos::SECOND,
                taught_at: None,
                error_ppm: None,
                bands: Vec::new(),
                predicted: None,
                model: Some(learned_model().into()),
            });
        }
        let config = GuestConfig { profile: Profile::Trusted, model, ..GuestConfig::default() };
        let rig = Cids::start(config, host);
        settle().await;
        get(rig.dial(101).await, "/v1/model").await
    };
    assert_eq!(answer_with(false, true).await.0, 403);
    let (status, why) = answer_with(true, false).await;
    assert!(status == 503 && why.contains("learned nothing"), "{status} {why}");
    let (status, body) = answer_with(true, true).await;
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&answer["vcpus"], &answer["idle"]), (&2.into(), &"apart".into()), "{body}");
    // The guest reads it as a file of a model: a quarter of the threads, and nothing at rest, as idle stays apart.
    let part = file::read(answer["models"][0].to_string().as_bytes()).unwrap();
    assert_eq!((part.target, part.machine.threads, part.machine.packages), (Target::Package, 2, None));
    let at = |busy| part.predict(&Features { busy, ..Features::default() }).unwrap().watts;
    assert_eq!((at(0.0), at(1.0)), (0.0, 8.0));
    // Where idle energy is shared out, the VM has its part of the power at rest.
    let with_rest = file::read(learned_model().as_bytes()).unwrap().part(2, true).unwrap();
    assert_eq!(with_rest.predict(&Features::default()).unwrap().watts, 4.0);
}

#[tokio::test]
async fn asking_more_often_changes_nothing() {
    let mut host = Host::new([vm(1)]);
    host.charge(0, 3_000_000);
    let mut rig = Cids::start(GuestConfig::default(), host);
    settle().await;
    let first = rig.energy(101).await;
    for _ in 0..9 {
        rig.server.host.charge(0, 5_000_000);
        rig.server.tick(1000);
        settle().await;
        assert_eq!(rig.energy(101).await, first);
    }
    rig.server.tick(1000);
    settle().await;
    assert_eq!(rig.energy(101).await["zones"][0]["energy_uj"], 48_000_000);
}

#[tokio::test]
async fn the_page_for_prometheus_says_the_same() {
    let mut host = Host::new([vm(1)]);
    host.charge(0, 1_234_567);
    let rig = Cids::start(GuestConfig { profile: Profile::Trusted, ..GuestConfig::default() }, host);
    settle().await;
    let (status, page) = get(rig.dial(101).await, "/metrics").await;
    assert_eq!(status, 200);
    let line = "jouled_guest_joules_total{zone=\"package\",billed=\"true\",quality=\"measured\"} 1.234";
    assert!(page.lines().any(|own| own == line), "{page}");
    for name in ["jouled_guest_info{source=", "jouled_guest_period_seconds 1", "jouled_guest_quantum_joules 0.001"] {
        assert!(page.contains(name), "{name}: {page}");
    }
}

proptest! {
    /// What guests were told and what is still carried is what the host says of them, to the microjoule, whatever
    /// happens when.
    #[test]
    fn channel_totals_and_carries_are_the_hosts_totals(
        steps in proptest::collection::vec((0usize..4, 0u64..30_000_000, 0u64..15_000, 0usize..3), 1..200)
    ) {
        let profiles = [Profile::Trusted, Profile::Default, Profile::MultiTenant];
        let (guests, _) = guests(GuestConfig::default());
        let mut host = Host::new((1..5).map(vm));
        let mut told = vec![(String::new(), 0u64, 0u64); 4];
        for (of, energy, millis, profile) in steps {
            host.charge(of as u32, energy);
            host.vms.get_mut(&(of as u32)).unwrap().0.profile = Some(profiles[profile].as_str().into());
            host.meet();
            let snapshot = host.tick(millis);
            guests.step(&snapshot);
            let mut carried = 0;
            for (n, before) in told.iter_mut().enumerate() {
                let id = &host.vms[&(n as u32)].0.id;
                let guest = guests.by_id(id, host.vms[&(n as u32)].0.process).unwrap();
                let object = guest.latest.borrow().clone().unwrap().object.clone();
                let (now, total) = (package(&object), host.vms[&(n as u32)].1);
                prop_assert!(now <= total && now % object.quantum_uj == 0);
                prop_assert!(object.generation != before.0 || now >= before.1, "a counter fell");
                prop_assert!(object.epoch >= before.2, "an epoch went back");
                carried += total - now;
                *before = (object.generation, now, object.epoch);
            }
            let (sum, totals) = (told.iter().map(|one| one.1).sum::<u64>(), host.vms.values().map(|one| one.1).sum::<u64>());
            prop_assert_eq!(sum + carried, totals);
        }
        // At the end of every epoch no more is carried than a quantum.
        let snapshot = host.tick(120_000);
        guests.step(&snapshot);
        for (vm, total) in host.vms.values() {
            let object = guests.by_id(&vm.id, vm.process).unwrap().latest.borrow().clone().unwrap().object.clone();
            prop_assert!(total - package(&object) < object.quantum_uj);
        }
    }
}
