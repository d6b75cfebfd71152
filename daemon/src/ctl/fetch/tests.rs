//! Each service, by an answer in the shape that it documents, from a TLS server on this machine. No service is asked.

use super::*;
use crate::footprint::file::Value;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// 2026-11-28 14:40 in UTC.
const NOW: i64 = 1_795_876_800;

/// A server that answers paths (without their query) with a status and JSON, and notes the heads of requests.
struct Service {
    dir: tempfile::TempDir,
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

async fn serve(answers: &[(&str, &str, &str)]) -> Service {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let answers: BTreeMap<String, (String, String)> =
        answers.iter().map(|(path, status, body)| ((*path).into(), ((*status).into(), (*body).into()))).collect();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                head.push(byte);
                if !head.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                let path = text.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
                noted.lock().unwrap().push(text);
                let missing = ("404 Not Found".to_owned(), String::new());
                let (status, body) = answers.get(&path).unwrap_or(&missing);
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    Service { dir, url, heads }
}

impl Service {
    fn arguments(&self, service: super::Service, more: impl FnOnce(&mut Arguments)) -> Arguments {
        let mut arguments = Arguments {
            service,
            out: self.dir.path().join("carbon.json"),
            zone: None,
            url: Some(self.url.clone()),
            query: None,
            currency: None,
            add: None,
            key_file: None,
            ca_file: Some(self.dir.path().join("ca.pem")),
        };
        more(&mut arguments);
        arguments
    }

    fn key(&self, key: &str) -> PathBuf {
        let path = self.dir.path().join("key");
        std::fs::write(&path, key).unwrap();
        path
    }

    /// What the daemon reads of the file, at a time.
    fn value(&self, at: i64, measure: Measure, unit: &str) -> Result<Value, String> {
        let path = self.dir.path().join("carbon.json");
        let bytes = std::fs::read(&path).unwrap();
        Series::parse(&path, &bytes, measure, unit).unwrap().at(at)
    }

    fn grams(&self, at: i64) -> f64 {
        self.value(at, Measure::Co2eLocation, GRAMS).unwrap().per_kwh as f64 / 1e6
    }
}

async fn fetched(arguments: &Arguments) -> Result<String, String> {
    let mut out = Vec::new();
    run(arguments, NOW, &mut out).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

const UK: &str = r#"{"data":[
    {"from":"2026-11-28T14:30Z","to":"2026-11-28T15:00Z","intensity":{"forecast":210,"actual":198,"index":"moderate"}},
    {"from":"2026-11-28T15:00Z","to":"2026-11-28T15:30Z","intensity":{"forecast":205,"actual":null,"index":"moderate"}}]}"#;

#[tokio::test]
async fn great_britain_has_a_forecast() {
    let regional = format!(r#"{{"data":{{"regionid":13,"shortname":"London","postcode":"SW1A",{}}}"#, &UK[1..]);
    let service = serve(&[
        ("/intensity/2026-11-28T14:30Z/fw48h", "200 OK", UK),
        ("/regional/intensity/2026-11-28T14:30Z/fw48h/postcode/SW1A", "200 OK", &regional),
    ])
    .await;
    let said = fetched(&service.arguments(super::Service::Uk, |_| ())).await.unwrap();
    assert!(said.contains("2 values") && said.contains("Great Britain"), "{said}");
    assert_eq!((service.grams(NOW), service.grams(NOW + 1800)), (198.0, 205.0), "the actual one where it is known");
    assert!(service.value(NOW + 3600, Measure::Co2eLocation, GRAMS).unwrap_err().contains("ended"));
    fetched(&service.arguments(super::Service::Uk, |one| one.zone = Some("SW1A".into()))).await.unwrap();
    assert_eq!(service.grams(NOW), 198.0);
}

#[tokio::test]
async fn france_publishes_late_and_its_last_value_holds() {
    let answer = r#"{"total_count":3,"results":[
        {"taux_co2":null,"date_heure":"2026-11-28T14:45:00+00:00"},
        {"taux_co2":31,"date_heure":"2026-11-28T15:30:00+01:00"},
        {"taux_co2":29,"date_heure":"2026-11-28T15:15:00+01:00"}]}"#;
    let path = "/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/records";
    let service = serve(&[(path, "200 OK", answer)]).await;
    fetched(&service.arguments(super::Service::France, |_| ())).await.unwrap();
    let times = [NOW - 1200, NOW, NOW + 3600].map(|at| service.grams(at));
    assert_eq!(times, [29.0, 31.0, 31.0]);
    assert!(service.value(NOW + 7200, Measure::Co2eLocation, GRAMS).is_err(), "two hours, and not for ever");
}

#[tokio::test]
async fn energy_charts_has_prices_and_carbon() {
    let price = format!(
        r#"{{"license_info":"CC BY 4.0","unix_seconds":[{},{},{}],"price":[95.5,-12.25,null],"unit":"EUR / MWh"}}"#,
        NOW - 600,
        NOW + 300,
        NOW + 1200
    );
    let carbon = format!(
        r#"{{"unix_seconds":[{},{}],"co2eq":[301.2,null],"co2eq_forecast":[null,290.5]}}"#,
        NOW - 600,
        NOW + 300
    );
    let service = serve(&[("/price", "200 OK", &price), ("/co2eq", "200 OK", &carbon)]).await;
    let of_price = |one: &mut Arguments| (one.zone, one.add) = (Some("DE-LU".into()), Some(0.15));
    fetched(&service.arguments(super::Service::EnergyChartsPrice, of_price)).await.unwrap();
    let cost = |at| service.value(at, Measure::Cost, "EUR").map(|value| value.per_kwh);
    assert_eq!((cost(NOW), cost(NOW + 300)), (Ok(245_500), Ok(137_750)), "EUR/MWh and 0.15 EUR/kWh of fees");
    assert!(cost(NOW + 1200).is_err(), "no value is no 0");
    assert!(service.heads.lock().unwrap()[0].contains("bzn=DE-LU"));
    fetched(&service.arguments(super::Service::EnergyChartsCarbon, |one| one.zone = Some("de".into()))).await.unwrap();
    assert_eq!((service.grams(NOW), service.grams(NOW + 300)), (301.2, 290.5));
}

