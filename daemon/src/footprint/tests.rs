use super::*;
use crate::model::footprint::Factor;
use std::path::{Path, PathBuf};
use tariff::Tariff;

/// 2026-11-28 14:30 in UTC, a Saturday.
const NOW: i64 = 1_795_876_200;

fn price(toml: serde_json::Value) -> PriceConfig {
    serde_json::from_value(toml).unwrap()
}

fn tariffs(json: serde_json::Value) -> Vec<Tariff> {
    serde_json::from_value(json).unwrap()
}

/// A factor's value, whether it is a fallback, its source, and why.
fn told(factor: &Factor) -> (Option<f64>, bool, String, String) {
    (factor.value(), factor.fallback, factor.source.to_string(), factor.why.to_string())
}

fn at(factors: &mut Factors, seconds: i64) -> Vec<Factor> {
    factors.at(Nanos(seconds.unsigned_abs() * Nanos::SECOND.0))
}

fn carbon(file: &Path, more: serde_json::Value) -> FactorSettings {
    let mut carbon: CarbonConfig = serde_json::from_value(more).unwrap();
    carbon.file = Some(file.to_owned());
    FactorSettings { carbon, price: PriceConfig::default() }
}

struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A file that took its name when it was complete.
    fn file(&self, text: &str) -> PathBuf {
        let (part, path) = (self.0.path().join("part"), self.0.path().join("carbon.csv"));
        std::fs::write(&part, text).unwrap();
        std::fs::rename(&part, &path).unwrap();
        path
    }
}

#[test]
fn a_file_counts_while_it_is_valid_and_the_country_after_it() {
    let lab = Lab::new();
    let file = lab.file(&format!(
        "# source: lab\nfrom,until,g_per_kwh\n{},{},100\n{},{},200\n",
        NOW,
        NOW + 1800,
        NOW + 3600,
        NOW + 5400
    ));
    let mut factors = Factors::open(&carbon(&file, serde_json::json!({ "country": "de" })));
    assert_eq!(told(&at(&mut factors, NOW)[0]), (Some(100.0), false, "lab".into(), String::new()));
    assert_eq!(factors.states().next().unwrap().health, Health::Healthy);
    for (time, what) in [
        (NOW - 60, "its first value begins at 2026-11-28T14:30:00Z"),
        (NOW + 1800, "no value from 2026-11-28T15:00:00Z to 2026-11-28T15:30:00Z"),
        (NOW + 86_400, "its last value ended at 2026-11-28T16:00:00Z"),
        (60, "its first value begins at"),
        (NOW * 2, "its last value ended at"),
    ] {
        let (value, fallback, source, why) = told(&at(&mut factors, time)[0]);
        assert_eq!((value, fallback), (Some(344.0), true), "{time}");
        assert!(source.contains("DEU 2024") && source.contains("Ember"), "{source}");
        assert!(why.contains(what) && why.contains("carbon.csv"), "{why}");
        let state = factors.states().next().unwrap();
        assert!(state.health.why().contains(what) && state.health.why().contains("stands in"), "{state:?}");
    }
    assert_eq!(at(&mut factors, NOW + 3600)[0].value(), Some(200.0));
    // Without anything behind it there is no number.
    let mut alone = Factors::open(&carbon(&file, serde_json::json!({})));
    let (value, _, source, why) = told(&at(&mut alone, NOW + 86_400)[0]);
    assert!(value.is_none() && source.is_empty() && why.contains("ended"), "{why}");
    assert!(matches!(alone.states().next().unwrap().health, Health::Failed(_)));
}

