//! Power models for others (`[export.models]`): Kepler's clients on the metrics page's listener and on the estimator's
//! socket, clients that do harm, and files that cannot be used. Which model answers is tested beside the code.

use crate::common::{Daemon, PATIENCE, World, get, refused, until};
use crate::web::{Files, TLS};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Kepler 0.9's weights for the whole machine (kepler-model-db, Apache-2.0), in short.
const ACPI: &str = r#"{"model_name":"SGDRegressorTrainer_0","platform":{"All_Weights":{"Bias_Weight":63.732101547596734,"Categorical_Variables":{},"Numerical_Variables":{"bpf_cpu_time_ms":{"scale":3991.690709751875,"weight":60.735455390707436},"bpf_page_cache_hit":{"scale":1.0,"weight":0.0}}}}}"#;
/// What an exporter sends at its start.
const ZEROS: &str = r#"{"metrics":["bpf_cpu_time_ms","bpf_page_cache_hit"],"values":[[0,0]],"output_type":"AbsPower","source":"acpi","system_features":["cpu_architecture"],"system_values":["Ice Lake"],"trainer_name":"","filter":""}"#;
const ANSWER: &str = r#"{"powers":{"platform":[63.732]},"msg":"","core_ratio":1}"#;

struct Served {
    world: World,
    folder: PathBuf,
    socket: PathBuf,
    daemon: Daemon,
}

impl Served {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let world = World::new();
        let (folder, socket) = (world.state.with_extension("models"), world.state.with_extension("sock"));
        fs::create_dir(&folder).unwrap();
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes).unwrap();
        }
        world.config(&format!(
            "[export.models]\nserve = true\nestimator = {socket:?}\nfolders = [\"/no/such\", {folder:?}]\n"
        ));
        let daemon = world.start();
        Self { world, folder, socket, daemon }
    }

    fn connect(&self) -> UnixStream {
        let io = UnixStream::connect(&self.socket).unwrap();
        io.set_read_timeout(Some(PATIENCE)).unwrap();
        io
    }

    /// As a client of Kepler: one write, one read of at most 4,096 bytes.
    fn estimate(&self, request: &str) -> String {
        let mut io = self.connect();
        io.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = io.read(&mut answer).unwrap();
        String::from_utf8(answer[..length].to_vec()).unwrap()
    }

    fn post(&self, body: &str) -> String {
        let mut io = TcpStream::connect(self.daemon.address).unwrap();
        io.set_read_timeout(Some(PATIENCE)).unwrap();
        let head =
            format!("POST /model HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        io.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn keplers_clients_are_answered() {
    let served = Served::new(&[("acpi_AbsPowerModel.json", ACPI.as_bytes())]);
    assert_eq!(served.estimate(ZEROS), ANSWER);
    // In pieces, as a client with little room to write sends it.
    let mut io = served.connect();
    for piece in ZEROS.as_bytes().chunks(7) {
        io.write_all(piece).unwrap();
    }
    let mut answer = String::new();
    io.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, ANSWER);
    // No file for RAPL: the prior of this machine.
    let rapl = served.estimate(&ZEROS.replace("acpi", "intel_rapl"));
    assert!(rapl.starts_with(r#"{"powers":{"package":["#) && rapl.ends_with(r#"},"msg":"","core_ratio":1}"#), "{rapl}");
    let many: Vec<String> = (0..500).map(|at| format!("[{at}.5,1]")).collect();
    let many = ZEROS.replace("[[0,0]]", &format!("[{}]", many.join(","))).replace("AbsPower", "DynPower");
    let value: serde_json::Value = serde_json::from_str(&served.estimate(&many)).unwrap();
    assert_eq!(value["powers"]["platform"].as_array().unwrap().len(), 500);

    let request = r#"{"metrics":["bpf_cpu_time_ms","bpf_page_cache_hit"],"output_type":"AbsPower","source":"acpi","node_type":0,"weight":true,"trainer_name":"SGDRegressorTrainer","filter":""}"#;
    let answer = served.post(request);
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let weights: serde_json::Value = serde_json::from_str(body).unwrap();
    let file: serde_json::Value = serde_json::from_str(ACPI).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && weights["platform"] == file["platform"], "{answer}");
    assert_eq!(weights["model_name"], "SGDRegressorTrainer_0");
    let archive = served.post(&request.replace("\"weight\":true", "\"weight\":false"));
    assert!(archive.starts_with("HTTP/1.0 400") && archive.contains("only weights are served"), "{archive}");
    // Nothing is waited for where the head says enough, and each fault has its own words.
    let raw = |head: &str, body: &str| {
        let mut io = TcpStream::connect(served.daemon.address).unwrap();
        io.set_read_timeout(Some(PATIENCE)).unwrap();
        io.write_all(
            format!("POST /model HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n{body}").as_bytes(),
        )
        .unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).unwrap();
        answer
    };
    let huge = raw("Content-Length: 100000000000", "");
    assert!(huge.starts_with("HTTP/1.1 413") && huge.contains("more than 65536 bytes"), "{huge}");
    let chunks = raw("Transfer-Encoding: chunked", "zz\r\n");
    assert!(chunks.starts_with("HTTP/1.1 400") && chunks.contains("chunks are not as HTTP has them"), "{chunks}");
    let chunked = raw("Transfer-Encoding: chunked", &format!("{:x}\r\n{request}\r\n0\r\n\r\n", request.len()));
    assert!(chunked.starts_with("HTTP/1.1 200"), "{chunked}");
    let long = served.post(&format!("{request}{}", " ".repeat(70_000)));
    assert!(long.starts_with("HTTP/1.0 413"), "{long}");
    let best = get(served.daemon.address, "/best-models?energy-source=acpi", &[]);
    assert_eq!(
        best.body,
        r#"{"AbsPower":{"BPFOnly":"SGDRegressorTrainer_0"},"DynPower":{"BPFOnly":"SGDRegressorTrainer_0"}}"#
    );
    assert_eq!(get(served.daemon.address, "/best-models?energy-source=moon", &[]).status, 400);
    let list = get(served.daemon.address, "/v1/models", &[]);
    assert!(list.status == 200 && list.body.contains("acpi_AbsPowerModel") && list.body.contains("prior"), "{list:?}");
    assert_eq!(get(served.daemon.address, "/v1/models/acpi_AbsPowerModel", &[]).body, ACPI);
    assert_eq!(get(served.daemon.address, "/v1/models/..%2f..%2fetc%2fpasswd", &[]).status, 404);
    served.daemon.stop();
    assert!(!served.socket.exists());
}

