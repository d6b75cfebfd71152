//! The program between a simulated kubelet, which speaks TLS, and a simulated jouled.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Jouled, World, id, lacks_ok};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a simulated kubelet does.
struct Kubelet {
    port: u16,
    /// Its certificate, in PEM.
    certificate: String,
    /// The answer: the head behind `HTTP/1.1 `, and the body.
    answer: Arc<Mutex<(String, String)>>,
    /// The request that came last.
    request: Arc<Mutex<String>>,
}

fn ok(body: &str) -> (String, String) {
    (format!("200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len()), body.to_owned())
}

impl Kubelet {
    /// Listens with a certificate for this name.
    fn listen(name: &str, answer: (String, String)) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, request) = (Arc::new(Mutex::new(answer)), Arc::<Mutex<String>>::default());
        let (of_thread, last) = (Arc::clone(&answer), Arc::clone(&request));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, answer, last) = (Arc::clone(&config), Arc::clone(&of_thread), Arc::clone(&last));
                std::thread::spawn(move || {
                    let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream.unwrap());
                    let mut tls = BufReader::new(tls);
                    let mut request = String::new();
                    while tls.read_line(&mut request).is_ok_and(|count| count > 2) {}
                    if request.is_empty() {
                        return;
                    }
                    *last.lock().unwrap() = request;
                    let (head, body) = answer.lock().unwrap().clone();
                    let mut say = |text: &str| tls.get_mut().write_all(text.as_bytes()).is_ok();
                    let mut is_open = say(&format!("HTTP/1.1 {head}\r\n{body}"));
                    // A body without a length has no end.
                    while is_open && !head.contains("Content-Length") {
                        is_open = say(&" ".repeat(1 << 20));
                    }
                });
            }
        });
        Self { port, certificate: made.cert.pem(), answer, request }
    }
}

