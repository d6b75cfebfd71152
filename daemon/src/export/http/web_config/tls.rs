//! Makes a TLS server configuration with rustls and ring. Reads certificates and keys; serves no connection.

use super::file::{ClientAuth, TlsServerConfig, Version};
use super::{LONGEST, WebConfigError};
use crate::sys::https_client::pem_words;
use crate::sys::small_file;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, NamedGroup, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes the TLS server that `tls`, read from `path`, asks for; its relative paths are relative to `base`.
pub(super) fn server_config(
    path: &Path,
    base: &Path,
    tls: &TlsServerConfig,
    http2: bool,
) -> Result<ServerConfig, WebConfigError> {
    let wrong = |reason: String| WebConfigError::new(path, format!("tls_server_config: {reason}"));
    if !tls.client_allowed_sans.is_empty() {
        return Err(wrong("client_allowed_sans is not supported".to_owned()));
    }
    let certificate = Pem::read("cert", path, base, &tls.cert, &tls.cert_file)?
        .ok_or_else(|| wrong("cert_file is missing".to_owned()))?;
    let key = Pem::read("key", path, base, &tls.key, &tls.key_file)?
        .ok_or_else(|| wrong("key_file is missing".to_owned()))?;
    let client_ca = Pem::read("client_ca", path, base, &tls.client_ca, &tls.client_ca_file)?;

    let provider = Arc::new(provider(tls).map_err(wrong)?);
    let verifier = client_verifier(tls.client_auth_type, client_ca, &provider, path)?;
    let private_key = PrivateKeyDer::from_pem_slice(&key.bytes)
        .map_err(|error| key.wrong(format!("no private key in it: {}", pem_words(&error))))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls).map_err(wrong)?)
        .map_err(|error| wrong(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificate.certificates()?, private_key)
        .map_err(|error| certificate.wrong(format!("does not go with {}: {error}", key.path.display())))?;
    config.ignore_client_order = tls.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}

/// PEM text and its origin, for messages.
struct Pem {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Pem {
    fn read(
        name: &str,
        path: &Path,
        base: &Path,
        inline: &Option<String>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Self>, WebConfigError> {
        match (inline, file) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(Self { path: path.to_owned(), bytes: text.as_bytes().to_vec() })),
            (None, Some(file)) => {
                let path = base.join(file);
                let bytes = small_file::read(&path, LONGEST).map_err(|error| WebConfigError::new(&path, error))?;
                Ok(Some(Self { path, bytes }))
            }
            (Some(_), Some(_)) => {
                Err(WebConfigError::new(path, format!("tls_server_config: {name} and {name}_file exclude each other")))
            }
        }
    }

    fn wrong(&self, reason: String) -> WebConfigError {
        WebConfigError::new(&self.path, reason)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, WebConfigError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| self.wrong(format!("no certificate in it: {}", pem_words(&error))))?;
        if certificates.is_empty() { Err(self.wrong("no certificate in it".to_owned())) } else { Ok(certificates) }
    }
}

fn versions(tls: &TlsServerConfig) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let (min, max) = (tls.min_version.unwrap_or(Version::TLS12), tls.max_version.unwrap_or(Version::TLS13));
    if min < Version::TLS12 || max < Version::TLS12 {
        return Err("TLS10 and TLS11 are broken and not supported; min_version can be TLS12 or TLS13".to_owned());
    }
    if min > max {
        return Err("min_version is above max_version".to_owned());
    }
    let all = [(Version::TLS13, &rustls::version::TLS13), (Version::TLS12, &rustls::version::TLS12)];
    Ok(all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, version)| version).collect())
}

/// ring as the provider, with only the configured cipher suites and curves.
fn provider(tls: &TlsServerConfig) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if !tls.cipher_suites.is_empty() {
        let (fixed, choice): (Vec<_>, Vec<_>) =
            provider.cipher_suites.into_iter().partition(|suite| suite.tls13().is_some());
        let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
        let mut chosen = fixed;
        for wanted in &tls.cipher_suites {
            // Suites of TLS 1.3 may be listed; they are always on.
            if chosen.iter().any(|suite| name(suite).replacen("TLS13", "TLS", 1) == *wanted) {
                continue;
            }
            let Some(suite) = choice.iter().find(|suite| name(suite) == *wanted) else {
                // A value in the wrong place may be a secret: it is not shown.
                let known: Vec<String> = choice.iter().map(name).collect();
                return Err(format!("cipher_suites: one is not supported; there are {}", known.join(", ")));
            };
            chosen.push(*suite);
        }
        provider.cipher_suites = chosen;
    }
    if !tls.curve_preferences.is_empty() {
        let mut chosen = Vec::new();
        for wanted in &tls.curve_preferences {
            let group = match wanted.as_str() {
                "X25519" => NamedGroup::X25519,
                "CurveP256" => NamedGroup::secp256r1,
                "CurveP384" => NamedGroup::secp384r1,
                _ => {
                    return Err(
                        "curve_preferences: one is not supported; there are X25519, CurveP256, CurveP384".into()
                    );
                }
            };
            chosen.extend(provider.kx_groups.iter().find(|known| known.name() == group).copied());
        }
        provider.kx_groups = chosen;
    }
    Ok(provider)
}

fn client_verifier(
    kind: ClientAuth,
    ca: Option<Pem>,
    provider: &Arc<CryptoProvider>,
    path: &Path,
) -> Result<Arc<dyn ClientCertVerifier>, WebConfigError> {
    let wrong = |reason: &str| WebConfigError::new(path, format!("tls_server_config: {reason}"));
    let any = |required| Arc::new(AnyCertificate { required, algorithms: provider.signature_verification_algorithms });
    let ca = match (kind, ca) {
        (ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert, Some(ca)) => ca,
        (ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert, None) => {
            return Err(wrong("this client_auth_type needs client_ca_file"));
        }
        (_, Some(_)) => return Err(wrong("client_ca_file is of use only with a client_auth_type that verifies")),
        (ClientAuth::NoClientCert, None) => return Ok(WebPkiClientVerifier::no_client_auth()),
        (ClientAuth::RequestClientCert, None) => return Ok(any(false)),
        (ClientAuth::RequireAnyClientCert, None) => return Ok(any(true)),
    };
    let mut roots = RootCertStore::empty();
    for certificate in ca.certificates()? {
        roots.add(certificate).map_err(|error| ca.wrong(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if kind == ClientAuth::VerifyClientCertIfGiven { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| ca.wrong(error.to_string()))
}

/// Accepts any certificate whose key the client has, for `RequestClientCert` and `RequireAnyClientCert`. Authenticates
/// no client.
#[derive(Debug)]
struct AnyCertificate {
    required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