#[test]
fn a_factor_stays_for_a_minute() {
    let lab = Lab::new();
    let file = lab.file(&format!("from,until,g_per_kwh\n{},{},100\n{},{},200\n", NOW, NOW + 30, NOW + 30, NOW + 600));
    let mut factors = Factors::open(&carbon(&file, serde_json::json!({})));
    let found: Vec<_> = [0, 29, 30, 59, 60].map(|more| at(&mut factors, NOW + more)[0].value().unwrap()).to_vec();
    assert_eq!(found, [100.0, 100.0, 100.0, 100.0, 200.0], "history has minutes");
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_line() {
    let head = "from,until,g_per_kwh\n";
    let line = |from: i64, until: i64, value: &str| format!("{from},{until},{value}\n");
    let parse = |text: &str| Series::parse(Path::new("/x/carbon.csv"), text.as_bytes(), Measure::Co2eLocation, GRAMS);
    for (text, what) in [
        (String::new(), "no value"),
        (head.to_owned(), "no value"),
        (head.to_owned() + &line(1, 2, "1000000"), "line 2: 1000000 is out of range"),
        (head.to_owned() + &line(1, 2, "-1"), "out of range"),
        (head.to_owned() + &line(1, 2, "NaN"), "out of range"),
        (head.to_owned() + &line(2, 2, "5"), "line 2: from"),
        (
            head.to_owned() + &line(1, 9, "5") + &line(7, 10, "5"),
            "line 3 begins at 1970-01-01T00:00:07Z, before line 2",
        ),
        (head.to_owned() + "1,2\n", "line 2"),
        (head.to_owned() + "2026-11-28T14:30:00,2,3\n", "offset"),
        ("from,until,EUR_per_kwh\n1,2,3\n".into(), "g_per_kwh"),
        ("\u{0}\u{1}garbage".into(), "line 1"),
        ("{\"unit\":".into(), "JSON cannot be read"),
        (r#"{"unit":"EUR/kWh","values":[]}"#.into(), "gCO2e/kWh"),
        (r#"{"unit":"gCO2e/kWh","values":[{"from":"yesterday","until":2,"value":3}]}"#.into(), "value 1"),
    ] {
        let why = parse(&text).unwrap_err();
        assert!(why.contains(what), "{text:?}: {why}");
    }
    let json = r#"{"unit":"gCO2e/kWh","source":"UK","values":[{"from":"2026-11-28T14:30:00+00:00","until":1795878000,"value":0}]}"#;
    let series = parse(json).unwrap();
    assert_eq!((series.at(NOW).unwrap().per_kwh, &*series.name(), series.zero()), (0, "UK", Some(NOW)));
    let price = "from,until,EUR_per_kwh\n0,10,-0.0251\n";
    let series = Series::parse(Path::new("/x"), price.as_bytes(), Measure::Cost, "EUR").unwrap();
    assert_eq!(series.at(5).unwrap().per_kwh, -25_100);
}

#[test]
fn what_takes_the_place_of_a_file_does_not_take_its_values() {
    let lab = Lab::new();
    let path = lab.file(&format!("from,until,g_per_kwh\n{},{},100\n", NOW, NOW + 1800));
    let mut factors = Factors::open(&carbon(&path, serde_json::json!({ "intensity": 300.0 })));
    assert_eq!(at(&mut factors, NOW)[0].value(), Some(100.0));
    let other = lab.0.path().join("other");
    std::fs::write(&other, "from,until,g_per_kwh\n0,9000000000,1\n").unwrap();
    let large = lab.0.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(100 << 20).unwrap();
    let mut trouble = |replace: &dyn Fn(), what: &str| {
        replace();
        let begun = std::time::Instant::now();
        loop {
            at(&mut factors, NOW);
            let why = factors.states().next().unwrap().health.why().to_owned();
            if why.contains(what) && why.contains("carbon.csv") {
                break;
            }
            assert!(begun.elapsed().as_secs() < 60, "{what}: {why}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        factors.minute = None;
        assert_eq!(at(&mut factors, NOW)[0].value(), Some(100.0), "{what}: the values of before");
        factors.minute = None;
        assert_eq!(at(&mut factors, NOW + 1800)[0].value(), Some(300.0), "{what}: until they end");
        factors.minute = None;
    };
    let again = |make: &dyn Fn()| {
        std::fs::remove_file(&path).unwrap();
        make();
    };
    trouble(&|| again(&|| std::os::unix::fs::symlink(&other, &path).unwrap()), "symbolic link");
    trouble(&|| again(&|| std::fs::rename(&large, &path).unwrap()), "more than");
    trouble(&|| drop(lab.file("garbage")), "line 1");
    trouble(&|| std::fs::remove_file(&path).unwrap(), "No such file");
}

#[test]
fn tariffs_follow_the_local_clock_also_in_nights_with_a_change() {
    let windows = tariffs(serde_json::json!([
        { "name": "night", "price": 0.2, "from": "22:00", "until": "06:00" },
        { "name": "weekend", "price": -0.05, "from": "06:00", "until": "22:00", "days": "sat,sun" },
        { "name": "winter day", "price": 0.4, "from": "06:00", "until": "22:00", "days": "mon-fri", "months": "nov-mar" },
        { "name": "day", "price": 0.3, "from": "06:00", "until": "22:00", "days": "mon-fri", "months": "apr-oct" },
    ]));
    let all = match Tariffs::new(&windows, Some("Europe/Berlin")) {
        Err((key, _)) if key == "time_zone" => return println!("skipped: no time zone database"),
        other => other.unwrap(),
    };
    assert_eq!(all.gap(), None);
    let price = |text: &str| all.at(text.parse::<Timestamp>().unwrap().as_second()).map(|(price, _)| price).unwrap();
    assert_eq!(price("2026-11-28T14:30:00Z"), -50_000, "Saturday");
    assert_eq!((price("2026-11-27T14:30:00Z"), price("2026-07-03T14:30:00Z")), (400_000, 300_000));
    assert_eq!(
        (price("2026-11-26T21:00:00Z"), price("2026-11-26T20:59:59Z")),
        (200_000, 400_000),
        "22:00 is 21:00 UTC"
    );
    assert_eq!((price("2026-07-02T20:00:00Z"), price("2026-07-02T19:59:59Z")), (200_000, 300_000), "in summer 20:00");
    // 2026-10-25: 3 h become 2 h at 01:00 UTC. 06:00 is 05:00 UTC, ten hours after 22:00 and not eight.
    assert_eq!((price("2026-10-25T04:59:59Z"), price("2026-10-25T05:00:00Z")), (200_000, -50_000));
    let night = (0..24).filter(|hour| {
        let at = "2026-10-24T12:00:00Z".parse::<Timestamp>().unwrap().as_second() + hour * 3600;
        all.at(at).unwrap().0 == 200_000
    });
    assert_eq!(night.count(), 9, "from 22 to 6 are nine hours");
    // From noon on: half an hour more or less, and an hour.
    for (zone, noon, minutes) in [
        ("Australia/Lord_Howe", "2026-04-04T01:00:00Z", 510),
        ("Australia/Lord_Howe", "2026-10-03T01:30:00Z", 450),
        ("America/New_York", "2026-03-07T17:00:00Z", 420),
        ("America/New_York", "2026-10-31T16:00:00Z", 540),
        ("Europe/Berlin", "2026-03-28T11:00:00Z", 420),
    ] {
        let all = Tariffs::new(&windows, Some(zone)).unwrap();
        let noon = noon.parse::<Timestamp>().unwrap().as_second();
        let at = |minute: i64| all.at(noon + minute * 60).unwrap_or_else(|| panic!("{zone}: no price"));
        assert_eq!((0..23 * 60).filter(|minute| at(*minute).0 == 200_000).count(), minutes, "{zone} {noon}");
    }
}

#[test]
fn sections_that_cannot_be_meant_are_refused_with_their_key() {
    let wrong = |json: serde_json::Value| {
        price(json).wrong().into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>().join("\n")
    };
    let two = |one: (&str, &str), other: (&str, &str)| {
        let of = |name: &str, (from, until): (&str, &str)| serde_json::json!({ "name": name, "price": 1, "from": from, "until": until });
        serde_json::json!({ "currency": "EUR", "time_zone": "UTC", "tariff": [of("a", one), of("b", other)] })
    };
    assert!(
        wrong(two(("06:00", "22:00"), ("21:00", "06:00")))
            .contains("tariff a and tariff b both have a price for 21:00 on mon")
    );
    assert!(wrong(two(("06:00", "22:00"), ("23:00", "06:00"))).contains("no tariff has a price for 22:00 on mon"));
    assert_eq!(wrong(two(("06:00", "22:00"), ("22:00", "06:00"))), "");
    assert!(wrong(two(("6:00", "22:00"), ("22:00", "06:00"))).contains("tariff.0.from"));
    assert!(wrong(two(("06:00", "06:00"), ("22:00", "06:00"))).contains("tariff.0.from"));
    let other = |key: &str, value: serde_json::Value| {
        let mut all = serde_json::json!({ "currency": "EUR", "per_kwh": -0.3, "time_zone": "UTC" });
        all[key] = value;
        wrong(all)
    };
    assert_eq!(other("currency", "EUR".into()), "", "a price may be negative");
    assert!(other("currency", "euro".into()).contains("EUR"));
    assert!(other("currency", serde_json::Value::Null).contains("currency"));
    assert!(other("per_kwh", 1e7.into()).contains("per_kwh: out of range"));
    assert!(other("time_zone", "Mars/Olympus".into()).contains("Mars/Olympus"));
    assert!(other("file", "price.json".into()).contains("absolute"));
    let days = serde_json::json!([{ "name": "x", "price": 1, "days": "mon-fry" }]);
    assert!(other("tariff", days).contains("tariff.0.days"));
    let carbon = |json: serde_json::Value| {
        let config: CarbonConfig = serde_json::from_value(json).unwrap();
        config.wrong().into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>().join("\n")
    };
    for value in [0.0, -5.0, 1e6] {
        assert!(carbon(serde_json::json!({ "intensity": value })).contains("intensity: out of range"), "{value}");
    }
    assert_eq!(carbon(serde_json::json!({ "market_intensity": 0, "country": "FR" })), "", "a contract may be free");
    assert!(carbon(serde_json::json!({ "country": "XX" })).contains("\"XX\""));
    assert!(carbon(serde_json::json!({ "embodied_kg": 1200 })).contains("lifetime_years: wanted"));
}