/// A pod with one container.
fn pod(uid: &str, name: &str, container: u32) -> String {
    let running = format!(r#"{{"name":"nginx","image":"nginx:1","containerID":"containerd://{}"}}"#, id(container));
    let metadata = format!(r#"{{"name":"{name}","namespace":"shop","uid":"{uid}","labels":{{"team":"blue"}}}}"#);
    format!(r#"{{"metadata":{metadata},"spec":{{}},"status":{{"containerStatuses":[{running}]}}}}"#)
}

fn list(pods: &[String]) -> String {
    format!("{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{{}},\"items\":[{}]}}\n", pods.join(","))
}

fn start(world: &mut World, kubelet: &Kubelet, more: &[&str]) {
    std::fs::write(world.path("token"), "abc.def\n").unwrap();
    std::fs::write(world.path("ca"), &kubelet.certificate).unwrap();
    let address = format!("127.0.0.1:{}", kubelet.port);
    let (token, ca) = (world.path("token"), world.path("ca"));
    let options = ["--kubelet", &address, "--kubelet-token", token.to_str().unwrap(), "--kubelet-ca"];
    let options = [&options[..], &[ca.to_str().unwrap(), "--kubelet-interval", "1"], more].concat();
    world.start_with(&options);
}

#[test]
fn pods_of_a_kubelet_reach_jouled_and_changes_follow() {
    let kubelet = Kubelet::listen("node-1", ok(&list(&[pod("u-1", "web-0", 1)])));
    let mut world = World::new();
    let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
    start(&mut world, &kubelet, &["--kubelet-name", "node-1"]);
    let mut jouled = Jouled::accept(&listener);
    let first = jouled.line(|line| line.contains("begin"));
    assert_eq!(first["uri"], format!("https://127.0.0.1:{}", kubelet.port));
    let named = jouled.line(|line| line.contains("containers\":["));
    let expected = serde_json::json!([{
        "id": id(1), "name": "nginx", "image": "nginx:1", "labels": { "team": "blue" },
        "pod_uid": "u-1", "pod_name": "web-0", "pod_namespace": "shop",
    }]);
    assert_eq!(named["containers"], expected);
    let request = kubelet.request.lock().unwrap().clone();
    assert!(request.starts_with("GET /pods HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains("authorization: bearer abc.def\r\n"), "{request}");
    // The container is restarted: a new id; and the token is replaced.
    std::fs::write(world.path("token"), "new").unwrap();
    *kubelet.answer.lock().unwrap() = ok(&list(&[pod("u-1", "web-0", 2)]));
    let news = jouled.line(|line| line.contains(&id(2)));
    assert_eq!((&news["containers"][0]["name"], &news["gone"][0]), (&"nginx".into(), &id(1).into()));
    assert!(kubelet.request.lock().unwrap().to_ascii_lowercase().contains("bearer new\r\n"));
}

#[test]
fn what_is_not_the_kubelet_or_does_not_answer_as_it_is_named() {
    let no_length = |start: &str| ("200 OK\r\nConnection: close\r\n".to_owned(), start.to_owned());
    let cases = [
        ("node-1", ("401 Unauthorized\r\nContent-Length: 0\r\n".into(), String::new()), "does not know the token in"),
        ("node-1", ("403 Forbidden\r\nContent-Length: 0\r\n".into(), String::new()), "may not get nodes/proxy"),
        (
            "node-1",
            ("302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n".into(), String::new()),
            "a redirect is not followed",
        ),
        ("node-1", ok("<html>"), "no list of objects"),
        ("node-1", ok("{\"kind\":\"Status\"}"), "its list has no end"),
        ("node-1", ok(&list(&[r#"{"metadata":7}"#.to_owned()])), "a container that cannot be read: a pod: "),
        ("node-1", no_length("{"), "has no items"),
        ("other", ok(&list(&[])), "no TLS with it: "),
    ];
    for (name, answer, words) in cases {
        let kubelet = Kubelet::listen(name, answer);
        let mut world = World::new();
        let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
        start(&mut world, &kubelet, &["--kubelet-name", "node-1"]);
        let mut jouled = Jouled::accept(&listener);
        let line = jouled.line(lacks_ok);
        let health = line["health"].as_str().unwrap();
        assert!(health.contains(words), "{words}: {health}");
        assert!(!health.contains("abc.def"), "{health}");
        assert!(world.peak_kilobytes() < 30 << 10, "{} kB", world.peak_kilobytes());
    }
}

#[test]
fn a_kubelet_that_another_certificate_stands_for_gets_no_token() {
    let (kubelet, other) = (Kubelet::listen("node-1", ok(&list(&[]))), Kubelet::listen("node-1", ok("")));
    let mut world = World::new();
    let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
    let false_one = Kubelet { certificate: other.certificate, ..kubelet };
    start(&mut world, &false_one, &["--kubelet-name", "node-1"]);
    let line = Jouled::accept(&listener).line(lacks_ok);
    assert!(line["health"].as_str().unwrap().contains("no TLS with it: "), "{line}");
    assert_eq!(*false_one.request.lock().unwrap(), "");
}

#[test]
fn files_and_options_that_are_wrong_are_named() {
    let kubelet = Kubelet::listen("node-1", ok(&list(&[])));
    for (file, text, words) in [
        ("token", "", "/token: there is no token in it"),
        ("token", "a b", "/token: there is no token in it"),
        ("ca", "nothing", "/ca: there is no certificate in it"),
    ] {
        let mut world = World::new();
        let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
        start(&mut world, &kubelet, &["--kubelet-name", "node-1"]);
        let mut jouled = Jouled::accept(&listener);
        jouled.line(|line| line.contains(r#""health":"ok""#));
        drop(jouled);
        world.stop();
        std::fs::write(world.path(file), text).unwrap();
        world.again();
        let line = Jouled::accept(&listener).line(lacks_ok);
        assert!(line["health"].as_str().unwrap().contains(words), "{line}");
    }
    let said = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_jouled-containers")).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["--kubelet", "127.0.0.1:10250"]).contains("--kubelet-token"));
    let files = ["--kubelet-token", "/t", "--kubelet-ca", "/c"];
    for (wrong, words) in [("https://x", "HOST:PORT"), ("node", "HOST:PORT"), ("a b:1", "is no name of a host")] {
        let error = said(&[&["--kubelet", wrong], &files[..]].concat());
        assert!(error.contains(words), "{error}");
    }
}
