//! Tests of TLS and passwords over real connections, with certificates made here.

use super::*;
use crate::export::http::{SharedTexts, bind, router, serve, tests::ask};
use crate::export::prometheus::{PrometheusOptions, tests::snapshot};
use crate::export::push::Board;
use crate::model::source::Stamp;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A directory with `ca.crt`, `node.crt`, `node.key`, and a client certificate of the same authority.
struct Files {
    directory: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    client: (rcgen::Certificate, KeyPair),
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let client = (params.signed_by(&key, &ca).unwrap(), key);
        let files = Self { directory: tempfile::tempdir().unwrap(), ca, client };
        files.write("ca.crt", &files.ca.pem());
        files.renew("node.example");
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// A new server certificate for `name`.
    fn renew(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.ca).unwrap();
        self.write("node.crt", &certificate.pem());
        self.write("node.key", &key.serialize_pem());
    }

    fn config(&self, text: &str) -> PathBuf {
        self.write("web.yml", text);
        self.directory.path().join("web.yml")
    }

    fn client(&self, with_certificate: bool) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        if with_certificate {
            let key = PrivateKeyDer::from_pem_slice(self.client.1.serialize_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![self.client.0.der().clone()], key).unwrap()
        } else {
            builder.with_no_client_auth()
        }
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: node.crt\n  key_file: node.key\n";

struct Server {
    address: SocketAddr,
    web: Arc<WebConfig>,
    _stop: tokio_util::sync::DropGuard,
    _snapshots: watch::Sender<Arc<crate::model::snapshot::Snapshot>>,
}

fn start(path: &Path) -> Server {
    let web = Arc::new(WebConfig::load(path).unwrap());
    let (snapshots, receiver) = watch::channel(Arc::new(snapshot()));
    let listeners = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let stop = CancellationToken::new();
    let guests = crate::export::guest::tests::nobody();
    let router = router(
        &SharedTexts::default(),
        receiver,
        PrometheusOptions::default(),
        guests,
        Board::default(),
        Stamp::default,
    );
    tokio::spawn(serve(listeners, router, Some(Arc::clone(&web)), stop.clone()));
    Server { address, web, _stop: stop.drop_guard(), _snapshots: snapshots }
}

impl Server {
    async fn plain(&self, head: &str) -> String {
        ask(TcpStream::connect(self.address).await.unwrap(), head).await
    }

    async fn connect(&self, client: ClientConfig, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        let io = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(client)).connect(ServerName::try_from(name).unwrap(), io).await
    }

    /// The answer, or nothing where the server refuses the connection (in TLS 1.3 the client learns it after its
    /// handshake).
    async fn secret(&self, client: ClientConfig, head: &str) -> String {
        match self.connect(client, "node.example").await {
            Ok(io) => ask(io, head).await,
            Err(_) => String::new(),
        }
    }
}

fn with_password(path: &str, credentials: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nAuthorization: Basic {}", BASE64_STANDARD.encode(credentials))
}

