//! How a server's certificate is verified: by the system's CAs, by a file of certificates, by its SHA-256
//! fingerprint, or not at all. Opens no connection.

use crate::sys::safe_text::excerpt;
use crate::sys::small_file;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// webpki's name for the error of a server that presents a CA's certificate.
const CA_AS_SERVER: &str = "CaUsedAsEndEntity";
/// Largest file of certificates, in bytes.
const MAX_FILE: usize = 4 << 20;

/// How a server proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// By a certificate that one of the system's CAs signed.
    System,
    /// By a certificate in this file (PEM), or one that a certificate in it signed.
    CaFile(PathBuf),
    /// By the certificate with this fingerprint.
    Fingerprint(Fingerprint),
    /// Not at all: whoever controls the network can be the server, and gets the password.
    Insecure,
}

/// SHA-256 of a certificate, written as 64 hexadecimal digits, with or without colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let digits: Vec<u8> =
            text.chars().filter(|c| *c != ':').filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        let clean = text.chars().all(|c| c == ':' || c.is_ascii_hexdigit());
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        match bytes.try_into() {
            Ok(bytes) if clean && digits.len() == 64 => Ok(Self(bytes)),
            _ => Err(
                "not the SHA-256 of a certificate: 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` \
                 writes them"
                    .into(),
            ),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The fingerprint of the last certificate that the server presented.
type Presented = Arc<Mutex<Option<Fingerprint>>>;

/// A TLS configuration, and what to tell the operator about it.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) config: Arc<ClientConfig>,
    verify: Verify,
    presented: Presented,
    peer: &'static str,
}

impl Trust {
    /// # Errors
    /// A file of certificates cannot be used; the message names it.
    pub(super) fn new(verify: &Verify, peer: &'static str, identity: Option<&Identity>) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let judge = match verify {
            Verify::Insecure => Judge::Any,
            Verify::Fingerprint(fingerprint) => Judge::Fingerprint(*fingerprint),
            Verify::CaFile(path) => {
                let listed = read_file(path, "ca_file")?;
                Judge::Roots { roots: verifier(listed.clone(), &provider)?, listed }
            }
            Verify::System => Judge::Roots { roots: verifier(system_certificates()?, &provider)?, listed: Vec::new() },
        };
        let presented = Presented::default();
        let verifier = Verifier { judge, provider: Arc::clone(&provider), presented: Arc::clone(&presented) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("no TLS: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => identity.show(builder)?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), verify: verify.clone(), presented, peer })
    }

    /// One line for the operator: how the server is verified.
    pub(super) fn describe(&self) -> String {
        match &self.verify {
            Verify::System => "trusts the system's certificates".into(),
            Verify::CaFile(path) => format!("trusts {}", path.display()),
            Verify::Fingerprint(_) => "trusts one SHA-256".into(),
            Verify::Insecure => format!("INSECURE: not verified ({})", self.presented()),
        }
    }

    fn presented(&self) -> String {
        let presented = *self.presented.lock().unwrap_or_else(PoisonError::into_inner);
        presented.map_or_else(
            || "it showed no certificate".into(),
            |fingerprint| format!("its certificate has sha256 = \"{fingerprint}\""),
        )
    }

    /// What a failed handshake with `host` means, and what to do.
    pub(super) fn explain(&self, error: &Error, host: &str) -> String {
        let (peer, presented) = (self.peer, self.presented());
        let compare = format!("compare it with what {peer}'s own page shows, then set it here");
        match error {
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                format!("{peer}'s certificate has expired: renew it on {peer}; or {presented}: {compare}")
            }
            Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                format!("{peer}'s certificate is not valid yet: is a clock wrong? or {presented}: {compare}")
            }
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => {
                format!(
                    "{peer}'s certificate is not for {host:?}: use the name that it is for in url; or {presented}: \
                     {compare}"
                )
            }
            // Where no issuer's signature is checked, it is the server's own signature that failed.
            Error::InvalidCertificate(CertificateError::BadSignature)
                if matches!(self.verify, Verify::Fingerprint(_) | Verify::Insecure) =>
            {
                format!(
                    "{peer}'s key is too weak or of an unknown kind (RSA below 2048 bits?): make a new certificate on \
                     {peer}"
                )
            }
            Error::InvalidCertificate(why) if is_unknown_issuer(why) => match &self.verify {
                Verify::CaFile(path) => {
                    format!("{peer}'s certificate is not signed by any in {}; {presented}: {compare}", path.display())
                }
                _ => format!(
                    "{peer}'s certificate is self-signed, or its issuer is unknown here: set ca_file; or {presented}: \
                     {compare}"
                ),
            },
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                format!(
                    "{peer}'s certificate is another one than sha256 says: {presented}; was it renewed, or is this \
                     another machine?"
                )
            }
            Error::InvalidCertificate(other) => {
                let other = excerpt(&other.to_string(), super::EXCERPT);
                format!("{peer}'s certificate cannot be verified ({other}); {presented}: {compare}")
            }
            Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(_) => {
                format!("{peer} offers only TLS versions or ciphers that are no longer safe: update its firmware")
            }
            Error::InvalidMessage(_) => "what answers at this port does not speak TLS: is the port right?".into(),
            other => format!("TLS: {}", excerpt(&other.to_string(), super::EXCERPT)),
        }
    }
}

