//! The format: what is written comes back, and what this version does not know is kept, through as many versions as it
//! takes.

use super::*;
use crate::attribution::idle::{IdleModel, Sums};
use crate::attribution::interval::LastReading;
use crate::attribution::learned::Learned;
use crate::attribution::ledger::{Entry, Series};
use crate::attribution::{DomainRecord, State};
use crate::model::domain::{Domain, GpuInfo, NodeEnergy, Quality, Reading, Scope, Zone};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{Energy, IdleFrom};
use crate::model::source::{PackageId, PciAddress};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::Used;
use crate::power_model::Features;
use crate::power_model::model::Machine;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn read(json: &str) -> (State, Carried) {
    Reader::begin(json).unwrap().end()
}

fn write(state: &State, carried: &Carried) -> String {
    serde_json::to_string(&Whole {
        generation: 7,
        boot_id: &state.boot_id,
        machine: "",
        domains: Domains(&state.domains),
        entries: Entries(&state.entries),
        footprint: &state.footprint,
        carried: &carried.items,
        fields: &carried.fields,
    })
    .unwrap()
}

/// What a version does that does not know everything: reads, and writes all of it again.
fn through(json: &str) -> String {
    let (state, carried) = read(json);
    write(&state, &carried)
}

fn whole(domains: &str, entries: &str) -> String {
    format!(r#"{{"generation":3,"boot_id":"b","domains":[{domains}],"entries":[{entries}]}}"#)
}

const DOMAIN: &str = r#"{"id":"rapl/package-0","source":"rapl-perf","zone":"package","scope":{"package":0},"path":"p",
    "quality":"measured","total_uj":100,"idle_uj":40,"active_uj":60,"unattributed_uj":5,"gaps":1,"gap_ns":2}"#;
const SERIES: &str = r#"{"series":{"kind":"unit","labels":{"unit":"nginx.service","slice":"system.slice"},
    "dynamic_uj":{"package":10},"on_cpu_ns":3,"since_ns":9}}"#;
const TOTALS: &str = r#"{"kind":{"kind":"unit","rest":{"dynamic_uj":{"package":1}},"ended":{"idle_uj":{"dram":2}}}}"#;

fn package(entry: &Entry) -> u64 {
    match entry {
        Entry::Series { series, .. } => series.energy.dynamic[Zone::Package.index()].0,
        _ => 0,
    }
}

#[test]
fn what_is_known_leaves_nothing() {
    let (state, carried) = read(&whole(DOMAIN, &format!("{SERIES},{TOTALS}")));
    assert!(carried.is_empty(), "{:?}", carried.names);
    assert_eq!(state.domains[0].totals.total, Microjoules(100));
    assert_eq!(package(&state.entries[0]), 10);
    let Entry::Kind { kind: Kind::Unit, rest, ended } = &state.entries[1] else { panic!("{:?}", state.entries) };
    assert_eq!((rest.dynamic[Zone::Package.index()].0, ended.idle[Zone::Dram.index()].0), (1, 2));
}