#[tokio::test]
async fn tls_works_and_plain_http_is_told_so() {
    let files = Files::new();
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n";
    let server = start(&files.config(&format!("{TLS}{headers}")));
    let answer = server.secret(files.client(false), "GET /metrics HTTP/1.1").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("x-frame-options: deny") && answer.contains("kepler_"),
        "{answer}"
    );
    let answer = server.plain("GET /metrics HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.0 400") && answer.contains("HTTPS") && !answer.contains("kepler_"), "{answer}");
    // Neither connection has affected the next one.
    assert!(server.secret(files.client(false), "GET /metrics HTTP/1.1").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_takes_no_longer_than_it_may() {
    let files = Files::new();
    let server = start(&files.config(TLS));
    for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let start = tokio::time::Instant::now();
        let mut io = TcpStream::connect(server.address).await.unwrap();
        io.write_all(said).await.unwrap();
        assert_eq!(io.read(&mut [0; 16]).await.unwrap_or_default(), 0);
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_on() {
    let files = Files::new();
    for (http2, expected) in [(true, &b"h2"[..]), (false, b"http/1.1")] {
        let server = start(&files.config(&format!("{TLS}http_server_config:\n  http2: {http2}\n")));
        let mut client = files.client(false);
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let io = server.connect(client, "node.example").await.unwrap();
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(expected));
        if http2 {
            let io = hyper_util::rt::TokioIo::new(io);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://node.example/healthz").body(axum::body::Body::empty()).unwrap();
            // The sample's tick is in this clock's future, hence alive.
            assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_refused_post_has_its_answer_and_no_reset() {
    let files = Files::new();
    let users = format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("secret", 4).unwrap());
    let server = start(&files.config(&format!("{TLS}{users}")));
    let mut client = files.client(false);
    client.alpn_protocols = vec![b"h2".to_vec()];
    let io = hyper_util::rt::TokioIo::new(server.connect(client, "node.example").await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for pieces in [1, 3, 8, 20, 60] {
        // Each piece is sent by itself, after others had time to run: the answer is ready before the body is.
        let (mut to, body) = http_body_util::channel::Channel::<axum::body::Bytes>::new(1);
        let sent = tokio::spawn(async move {
            for _ in 0..pieces {
                tokio::task::yield_now().await;
                if to.send_data(axum::body::Bytes::from(vec![b'x'; 2000])).await.is_err() {
                    return false;
                }
            }
            true
        });
        let request = Request::post("https://node.example/model").body(axum::body::Body::new(body)).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{pieces}");
        let body = http_body_util::BodyExt::collect(answer.into_body()).await;
        assert!(body.is_ok() && sent.await.unwrap(), "{pieces} pieces: {body:?}");
    }
    // Over HTTP/1 the connection goes on.
    let server = start(&files.config(&users));
    let mut io = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        let head = b"POST /model HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n";
        io.write_all(&[&head[..], &[b'x'; 60_000]].concat()).await.unwrap();
        let mut answer = [0; 12];
        io.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401");
        // Up to the end of this answer, whose body is short.
        let (mut rest, mut piece) = (Vec::new(), [0; 1024]);
        while !rest.ends_with(b"\n") || !rest.windows(4).any(|four| four == b"\r\n\r\n") || rest.ends_with(b"\r\n\r\n")
        {
            let length = io.read(&mut piece).await.unwrap();
            assert!(length > 0);
            rest.extend_from_slice(&piece[..length]);
        }
    }
}

#[tokio::test]
async fn only_the_right_password_gets_an_answer() {
    let files = Files::new();
    let users = format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("secret", 4).unwrap());
    let server = start(&files.config(&users));
    for path in ["/metrics", "/", "/probe/livez", "/nothing"] {
        let answer = server.plain(&format!("GET {path} HTTP/1.1")).await;
        assert!(
            answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Basic realm="),
            "{path}: {answer}"
        );
    }
    for wrong in ["alice:wrong", "bob:secret", "alice:"] {
        assert!(server.plain(&with_password("/metrics", wrong)).await.starts_with("HTTP/1.1 401"), "{wrong}");
    }
    for _ in 0..2 {
        assert!(server.plain(&with_password("/metrics", "alice:secret")).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_as_configured() {
    let files = Files::new();
    let stranger = Files::new();
    let ca = "  client_ca_file: ca.crt\n";
    // Type, authority, and whether a client passes: without certificate, with ours, with one of another authority.
    for (kind, ca, passes) in [
        ("NoClientCert", "", [true, true, true]),
        ("RequestClientCert", "", [true, true, true]),
        ("RequireAnyClientCert", "", [false, true, true]),
        ("VerifyClientCertIfGiven", ca, [true, true, false]),
        ("RequireAndVerifyClientCert", ca, [false, true, false]),
    ] {
        let server = start(&files.config(&format!("{TLS}  client_auth_type: {kind}\n{ca}")));
        let mut with_strangers = files.client(false);
        with_strangers.client_auth_cert_resolver = stranger.client(true).client_auth_cert_resolver;
        for (client, passes) in [files.client(false), files.client(true), with_strangers].into_iter().zip(passes) {
            let answer = server.secret(client, "GET /probe/readyz HTTP/1.1").await;
            assert_eq!(answer.starts_with("HTTP/1.1 200"), passes, "{kind}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_broken_one_is_not() {
    let files = Files::new();
    let server = start(&files.config(TLS));
    assert!(server.connect(files.client(false), "node.example").await.is_ok());
    files.renew("renewed.example");
    server.web.reload();
    assert!(server.connect(files.client(false), "renewed.example").await.is_ok());
    assert!(server.connect(files.client(false), "node.example").await.is_err());
    files.write("node.key", "half a k");
    server.web.reload();
    assert!(server.connect(files.client(false), "renewed.example").await.is_ok());
    files.config("");
    server.web.reload();
    assert!(server.web.tls().is_some(), "TLS must not go away");
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    let files = Files::new();
    let node = "tls_server_config:\n  cert_file: node.crt\n";
    for (text, file, named) in [
        ("tls_server_config: {}", "web.yml", "cert_file"),
        (node, "web.yml", "key_file"),
        (&format!("{node}  key_file: gone.key\n"), "gone.key", "No such file"),
        (&format!("{node}  key_file: ca.crt\n"), "ca.crt", "private key"),
        (&format!("{node}  key_file: web.yml\n"), "web.yml", "private key"),
        (&format!("{TLS}  cert: x\n"), "web.yml", "exclude"),
        (&format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n"), "web.yml", "client_ca_file"),
        (&format!("{TLS}  client_ca_file: ca.crt\n"), "web.yml", "client_auth_type"),
        (&format!("{TLS}  min_version: TLS10\n"), "web.yml", "TLS12"),
        (&format!("{TLS}  min_version: TLS13\n  max_version: TLS12\n"), "web.yml", "above"),
        (&format!("{TLS}  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n"), "web.yml", "cipher_suites"),
        (&format!("{TLS}  curve_preferences: [CurveP521]\n"), "web.yml", "CurveP384"),
        (&format!("{TLS}  client_allowed_sans: [a]\n"), "web.yml", "client_allowed_sans"),
        ("basic_auth_users:\n  eve: plain\n", "web.yml", "eve"),
        ("colour: red\n", "web.yml", "colour"),
    ] {
        let error = WebConfig::load(&files.config(text)).err().unwrap();
        assert!(error.path.ends_with(file) && error.to_string().contains(named), "{text}: {error}");
    }
    let missing = files.directory.path().join("none.yml");
    assert_eq!(WebConfig::load(&missing).err().unwrap().path, missing);
    let suites = "  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  min_version: TLS12\n  \
                  curve_preferences: [CurveP256]\n";
    assert!(WebConfig::load(&files.config(&format!("{TLS}{suites}"))).is_ok());
}

#[test]
fn a_wrong_file_is_not_shown_and_not_waited_for() {
    let files = Files::new();
    let key = std::fs::read_to_string(files.directory.path().join("node.key")).unwrap();
    let inner = key.lines().nth(1).unwrap();
    files.write("broken.key", &key.replace("-----END", "----END"));
    files.write("odd.key", &format!("-----BEGIN {inner}\n{inner}\n"));
    let fifo = files.directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let node = "tls_server_config:\n  cert_file: node.crt\n  key_file:";
    for (text, file) in [
        (key.clone(), "web.yml"),
        (format!("{node} broken.key"), "broken.key"),
        (format!("{node} odd.key"), "odd.key"),
        (format!("{node} fifo"), "fifo"),
        ("tls_server_config:\n  cert_file: broken.key\n  key_file: node.key".to_owned(), "broken.key"),
        (format!("basic_auth_users:\n  alice: {inner}"), "web.yml"),
    ] {
        let error = WebConfig::load(&files.config(&text)).err().unwrap();
        println!("{error}");
        let said = format!("{error} {error:?}");
        assert!(error.path.ends_with(file) && !said.contains(inner) && said.len() < 1000, "{said}");
    }
    let error = WebConfig::load(&fifo).err().unwrap();
    assert!(error.to_string().contains("regular file"), "{error}");
}
