//! The HTTP server: probes, landing page, several addresses, and a metrics page with TLS and a password. Not the
//! content of the metrics page.

use crate::common::client::ask;
use crate::common::{Answer, Daemon, PATIENCE, Page, World, get, refused, until};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

/// A folder with files of the test, and its certificate authority.
pub struct Files {
    dir: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { dir: tempfile::tempdir().unwrap(), authority };
        files.issue("node.example");
        files
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A server certificate for `name`.
    pub fn issue(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.authority).unwrap();
        self.write("node.key", &key.serialize_pem());
        self.write("node.crt", &certificate.pem());
    }

    /// The certificate of the authority, PEM.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// GET over TLS; an error where the certificate is not for `name`.
    pub fn get(
        &self,
        address: SocketAddr,
        name: &'static str,
        path: &str,
        headers: &[&str],
    ) -> Result<Answer, rustls::Error> {
        let tls = self.handshake(address, name, &[]);
        Ok(ask(tls.map_err(|error| *error.into_inner().unwrap().downcast::<rustls::Error>().unwrap())?, path, headers))
    }

    /// A client's configuration that trusts the authority and offers the `protocols`.
    pub fn trusting(&self, protocols: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    /// A connection over TLS to `name` that offers the `protocols`.
    pub fn handshake(
        &self,
        address: SocketAddr,
        name: &'static str,
        protocols: &[&[u8]],
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let config = self.trusting(protocols);
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(StreamOwned::new(tls, tcp))
    }
}

pub const TLS: &str = "tls_server_config:\n  cert_file: node.crt\n  key_file: node.key\n";

fn secured(world: &World, web: &PathBuf) -> Daemon {
    world.config(&format!("[export]\nweb_config_file = {web:?}\n"));
    world.start()
}

fn password(credentials: &str) -> String {
    format!("Authorization: Basic {}", BASE64_STANDARD.encode(credentials))
}

#[test]
fn probes_and_pages() {
    let world = World::new();
    let daemon = world.start();
    for path in ["/healthz", "/probe/livez", "/probe/readyz"] {
        let answer = get(daemon.address, path, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
    }
    let landing = get(daemon.address, "/", &[]);
    assert!(landing.head.contains("content-type: text/html"), "{}", landing.head);
    for words in ["jouled", "node-1", "/metrics", "rapl/package-0/dram", "rapl-powercap"] {
        assert!(landing.body.contains(words), "{words}: {}", landing.body);
    }
    assert_eq!(get(daemon.address, "/nothing", &[]).status, 404);
    assert_eq!(get(daemon.address, "/../etc/passwd", &[]).status, 404);
    daemon.stop();
}

#[test]
fn several_addresses() {
    let world = World::new();
    let daemon = Daemon::start(world.jouled().args(["--listen", "127.0.0.2:0"]), &world.state);
    let line = daemon.log.wait_for("metrics at http://127.0.0.2:");
    let second: SocketAddr = line.split("://").nth(1).unwrap().strip_suffix("/metrics").unwrap().parse().unwrap();
    for address in [daemon.address, second] {
        Page::parse(&get(address, "/metrics", &[]).body).adds_up();
    }
    daemon.stop();
}

#[test]
fn tls_and_a_password() {
    let (world, files) = (World::new(), Files::new());
    let hash = bcrypt::hash("secret", 4).unwrap();
    let web = files.write("web.yml", &format!("{TLS}basic_auth_users:\n  prometheus: {hash}\n"));
    let daemon = secured(&world, &web);
    assert!(daemon.log.text().contains("metrics at https://"), "{}", daemon.log.text());
    let (right, wrong) = (password("prometheus:secret"), password("prometheus:wrong"));

    let answer = files.get(daemon.address, "node.example", "/metrics", &[&right]).unwrap();
    assert_eq!(answer.status, 200);
    Page::parse(&answer.body).adds_up();
    let unknown = password("nobody:secret");
    for headers in
        [&[][..], &[wrong.as_str()], &[unknown.as_str()], &["Authorization: Basic !"], &["Authorization: Bearer x"]]
    {
        for path in ["/metrics", "/"] {
            let answer = files.get(daemon.address, "node.example", path, headers).unwrap();
            assert_eq!(answer.status, 401, "{path} {headers:?}");
            assert!(answer.head.contains("www-authenticate: basic") && !answer.body.contains("joules"), "{answer:?}");
        }
    }
    files.get(daemon.address, "other.example", "/metrics", &[&right]).unwrap_err();
    let plain = get(daemon.address, "/metrics", &[&right]);
    assert!(plain.status == 400 && plain.body.contains("HTTPS"), "{plain:?}");

    // A renewed certificate is loaded while the daemon runs.
    files.issue("new.example");
    let answer = until("the new certificate", || files.get(daemon.address, "new.example", "/metrics", &[&right]).ok());
    assert_eq!(answer.status, 200);
    daemon.stop();
}

#[test]
fn a_web_configuration_that_is_wrong_ends_the_start() {
    let (world, files) = (World::new(), Files::new());
    for (text, words) in [
        ("tls_server_config:\n  cert_file: none.crt\n  key_file: node.key\n", "none.crt"),
        ("basic_auth_users:\n  a: not-a-hash\n", "web.yml"),
        ("wibble: 1\n", "wibble"),
        ("tls_server_config:\n  cert_file: node.key\n  key_file: node.crt\n", "node."),
        (": : :\n", "web.yml"),
    ] {
        let web = files.write("web.yml", text);
        world.config(&format!("[export]\nweb_config_file = {web:?}\n"));
        let message = refused(&mut world.jouled());
        assert!(message.contains(words), "{text:?}: {message}");
        let checked = refused(world.jouled().arg("--check-config"));
        assert!(checked.contains(words), "{text:?}: {checked}");
        println!("{message}");
    }
}
