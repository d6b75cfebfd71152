//! The configuration keys that say how a server is trusted: `tls`, `ca_file`, `sha256`, and the scheme of `url`. Every
//! section that has such a server has these keys, and these rules.

use super::{Endpoint, Fingerprint, Verify};
use serde::Deserialize;
use std::path::Path;

/// Whether the server's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// It is.
    #[default]
    Verify,
    /// It is not: whoever controls the network can be the server, and gets the password.
    Insecure,
    /// No TLS: `http://`.
    None,
}

/// The values of `tls`, `ca_file` and `sha256`.
#[derive(Clone, Copy, Debug)]
pub struct TrustKeys<'a> {
    /// `tls`.
    pub tls: Tls,
    /// `ca_file`: certificates (PEM) that the server's has to be signed by, instead of the system's CAs.
    pub ca_file: Option<&'a Path>,
    /// `sha256` of the server's own certificate, instead of a signature.
    pub sha256: Option<Fingerprint>,
}

impl TrustKeys<'_> {
    /// How the server proves who it is.
    pub fn verify(&self) -> Verify {
        match (self.tls, self.ca_file, self.sha256) {
            (Tls::Insecure | Tls::None, ..) => Verify::Insecure,
            (Tls::Verify, _, Some(fingerprint)) => Verify::Fingerprint(fingerprint),
            (Tls::Verify, Some(path), None) => Verify::CaFile(path.to_owned()),
            (Tls::Verify, None, None) => Verify::System,
        }
    }

    /// Where the scheme of `url` contradicts `tls`. `secret`: what is sent that nobody else may read.
    pub fn scheme_wrong(&self, url: &Endpoint, secret: Option<&str>, say: &mut (impl FnMut(&str, &str) + ?Sized)) {
        match secret {
            _ if url.https && self.tls == Tls::None => say("tls", "\"none\" is for http:// URLs"),
            Some(what) if !url.https && self.tls != Tls::None => {
                say("url", &format!("http:// sends {what} in the clear: use https://, or say tls = \"none\""));
            }
            _ => {}
        }
    }

    /// Values that contradict each other.
    pub fn files_wrong(&self, say: &mut (impl FnMut(&str, &str) + ?Sized)) {
        if self.ca_file.is_some_and(|path| !path.is_absolute()) {
            say("ca_file", "an absolute path");
        }
        match (self.tls, self.ca_file.is_some(), self.sha256.is_some()) {
            (Tls::Verify, true, true) => say("sha256", "either ca_file or sha256, not both"),
            (Tls::Insecure | Tls::None, true, _) => say("ca_file", "contradicts tls: nothing is verified"),
            (Tls::Insecure | Tls::None, _, true) => say("sha256", "contradicts tls: nothing is verified"),
            _ => {}
        }
    }
}
