//! What reports are made with: files of factors, tariffs, answers of services, signatures.

use crate::text::{is_safe, lossy};
use jouled::ctl::fetch::services::Asked;
use jouled::ctl::fetch::{Arguments, Service};
use jouled::footprint::PriceConfig;
use jouled::footprint::file::Series;
use jouled::footprint::tariff::Tariffs;
use jouled::model::footprint::{GRAMS, Measure};
use jouled::sys::signature::{Checked, Made, PrivateKey, PublicKey, Signature, Trusted};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// 2026-11-29.
const NOW: i64 = 1_795_910_400;
/// As `footprint::config` has it, in millionths.
const PRICE_MAX: i64 = 1_000_000_000_000;
const GRAMS_MAX: i64 = 3_000_000_000;

/// A file of factors, as CSV or JSON: values that can be read are in their range and valid when they say.
pub fn factors(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let is_price = how & 1 == 1;
    let (measure, unit) = if is_price { (Measure::Cost, "EUR") } else { (Measure::Co2eLocation, GRAMS) };
    match Series::parse(Path::new("/factors"), data, measure, unit) {
        Err(why) => assert!(is_safe(&why), "{why:?}"),
        Ok(series) => {
            assert!(is_safe(&series.name()));
            let (least, most) = if is_price { (-PRICE_MAX, PRICE_MAX) } else { (0, GRAMS_MAX) };
            for at in [i64::MIN, -1, 0, NOW, i64::MAX].into_iter().chain(series.zero()) {
                match series.at(at) {
                    Err(why) => assert!(is_safe(&why), "{why:?}"),
                    Ok(value) => {
                        assert!(value.from <= at && at < value.until && (least..=most).contains(&value.per_kwh));
                        assert_eq!(series.at(value.from), Ok(value));
                        assert_ne!(series.at(value.until), Ok(value));
                    }
                }
            }
        }
    }
}

/// `[price]` as JSON: tariffs that are accepted have one price for each time, whatever the clock does.
pub fn tariffs(data: &[u8]) {
    let Ok(config) = serde_json::from_slice::<PriceConfig>(data) else { return };
    let wrong = config.wrong();
    assert!(wrong.iter().all(|(key, why)| !key.is_empty() && !why.is_empty()), "{wrong:?}");
    let Ok(all) = Tariffs::new(&config.tariff, config.time_zone.as_deref()) else {
        assert!(!wrong.is_empty());
        return;
    };
    if all.is_empty() || all.gap().is_some() {
        return;
    }
    // Every day of some years at an odd minute, and the nights in which most clocks change.
    let odd = i64::try_from(data.len()).unwrap_or_default() * 997 % 86_400;
    for day in 0..1_500 {
        let at = NOW + day * 86_400 + odd;
        assert!(all.at(at).is_some(), "no price at {at}");
    }
    for hour in 0..96 {
        for night in [1_774_659_600, 1_792_800_000] {
            let at = night + hour * 1_800;
            assert!(all.at(at).is_some(), "no price at {at}");
        }
    }
}

/// The answer of a service: what is made of it is a file that the daemon takes, or an error.
pub fn fetch(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let Ok(answer) = serde_json::from_slice(data) else { return };
    let services = [
        Service::Uk,
        Service::France,
        Service::EnergyChartsCarbon,
        Service::EnergyChartsPrice,
        Service::ElectricityMaps,
        Service::Watttime,
        Service::Prometheus,
    ];
    let service = services[usize::from(how) % services.len()];
    let is_prometheus = service == Service::Prometheus;
    let has_zone = !matches!(service, Service::Uk | Service::France | Service::Prometheus);
    let arguments = Arguments {
        service,
        out: PathBuf::from("/carbon.json"),
        zone: has_zone.then(|| "DE".to_owned()),
        url: is_prometheus.then(|| "http://127.0.0.1".to_owned()),
        query: is_prometheus.then(|| "x".to_owned()),
        currency: None,
        add: None,
        key_file: None,
        ca_file: None,
    };
    let asked = Asked::of(&arguments, NOW).unwrap();
    if let Ok(written) = asked.read(&answer) {
        let json = serde_json::to_vec(&written).unwrap();
        let (measure, unit) = asked.measure();
        // Refused where a value or time is out of range; then nothing is written.
        if let Ok(series) = Series::parse(&arguments.out, &json, measure, unit) {
            assert!(is_safe(&series.name()));
        }
    }
}

/// A key of this run, and the keys that are trusted: that one.
static KEY: LazyLock<(PrivateKey, Trusted)> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("jouled-fuzz-key-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (key, public) = PrivateKey::generate(&folder.join("key")).unwrap();
    let trusted = Trusted::files(&[public]).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    (key, trusted)
});

/// A signature and a public key as text; and a right signature of which one byte is changed: it is refused, or says the
/// same.
pub fn signature(data: &[u8]) {
    match Signature::read(data) {
        Err(why) => assert!(is_safe(&why), "{why:?}"),
        Ok(read) => assert_eq!(Signature::read(read.to_string().as_bytes()), Ok(read)),
    }
    if let Ok(key) = PublicKey::from_pem(data) {
        assert_eq!(PublicKey::from_pem(key.to_pem().as_bytes()), Ok(key));
    }
    let Some(([place, change, at, ..], content)) = data.split_at_checked(3) else { return };
    let (key, trusted) = &*KEY;
    let made = (at & 1 == 0).then(|| Made::new(i64::from(*at) << 24, &lossy(content)));
    let made = made.filter(|made| !made.host.is_empty());
    let signature = key.sign_made(made, content);
    assert!(matches!(trusted.check(content, &signature), Ok(Checked::Signed { .. })));
    let mut text = signature.to_string().into_bytes();
    let place = usize::from(*place) * 7 % text.len();
    text[place] ^= change;
    if let Ok(other) = Signature::read(&text)
        && other != signature
    {
        assert!(trusted.check(content, &other).is_err(), "{}", lossy(&text));
    }
    let mut other = content.to_vec();
    other.push(*change);
    assert!(trusted.check(&other, &signature).is_err(), "one byte more");
}
