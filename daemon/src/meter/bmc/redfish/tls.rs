//! Whom a BMC's certificate has to convince: the system's roots, a CA file, a pin, or nobody by an explicit word. Opens no connection.

use super::config::{BmcConfig, Pin, Tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The name that webpki has for a server that shows a CA's certificate.
const CA_AS_SERVER: &str = "CaUsedAsEndEntity";
/// Largest file of certificates.
const LARGEST: u64 = 4 << 20;

/// How a BMC's certificate is judged, and what was seen of the last one.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) client: Arc<ClientConfig>,
    seen: Arc<Mutex<Option<Pin>>>,
    by: By,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum By {
    System,
    File(String),
    Pin,
    Nobody,
}

impl Trust {
    /// As configured.
    ///
    /// # Errors
    /// A file that cannot be used, named.
    pub(super) fn open(config: &BmcConfig) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let (by, judge) = match (config.tls, &config.ca_file, config.sha256) {
            (Tls::Insecure | Tls::None, ..) => (By::Nobody, Judge::Nobody),
            (Tls::Verify, _, Some(pin)) => (By::Pin, Judge::Pin(pin)),
            (Tls::Verify, Some(path), None) => {
                let listed = from_file(path)?;
                (By::File(path.display().to_string()), Judge::Roots(verifier(listed.clone(), &provider)?, listed))
            }
            (Tls::Verify, None, None) => (By::System, Judge::Roots(verifier(of_system()?, &provider)?, Vec::new())),
        };
        let seen = Arc::new(Mutex::new(None));
        let verifier = Arc::new(Verifier { judge, provider: Arc::clone(&provider), seen: Arc::clone(&seen) });
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("no TLS: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { client: Arc::new(client), seen, by })
    }

    /// For people: how the BMC was verified.
    pub(super) fn words(&self) -> String {
        match &self.by {
            By::System => "trusts the system's certificates".into(),
            By::File(path) => format!("trusts {path}"),
            By::Pin => "trusts one SHA-256".into(),
            By::Nobody => format!("INSECURE: not verified ({})", self.pin()),
        }
    }

    fn pin(&self) -> String {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map_or_else(|| "it showed no certificate".into(), |pin| format!("its certificate has sha256 = \"{pin}\""))
    }

    /// What a failed handshake with `host` means, and what to do.
    pub(super) fn explain(&self, error: &Error, host: &str) -> String {
        let pin = self.pin();
        let compare = "compare it with what the BMC's own page shows, then set it here";
        match error {
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                format!("the BMC's certificate has expired: renew it on the BMC; or {pin}: {compare}")
            }
            Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                format!("the BMC's certificate is not valid yet: is a clock wrong? or {pin}: {compare}")
            }
            Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
                format!("the BMC's certificate is not for {host:?}: use the name that it is for in url; or {pin}: {compare}")
            }
            // Where nobody's signature counts, it is the BMC's own that failed.
            Error::InvalidCertificate(CertificateError::BadSignature) if matches!(self.by, By::Pin | By::Nobody) => {
                "the BMC's key is too weak or of an unknown kind (RSA below 2048 bits?): make a new certificate on the BMC".into()
            }
            Error::InvalidCertificate(why) if of_unknown_issuer(why) => match &self.by {
                By::File(path) => format!("the BMC's certificate is not signed by any in {path}; {pin}: {compare}"),
                _ => {
                    format!("the BMC's certificate is self-signed, or its issuer is unknown here: set ca_file; or {pin}: {compare}")
                }
            },
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                format!("the BMC's certificate is another one than sha256 says: {pin}; was it renewed, or is this another machine?")
            }
            Error::InvalidCertificate(other) => {
                format!("the BMC's certificate cannot be verified ({}); {pin}: {compare}", super::cut(&other.to_string()))
            }
            Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(_) => {
                "the BMC offers only TLS versions or ciphers that are no longer safe: update its firmware".into()
            }
            Error::InvalidMessage(_) => "what answers at this port does not speak TLS: is the port right?".into(),
            other => format!("TLS: {}", super::cut(&other.to_string())),
        }
    }
}

/// Whether nobody who is trusted signed it. One signed by itself may be a CA's at the same time, as openssl makes them.
fn of_unknown_issuer(why: &CertificateError) -> bool {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        CertificateError::Other(other) => other.to_string().contains(CA_AS_SERVER),
        _ => false,
    }
}

fn from_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |why: String| format!("{}: {why} (ca_file)", path.display());
    let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if size > LARGEST {
        return Err(fail(format!("{size} bytes are no file of certificates")));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| fail(error.to_string()))?;
    if certificates.is_empty() { Err(fail("no certificate (PEM) in it".into())) } else { Ok(certificates) }
}

fn of_system() -> Result<Vec<CertificateDer<'static>>, String> {
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
    /// And certificates that are trusted themselves, as servers.
    Roots(Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>),
    Pin(Pin),
    Nobody,
}

#[derive(Debug)]
struct Verifier {
    judge: Judge,
    provider: Arc<CryptoProvider>,
    seen: Arc<Mutex<Option<Pin>>>,
}

/// SHA-256 of a certificate.
fn pin(certificate: &CertificateDer<'_>) -> Pin {
    let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Pin(bytes)
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
        let shown = pin(end_entity);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        match &self.judge {
            Judge::Roots(roots, listed) => {
                let judged = roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                match &judged {
                    // The operator listed this very one: only whose it is remains to be seen.
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
            Judge::Pin(pin) if *pin == shown => Ok(ServerCertVerified::assertion()),
            Judge::Pin(_) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
            Judge::Nobody => Ok(ServerCertVerified::assertion()),
        }
    }

    // Whoever shows a certificate has to have its key, also where the certificate itself is not judged by anybody else's signature.
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
