//! Certificates of a BMC, good and bad, and a TLS server that shows one.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// The certificate that the BMC shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// A certificate for 127.0.0.1, signed by the CA in `Sim::ca`.
    Good,
    /// A self-signed certificate.
    SelfSigned,
    /// A self-signed certificate that is a CA's too, as openssl makes them.
    SelfSignedCa,
    /// A certificate of that CA that expired in 2020.
    Expired,
    /// A certificate of that CA for another host name.
    WrongHost,
    /// No TLS.
    Nothing,
}

/// A certificate with its key, and the CA.
pub(super) struct Shown {
    pub(super) ca: String,
    pub(super) pem: String,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

pub(super) fn certificate(shows: Shows) -> Shown {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let name = if shows == Shows::WrongHost { "other.example" } else { "127.0.0.1" };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if shows == Shows::Expired {
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
    }
    if shows == Shows::SelfSignedCa {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = if matches!(shows, Shows::SelfSigned | Shows::SelfSignedCa) {
        params.self_signed(&key)
    } else {
        params.signed_by(&key, &authority)
    }
    .unwrap();
    Shown {
        ca: authority.pem(),
        pem: certificate.pem(),
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

pub(super) fn acceptor(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> TlsAcceptor {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