/// Whether no trusted certificate signed it. A self-signed certificate may be marked as a CA's at the same time, as
/// openssl makes them.
fn is_unknown_issuer(why: &CertificateError) -> bool {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        CertificateError::Other(other) => other.to_string().contains(CA_AS_SERVER),
        _ => false,
    }
}

/// The client's own certificate, and its private key: files with PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those between it and its CA.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

impl Identity {
    fn show(&self, builder: ConfigBuilder<ClientConfig, WantsClientCert>) -> Result<ClientConfig, String> {
        let chain = read_file(&self.cert_file, "cert_file")?;
        let fail = |why: &str| format!("{}: {why} (key_file)", self.key_file.display());
        let bytes = small_file::read(&self.key_file, MAX_FILE).map_err(|error| fail(&error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| fail(pem_words(&error)))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| {
            // rustls names neither file, and shows nothing of the key.
            format!("{}: {}", fail("cannot be used with cert_file"), excerpt(&error.to_string(), super::EXCERPT))
        })
    }
}

/// `key`: the configuration's key for the file.
fn read_file(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |why: String| format!("{}: {why} ({key})", path.display());
    let bytes = small_file::read(path, MAX_FILE).map_err(|error| fail(error.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(pem_words(&error).to_owned()))?;
    if certificates.is_empty() { Err(fail("no certificate (PEM) in it".into())) } else { Ok(certificates) }
}

/// Words for an error of the PEM parser, whose own would show lines of the file: it may be a private key.
pub fn pem_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is no base64",
        pem::Error::NoItemsFound => "there is no such section (PEM)",
        _ => "no PEM that can be read",
    }
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err("this system has no CA certificates: install ca-certificates, or set ca_file or sha256".into());
    }
    Ok(found.certs)
}

fn verifier(
    certificates: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| format!("no certificate that can be used: {error}"))
}

#[derive(Debug)]
enum Judge {
    Roots {
        roots: Arc<WebPkiServerVerifier>,
        /// Certificates that are trusted as servers' own.
        listed: Vec<CertificateDer<'static>>,
    },
    Fingerprint(Fingerprint),
    Any,
}

#[derive(Debug)]
struct Verifier {
    judge: Judge,
    provider: Arc<CryptoProvider>,
    presented: Presented,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = Fingerprint::of(end_entity);
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) = Some(presented);
        match &self.judge {
            Judge::Roots { roots, listed } => {
                let judged = roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                match &judged {
                    // The operator listed this very certificate: only the name in it remains to be checked.
                    Err(Error::InvalidCertificate(CertificateError::Other(why)))
                        if why.to_string().contains(CA_AS_SERVER)
                            && listed.contains(&end_entity.clone().into_owned()) =>
                    {
                        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                        Ok(ServerCertVerified::assertion())
                    }
                    _ => judged,
                }
            }
            Judge::Fingerprint(expected) if *expected == presented => Ok(ServerCertVerified::assertion()),
            Judge::Fingerprint(_) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
            Judge::Any => Ok(ServerCertVerified::assertion()),
        }
    }

    // The server has to hold the key of the certificate that it presents, also where no issuer's signature is checked.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let text = ["ab"; 32].join(":").to_uppercase();
        assert_eq!(Fingerprint::try_from(text).unwrap().to_string(), "ab".repeat(32));
        for bad in ["", "ab", &"ab".repeat(33), &"g0".repeat(32), &format!("{} ", "ab".repeat(32))] {
            assert!(Fingerprint::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }
}