#[test]
fn a_reload_reads_the_files_again() {
    let served = Served::new(&[]);
    assert_ne!(served.estimate(ZEROS), ANSWER);
    fs::write(served.folder.join("acpi_AbsPowerModel.json"), ACPI).unwrap();
    served.daemon.signal(libc::SIGHUP);
    until("the new file answers", || (served.estimate(ZEROS) == ANSWER).then_some(()));
    served.daemon.stop();
    drop(served.world);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dynamic = ACPI.replace("63.732", "89.262");
    let nan = ACPI.replace("63.732101547596734", "NaN");
    let long = vec![b' '; 2 << 20];
    let served = Served::new(&[
        ("model.zip", b"PK\x03\x04"),
        ("scaler.pkl", b"\x80\x04"),
        ("zip_AbsPower.json", b"PK\x03\x04"),
        ("acpi_DynPowerModel.json", dynamic.as_bytes()),
        ("nan_AbsPower.json", nan.as_bytes()),
        ("cut_AbsPower.json", &ACPI.as_bytes()[..99]),
        ("long_AbsPower.json", &long),
        ("unnamed.json", ACPI.as_bytes()),
        ("README.md", b"text"),
        ("own.json", br#"{"format":"jouled power model","version":9}"#),
        ("z_acpi_AbsPowerModel.json", ACPI.as_bytes()),
    ]);
    for (file, why) in [
        ("model.zip", "never read"),
        ("scaler.pkl", "never read"),
        ("zip_AbsPower.json", "zip archive"),
        ("acpi_DynPowerModel.json", "each process gets 89.3 W"),
        ("nan_AbsPower.json", "NaN"),
        ("cut_AbsPower.json", "cut short"),
        ("long_AbsPower.json", "more than 1048576 bytes"),
        ("own.json", "field version: it is 9"),
        ("README.md", "does not end in .json"),
        ("unnamed.json", "AbsPower or DynPower"),
    ] {
        let line = served.daemon.log.wait_for(&format!("{file}: not used: "));
        assert!(line.contains(why), "{line}");
    }
    // The next best model goes on.
    assert_eq!(served.estimate(ZEROS), ANSWER);
    fs::rename(served.folder.join("z_acpi_AbsPowerModel.json"), served.world.state.with_extension("json")).unwrap();
    let link = served.folder.join("link_AbsPower.json");
    std::os::unix::fs::symlink(served.world.state.with_extension("json"), link).unwrap();
    served.daemon.signal(libc::SIGHUP);
    assert!(served.daemon.log.wait_for("link_AbsPower.json: not used").contains("symbolic link"));
    // A reload does not repeat what the log says already.
    assert_eq!(served.daemon.log.text().matches("own.json: not used").count(), 1);
    served.daemon.stop();
}

#[test]
fn clients_that_do_harm_are_named_and_others_are_answered() {
    let served = Served::new(&[("acpi_AbsPowerModel.json", ACPI.as_bytes())]);
    // Half a request, and a reader that never reads, stay while others ask.
    let mut half = served.connect();
    half.write_all(&ZEROS.as_bytes()[..50]).unwrap();
    let mut deaf = served.connect();
    deaf.write_all(ZEROS.as_bytes()).unwrap();
    // 100 MB: the daemon takes 1 MiB of it.
    let mut flood = served.connect();
    let mut sent = flood.write_all(br#"{"metrics":[""#);
    for _ in 0..100 {
        sent = sent.and_then(|()| flood.write_all(&[b'x'; 1 << 20]));
    }
    assert!(sent.is_err());
    let me = format!("estimator: process {} of user {}: ", std::process::id(), rustix::process::geteuid().as_raw());
    assert!(served.daemon.log.wait_for("more than 1048576 bytes").contains(&me));
    for (request, why) in [("GET / HTTP/1.1\r\n\r\n", "no JSON object"), ("{\"values\":[[[[[[[[", "nested")] {
        assert!(served.estimate(request).contains(why), "{request}");
        assert!(served.daemon.log.wait_for(why).contains(&me));
    }
    // Many connections of one user: the oldest make room.
    let idle: Vec<_> = (0..40).map(|_| served.connect()).collect();
    assert_eq!(served.estimate(ZEROS), ANSWER);
    drop((idle, deaf));
    // The rest of half a request does not come.
    let mut gone = served.connect();
    gone.write_all(&ZEROS.as_bytes()[..50]).unwrap();
    gone.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    gone.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("cut short"), "{answer}");
    drop(half);
    served.daemon.stop();
}

/// Status of `POST /model` over HTTP/2 and TLS.
async fn post_over_http2(files: &Files, address: SocketAddr, body: &'static str, password: Option<&str>) -> u16 {
    let connector = TlsConnector::from(Arc::new(files.trusting(&[b"h2"])));
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let tls = connector.connect(ServerName::try_from("node.example").unwrap(), tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    let task = tokio::spawn(connection);
    let mut request = hyper::Request::post("https://node.example/model");
    if let Some(password) = password {
        request = request.header("authorization", format!("Basic {}", BASE64_STANDARD.encode(password)));
    }
    let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    drop(sender);
    task.abort();
    answer.status().as_u16()
}

#[test]
fn the_passwords_of_the_page_hold_for_models() {
    let (world, files) = (World::new(), Files::new());
    let hash = bcrypt::hash("secret", 4).unwrap();
    let web = files.write("web.yml", &format!("{TLS}basic_auth_users:\n  kepler: {hash}\n"));
    world.config(&format!("[export]\nweb_config_file = {web:?}\n[export.models]\nserve = true\n"));
    let daemon = world.start();
    let body = r#"{"metrics":["bpf_cpu_time_ms"],"output_type":"AbsPower","source":"acpi","weight":true}"#;
    let over_http1 = |password: Option<&str>, path: &str, method: &str| {
        let mut io = files.handshake(daemon.address, "node.example", &[b"http/1.1"]).unwrap();
        let password = password.map_or_else(String::new, |password| {
            format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(password))
        });
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: node.example\r\nConnection: close\r\n{password}Content-Length: {}\r\n\r\n",
            body.len()
        );
        io.write_all((head + body).as_bytes()).unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(status == 200 || !answer.contains("All_Weights"), "{answer}");
        status
    };
    for (password, expected) in [(None, 401), (Some("kepler:wrong"), 401), (Some("kepler:secret"), 200)] {
        assert_eq!(over_http1(password, "/model", "POST"), expected, "HTTP/1.1 {password:?}");
        for path in ["/v1/models", "/best-models"] {
            let headers = password.map(|password| format!("Authorization: Basic {}", BASE64_STANDARD.encode(password)));
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let answer = files.get(daemon.address, "node.example", path, &headers).unwrap();
            assert_eq!(answer.status, expected, "{path} {password:?}");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for (password, expected) in [(None, 401), (Some("kepler:wrong"), 401), (Some("kepler:secret"), 200)] {
            let status = post_over_http2(&files, daemon.address, body, password).await;
            assert_eq!(status, expected, "HTTP/2 {password:?}");
        }
    });
    daemon.stop();
}