/// Through this version and back, a made-up word is where it was.
#[test]
fn what_is_not_known_is_kept_and_comes_back() {
    let cases = [
        (DOMAIN.replace("\"package\",", "\"hologram\","), String::new(), "zone \"hologram\""),
        (DOMAIN.replace("{\"package\":0}", "{\"room\":[1,2e400]}"), String::new(), "unknown variant `room`"),
        (DOMAIN.replace("measured", "dreamt"), String::new(), "quality \"dreamt\""),
        (DOMAIN.replace("\"gaps\"", "\"serial\":[\"x\",1.50],\"gaps\""), String::new(), "field \"serial\""),
        (DOMAIN.replace("\"gaps\"", "\"model\":{\"curve\":[1]},\"gaps\""), String::new(), "field \"model\""),
        (String::new(), SERIES.replace("\"unit\",", "\"robot\","), "kind \"robot\""),
        (String::new(), SERIES.replace("{\"package\":10}", "{\"package\":10,\"hologram\":7}"), "zone \"hologram\""),
        (String::new(), SERIES.replace("{\"package\":10}", "{\"package\":-10}"), "energy of zone \"package\""),
        (String::new(), SERIES.replace("\"slice\":", "\"uid\":\"0\",\"slice\":"), "label \"uid\""),
        (
            String::new(),
            SERIES.replace("\"since_ns\"", "\"peak_uw\":12345678901234567890123,\"since_ns\""),
            "field \"peak_uw\"",
        ),
        (String::new(), SERIES.replace("{\"series\"", "{\"seance\""), "entry \"seance\""),
        (String::new(), SERIES.replace("\"kind\":\"unit\"", "\"kind\":5"), "an entry"),
        (String::new(), TOTALS.replace("{\"package\":1}", "{\"hologram\":8}"), "zone \"hologram\""),
        (
            String::new(),
            TOTALS.replace("\"dynamic_uj\":{\"package\":1}", "\"borrowed_uj\":{\"package\":1}"),
            "field \"borrowed_uj\"",
        ),
        (String::new(), TOTALS.replace("\"unit\"", "\"robot\""), "kind \"robot\""),
        (String::new(), "5,[],{},\"x\",{\"a\":1,\"b\":2}".to_owned(), "an entry"),
    ];
    for (domains, entries, word) in cases {
        let file = whole(&domains, &entries);
        let (_, carried) = read(&file);
        assert!(carried.names.iter().any(|name| name.contains(word)), "{word}: {:?}", carried.names);
        let once = through(&file);
        let (state, again) = read(&once);
        assert_eq!(again.names, carried.names, "{once}");
        assert_eq!(through(&once), once, "{word}: it changes no more");
        let texts = |carried: &Carried| carried.items.iter().map(|item| item.get().to_owned()).collect::<Vec<_>>();
        assert_eq!(texts(&again), texts(&carried), "{word}");
        // What is carried is never more than what was read, but for the name of what it is a part of.
        let size: usize = again.items.iter().map(|item| item.get().len()).sum();
        assert!(size <= file.len() + 32, "{word}: {size} of {}", file.len());
        drop(state);
    }
    let file = r#"{"generation":3,"entries":[],"colour":{"a":1}}"#;
    assert_eq!(read(file).1.names.iter().collect::<Vec<_>>(), ["field \"colour\""]);
    assert!(through(file).contains(r#""colour":{"a":1}"#));
}

/// A series with energy in a zone that only a newer version knows; this version goes on with the series; then the newer
/// one reads it.
#[test]
fn a_version_that_knows_a_part_finds_the_sum_whole() {
    // "hologram" stands for what the newer version knows as dram: what it reads is renamed for this test.
    let newer = |json: &str| json.replace("hologram", "dram");
    let dram = |entry: &Entry| match entry {
        Entry::Series { series, .. } => series.energy.dynamic[Zone::Dram.index()].0,
        Entry::Kind { rest, ended, .. } => rest.dynamic[Zone::Dram.index()].0 + ended.dynamic[Zone::Dram.index()].0,
        Entry::Dropped { .. } => 0,
    };
    let series = SERIES.replace("{\"package\":10}", "{\"package\":10,\"hologram\":7}");
    let totals = TOTALS.replace("{\"package\":1}", "{\"package\":1,\"hologram\":8}");
    let (mut state, carried) = read(&whole(DOMAIN, &format!("{series},{totals}")));
    assert_eq!((package(&state.entries[0]), dram(&state.entries[0])), (10, 0));

    // It goes on here.
    let Entry::Series { labels, series: mut known } = state.entries[0].clone() else { panic!() };
    known.energy.dynamic[Zone::Package.index()] = Microjoules(25);
    known.energy.dynamic[Zone::Dram.index()] = Microjoules(1);
    state.entries.push(Entry::Series { labels: labels.clone(), series: known });
    let (whole_again, left) = read(&newer(&write(&state, &carried)));
    assert!(left.is_empty(), "{:?}", left.names);
    let last = whole_again.entries.iter().rfind(|entry| matches!(entry, Entry::Series { .. })).unwrap();
    assert_eq!((package(last), dram(last)), (25, 8));
    let last = whole_again.entries.iter().rfind(|entry| matches!(entry, Entry::Kind { .. })).unwrap();
    assert_eq!(dram(last), 8);

    // Or it ends here: then what it had in that zone is in the kind's `ended`.
    state.entries.push(Entry::Dropped { labels });
    let (whole_again, left) = read(&newer(&write(&state, &carried)));
    assert!(left.is_empty());
    let last = whole_again.entries.iter().rfind(|entry| matches!(entry, Entry::Kind { .. })).unwrap();
    assert_eq!(dram(last), 8 + 7);
    let series = whole_again.entries.iter().rfind(|entry| !matches!(entry, Entry::Kind { .. })).unwrap();
    assert!(matches!(series, Entry::Dropped { .. }));
}

/// A domain and a kind that only a newer version knows, with a domain of the same id that began here.
#[test]
fn what_began_twice_is_added_up() {
    let file = whole(&DOMAIN.replace("\"package\",", "\"hologram\","), &SERIES.replace("\"unit\",", "\"robot\","));
    let (mut state, carried) = read(&file);
    assert_eq!((state.domains.len(), state.entries.len()), (0, 0));
    let (mut known, _) = read(&whole(DOMAIN, SERIES));
    known.domains[0].totals.total = Microjoules(1);
    state.domains.append(&mut known.domains);
    state.entries.append(&mut known.entries);
    let newer = write(&state, &carried).replace("hologram", "package").replace("robot", "unit");
    let (state, left) = read(&newer);
    assert!(left.is_empty());
    assert_eq!(state.domains.len(), 1);
    assert_eq!(state.domains[0].totals.total, Microjoules(101));
    assert_eq!(package(state.entries.last().unwrap()), 20);
}

/// The journal of a newer version: its last word counts, not the sum of all.
#[test]
fn of_many_changes_the_last_one_is_carried() {
    let change = |energy: u64| {
        let series = SERIES.replace("{\"package\":10}", &format!("{{\"hologram\":{energy}}}"));
        let robot = series.replace("\"unit\",", "\"robot\",");
        let totals = TOTALS.replace("{\"package\":1}", &format!("{{\"hologram\":{energy}}}"));
        format!(r#"{{"domains":[],"entries":[{series},{robot},{totals}]}}"#)
    };
    let mut reader = Reader::begin(&whole("", "")).unwrap();
    for energy in 1..100 {
        reader.change(&change(energy)).unwrap();
    }
    let (_, carried) = reader.end();
    assert_eq!(carried.items.len(), 3);
    assert!(carried.items.iter().all(|item| item.get().contains("\"hologram\":99")), "{:?}", carried.items);

    let mut reader = Reader::begin(&whole("", "")).unwrap();
    reader.change(&change(5)).unwrap();
    let dropped = r#"{"dropped":{"kind":"robot","labels":{"slice":"system.slice","unit":"nginx.service"}}}"#;
    let ended = dropped.replace("robot", "unit");
    reader.change(&format!(r#"{{"domains":[],"entries":[{dropped},{ended}]}}"#)).unwrap();
    let (_, carried) = reader.end();
    assert_eq!(carried.items.len(), 1, "the totals of the kind have it: {:?}", carried.items);
}

#[test]
fn too_few_and_too_many_labels_harm_nobody() {
    let few = SERIES.replace(",\"slice\":\"system.slice\"", "");
    let none = SERIES.replace("\"unit\":\"nginx.service\",\"slice\":\"system.slice\"", "");
    let many = SERIES.replace("\"slice\":", "\"label-3\":\"x\",\"slice\":");
    let (state, carried) = read(&whole("", &format!("{few},{none},{many}")));
    let labels: Vec<Vec<String>> = state
        .entries
        .iter()
        .map(|entry| match entry {
            Entry::Series { labels, .. } => labels.values().to_vec(),
            _ => panic!(),
        })
        .collect();
    assert_eq!(labels, [["nginx.service", ""], ["", ""]]);
    assert_eq!(carried.names.iter().collect::<Vec<_>>(), ["label \"label-3\""]);
}

#[test]
fn what_is_no_state_is_none() {
    for bad in ["", "5", "[]", "{", r#"{"generation":"x"}"#, r#"{"generation":1,"domains":{}}"#] {
        assert!(Reader::begin(bad).is_none(), "{bad}");
    }
    assert!(Reader::begin(&whole("", "")).unwrap().change("[]").is_none());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ -~]{0,12}", any::<String>()]
}

fn energy() -> impl Strategy<Value = Energy> {
    let one = || prop_oneof![3 => Just(0u64), 1 => any::<u64>(), 2 => 0u64..1_000_000];
    let zones = || proptest::array::uniform8(one()).prop_map(|all| all.map(Microjoules));
    (zones(), zones()).prop_map(|(dynamic, idle)| Energy { dynamic, idle })
}

fn labelled() -> impl Strategy<Value = Labels> {
    (0..Kind::ALL.len(), proptest::collection::vec(text(), 8)).prop_map(|(kind, texts)| {
        let kind = Kind::ALL[kind];
        let values: Vec<String> = texts.into_iter().take(kind.label_names().len()).collect();
        Labels::new(kind, values).unwrap()
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let used = any::<[u64; 4]>().prop_map(|[on_cpu, cycles, instructions, cache_misses]| Used {
        on_cpu: Nanos(on_cpu),
        cycles,
        instructions,
        cache_misses,
    });
    prop_oneof![
        (labelled(), energy(), used, any::<u64>()).prop_map(|(labels, energy, used, since)| {
            Entry::Series { labels, series: Series { energy, used, since: Nanos(since) } }
        }),
        labelled().prop_map(|labels| Entry::Dropped { labels }),
        (0..Kind::ALL.len(), energy(), energy()).prop_map(|(kind, rest, ended)| Entry::Kind {
            kind: Kind::ALL[kind],
            rest,
            ended
        }),
    ]
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        (any::<u64>(), any::<Option<u64>>()).prop_map(|(total, range)| Reading::Counter {
            total: Microjoules(total),
            wraps_at: range.map(Microjoules)
        }),
        any::<u64>().prop_map(|power| Reading::Gauge { power: Microwatts(power) }),
        any::<[u64; 2]>().prop_map(|[total, since]| Reading::Total { total: Microjoules(total), since }),
        Just(Reading::Standby),
    ]
}

/// Any bits but NaN, which equals nothing.
fn float() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("not a NaN", |value| !value.is_nan())
}

/// What a package with counters has taught, for all bins that there can be without a frequency.
fn learned() -> Learned {
    let machine = Machine { processor: "A CPU".into(), packages: Some(1), threads: 8, memory_gib: None };
    let domain = Domain::measured("d", "s", Zone::Package, Scope::Package(PackageId(0)), "p".into());
    let mut learned = Learned::new(machine);
    for step in 0..3000_u32 {
        let part = |divisor: u32| f64::from(step % divisor) / f64::from(divisor);
        let features = Features {
            busy: part(97),
            cycles: Some(2e10 * part(89)),
            instructions: Some(4e10 * part(83)),
            cache_misses: Some(3e8 * part(79)),
            ghz: None,
        };
        learned.observe(&domain, &features, 10.0 + 100.0 * part(97), Nanos(10_000_000_000));
    }
    learned.refresh(&domain);
    learned
}

#[test]
fn what_was_learned_comes_back_within_its_bound_and_outlives_a_version_without_it() {
    let (mut state, _) = read(&whole(DOMAIN, ""));
    let domain = state.domains[0].domain.clone();
    let with = |mut learned: Learned| {
        learned.refresh(&domain);
        learned
    };
    let known = with(learned());
    state.domains[0].learned = Some(Box::new(known.clone()));
    let json = write(&state, &Carried::default());
    assert!(json.len() < 100 * 1024, "{} bytes", json.len());
    let (back, carried) = read(&json);
    assert!(carried.is_empty(), "{:?}", carried.names);
    let back = with(*back.domains[0].learned.clone().unwrap());
    assert_eq!(back, known);
    // A change has no model: that of the whole stays.
    let mut reader = Reader::begin(&json).unwrap();
    reader.change(&format!(r#"{{"domains":[{DOMAIN}],"entries":[]}}"#)).unwrap();
    assert!(reader.end().0.domains[0].learned.is_some());
    // A version without it carries it as a part of the domain.
    let start = json.find(r#""learned":"#).unwrap();
    let mut depth = 0;
    let value = &json[start + r#""learned":"#.len()..];
    let end = value.find(|one| {
        depth += i32::from(one == '{') - i32::from(one == '}');
        depth == 0
    });
    let part = format!(r#"{{"domain_part":{{"id":"rapl/package-0","learned":{}}}}}"#, &value[..=end.unwrap()]);
    let older = whole(DOMAIN, "");
    let carrying = format!(r#"{},"carried":[{part}]}}"#, older.strip_suffix('}').unwrap());
    let (state, carried) = read(&carrying);
    assert!(carried.is_empty(), "{:?}", carried.names);
    assert!(state.domains[0].learned.is_some());
    // Terms that this version does not have, or damage: carried as it is, and the domain is read.
    for (from, to) in [("u/(u+0.05)", "u/(u+0.07)"), ("taught_s", "taught"), ("by_time", "by_tide")] {
        let broken = json.replace(from, to);
        let (state, carried) = read(&broken);
        assert!(state.domains[0].learned.is_none() && state.domains[0].totals.total.0 == 100);
        assert_eq!(carried.len(), 1, "{from}");
        assert_eq!(read(&through(&broken)).1.len(), 1);
    }
}

fn model() -> impl Strategy<Value = IdleModel> {
    let from = [IdleFrom::Configured, IdleFrom::Model, IdleFrom::Learned, IdleFrom::Prior];
    let known = (any::<u64>(), 0..from.len()).prop_map(move |(power, at)| (Microwatts(power), from[at]));
    let sums = prop_oneof![
        2 => Just(Sums::default()),
        1 => proptest::array::uniform6(float()).prop_map(|[n, u, p, uu, up, pp]| Sums { n, u, p, uu, up, pp }),
    ];
    (float(), proptest::option::of(known), proptest::collection::vec(sums, 0..40))
        .prop_map(|(prior_ratio, known, bins)| IdleModel { prior_ratio, known, bins })
}

fn record() -> impl Strategy<Value = DomainRecord> {
    let scope = prop_oneof![
        any::<u16>().prop_map(|package| Scope::Package(PackageId(package))),
        Just(Scope::Machine),
        (any::<u32>(), any::<u8>(), any::<u8>()).prop_map(|(domain, bus, devfn)| Scope::Gpu(PciAddress {
            domain,
            bus,
            devfn
        })),
    ];
    let gpu = (any::<u32>(), text(), text(), text()).prop_map(|(index, uuid, name, vendor)| GpuInfo {
        index,
        uuid,
        name,
        vendor,
    });
    let quality = [Quality::Measured, Quality::Derived, Quality::Estimated];
    let domain = (
        (text(), text(), 0..Zone::COUNT, scope, text(), any::<bool>(), 0..3usize, any::<bool>()),
        (any::<Option<u64>>(), any::<u64>(), any::<Option<u32>>(), any::<Option<u64>>(), proptest::option::of(gpu)),
    );
    let domain = domain.prop_map(
        move |((id, source, zone, scope, path, billed, at, continuous), (rest, power, accuracy_ppm, refresh, gpu))| {
            Domain {
                billed,
                quality: quality[at],
                continuous,
                at_rest: rest.map(Microwatts),
                max_power: Microwatts(power),
                accuracy_ppm,
                refresh: refresh.map(Nanos),
                gpu,
                ..Domain::measured(id, &source, Zone::ALL[zone], scope, path)
            }
        },
    );
    let last = (any::<[u64; 2]>(), reading()).prop_map(|([at, suspended], reading)| LastReading {
        at: Nanos(at),
        suspended: Nanos(suspended),
        reading,
    });
    (domain, proptest::option::of(last), any::<[u64; 6]>(), model()).prop_map(|(domain, last, numbers, model)| {
        let [total, idle, active, unattributed, gaps, gap_time] = numbers;
        let [total, idle, active, unattributed] = [total, idle, active, unattributed].map(Microjoules);
        let totals = NodeEnergy { total, idle, active, unattributed };
        DomainRecord { domain, last, totals, gaps, gap_time: Nanos(gap_time), model, learned: None }
    })
}

proptest! {
    #[test]
    fn a_state_comes_back(
        boot_id in text(),
        domains in proptest::collection::vec(record(), 0..6),
        entries in proptest::collection::vec(entry(), 0..12),
    ) {
        let mut by_id = BTreeMap::new();
        domains.into_iter().for_each(|record| drop(by_id.insert(record.domain.id.clone(), record)));
        let state = State { boot_id, domains: by_id.into_values().collect(), entries, ..State::default() };
        let json = write(&state, &Carried::default());
        prop_assert!(!json.contains('\n'), "a frame is a line");
        let (back, carried) = read(&json);
        prop_assert!(carried.is_empty(), "{:?}", carried.names);
        prop_assert_eq!(&back, &state);
        prop_assert_eq!(&write(&back, &carried), &json);
        let bare = serde_json::to_string(&Bare::from(&state)).unwrap();
        prop_assert_eq!(&read(&bare).0, &state);
    }

    #[test]
    fn nothing_that_is_read_makes_it_panic(json: String, at in any::<prop::sample::Index>(), with: u8) {
        let _ = Reader::begin(&json).map(Reader::end);
        let mut bytes = whole(DOMAIN, &format!("{SERIES},{TOTALS}")).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(json) = String::from_utf8(bytes) {
            let _ = Reader::begin(&json).map(Reader::end);
        }
    }
}