#[tokio::test]
async fn keys_go_to_their_service_and_nowhere_else() {
    let maps = r#"{"zone":"DE","carbonIntensity":302,"datetime":"2026-11-28T14:00:00.000Z",
        "updatedAt":"2026-11-28T14:35:00.000Z","emissionFactorType":"lifecycle","isEstimated":true}"#;
    let watt = r#"{"data":[{"point_time":"2026-11-28T14:35:00+00:00","value":870.0},
        {"point_time":"2026-11-28T14:40:00+00:00","value":900.0}],
        "meta":{"data_point_period_seconds":300,"region":"CAISO_NORTH","signal_type":"co2_moer","units":"lbs_co2_per_mwh"}}"#;
    let service = serve(&[
        ("/v3/carbon-intensity/latest", "200 OK", maps),
        ("/login", "200 OK", r#"{"token":"t0ken"}"#),
        ("/v3/historical", "200 OK", watt),
    ])
    .await;
    let of = |zone: &str, key: Option<PathBuf>| {
        let zone = zone.to_owned();
        move |one: &mut Arguments| (one.zone, one.key_file) = (Some(zone), key)
    };
    let without = service.arguments(super::Service::ElectricityMaps, of("DE", Some(service.key(""))));
    assert!(fetched(&without).await.unwrap_err().contains("--key-file"), "an empty key is none");
    fetched(&service.arguments(super::Service::ElectricityMaps, of("DE", Some(service.key("s3cret\n")))))
        .await
        .unwrap();
    assert_eq!(service.grams(NOW), 302.0);
    fetched(&service.arguments(super::Service::Watttime, of("CAISO_NORTH", Some(service.key("me:pass")))))
        .await
        .unwrap();
    assert_eq!(service.grams(NOW), 900.0 * 0.453_592);
    let heads = service.heads.lock().unwrap().clone();
    assert!(heads[0].to_lowercase().contains("auth-token: s3cret"), "{heads:?}");
    assert!(heads[1].contains("Basic bWU6cGFzcw==") && heads[2].contains("Bearer t0ken"), "{heads:?}");
    let plain = |one: &mut Arguments| {
        (one.zone, one.key_file) = (Some("DE".into()), Some(service.key("s3cret")));
        one.url = Some("http://127.0.0.1:9".into());
    };
    let why = fetched(&service.arguments(super::Service::ElectricityMaps, plain)).await.unwrap_err();
    assert!(why.contains("without TLS") && !why.contains("s3cret"), "{why}");
}

#[tokio::test]
async fn a_query_to_prometheus_is_one_number() {
    let one =
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1795876800,"231.5"]}]}}"#;
    let service = serve(&[("/api/v1/query", "200 OK", one)]).await;
    let query = |one: &mut Arguments| one.query = Some("avg(grid_intensity_carbon_average{location=\"DE\"})".into());
    fetched(&service.arguments(super::Service::Prometheus, query)).await.unwrap();
    assert_eq!(service.grams(NOW), 231.5);
    assert!(
        service.heads.lock().unwrap()[0]
            .contains("query=avg%28grid_intensity_carbon_average%7Blocation%3D%22DE%22%7D%29")
    );
    let none = service.arguments(super::Service::Prometheus, |_| ());
    assert!(fetched(&none).await.unwrap_err().contains("--query"));
}

#[tokio::test]
async fn what_is_no_answer_leaves_the_file_as_it_was() {
    let path = "/intensity/2026-11-28T14:30Z/fw48h";
    let (empty, odd) = (r#"{"data":[]}"#, r#"{"data":[{"from":"yesterday"}]}"#);
    let huge = UK.replace("198", "1000000");
    let cases = [
        ("200 OK", "garbage", "no JSON"),
        ("200 OK", empty, "no value"),
        ("200 OK", odd, "no time \"from\""),
        ("200 OK", "{}", "no list \"data\""),
        ("200 OK", &*huge, "out of range"),
        ("302 Found", "", "redirections are not followed"),
        ("403 Forbidden", "", "is the key right"),
        ("500 Internal Server Error", "", "500"),
    ];
    for (status, body, what) in cases {
        let service = serve(&[(path, status, body)]).await;
        std::fs::write(service.dir.path().join("carbon.json"), "before").unwrap();
        let why = fetched(&service.arguments(super::Service::Uk, |_| ())).await.unwrap_err();
        assert!(why.contains(what) && why.contains("Carbon Intensity API"), "{what}: {why}");
        assert_eq!(std::fs::read_to_string(service.dir.path().join("carbon.json")).unwrap(), "before");
        assert!(!service.dir.path().join(".carbon.json.part").exists());
    }
    let service = serve(&[(path, "200 OK", UK)]).await;
    let why = fetched(&service.arguments(super::Service::Uk, |one| one.ca_file = None)).await.unwrap_err();
    assert!(why.contains("Carbon Intensity API"), "its certificate is nobody's that the system trusts: {why}");
}