#[test]
fn off_by_default_and_never_where_others_can_take_its_place() {
    let world = World::new();
    let daemon = world.start();
    for path in ["/v1/models", "/best-models"] {
        assert_eq!(get(daemon.address, path, &[]).status, 404, "{path}");
    }
    daemon.stop();
    world.config("[export.models]\nestimator = \"estimator.sock\"\n");
    assert!(refused(&mut world.jouled()).contains("export.models.estimator"));
}

/// Clients that begin a request and do not send its body keep nobody out, also not one of the same address.
#[test]
fn slow_bodies_keep_no_scrape_out() {
    let served = Served::new(&[]);
    let begin = |at: usize| {
        let mut io = TcpStream::connect(served.daemon.address).ok()?;
        // Some by length, some in chunks of which one has begun.
        let head = match at % 2 {
            0 => "Content-Length: 5000\r\n\r\n{",
            _ => "Transfer-Encoding: chunked\r\n\r\nff\r\n{",
        };
        // A connection may be closed for another one at any time.
        io.write_all(format!("POST /model HTTP/1.1\r\nHost: x\r\n{head}").as_bytes()).ok()?;
        Some(io)
    };
    let slow: Vec<_> = (0..200).filter_map(begin).collect();
    assert!(slow.len() > 100, "{}", slow.len());
    for _ in 0..20 {
        assert_eq!(get(served.daemon.address, "/metrics", &[]).status, 200);
    }
    drop(slow);
    served.daemon.stop();
}
