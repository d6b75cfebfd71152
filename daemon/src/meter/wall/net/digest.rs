//! HTTP Digest authentication (RFC 7616) with SHA-256 or MD5, quality of protection `auth`. Shelly's second generation
//! knows SHA-256 alone, older devices MD5 alone. Pure but for the client's nonce, which is random.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt::Write as _;

/// Longest value of a challenge, in bytes.
const LONGEST: usize = 512;

/// The hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => format!("{:x}", md5::compute(text)),
            Self::Sha256 => hex(digest(&SHA256, text.as_bytes()).as_ref()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    algorithm: Algorithm,
    /// The algorithm's name, as the server wrote it.
    named: Option<String>,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// Whether it knows `qop=auth`; else it is as old as RFC 2069.
    qop: bool,
    /// Requests with this nonce.
    count: u32,
}

impl Challenge {
    /// The best of the challenges in `WWW-Authenticate` headers.
    ///
    /// # Errors
    /// There is none that can be answered; one line for the operator.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let challenges = headers.filter_map(Self::parse);
        challenges.max_by_key(|one| one.algorithm).ok_or_else(|| {
            "it offers no Digest with SHA-256 or MD5: is auth = \"digest\" right for this meter?".to_owned()
        })
    }

    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let (mut realm, mut nonce, mut opaque, mut named, mut qop) = (None, None, None, None, false);
        for (name, value) in Parameters(rest) {
            if value.len() > LONGEST || value.contains(['"', '\\']) {
                return None;
            }
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "nonce" => nonce = Some(value.to_owned()),
                "opaque" => opaque = Some(value.to_owned()),
                "algorithm" => named = Some(value.to_owned()),
                "qop" => qop = value.split(',').any(|word| word.trim().eq_ignore_ascii_case("auth")),
                _ => {}
            }
        }
        let algorithm = match named.as_deref() {
            None => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        Some(Self { algorithm, named, realm: realm?, nonce: nonce?, opaque, qop, count: 0 })
    }

    /// The value of `Authorization` for a request.
    ///
    /// # Errors
    /// This machine gives no random number.
    pub(super) fn answer(&mut self, method: &str, uri: &str, user: &str, password: &str) -> Result<String, String> {
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| "no random number")?;
        self.count += 1;
        Ok(self.answer_with(method, uri, user, password, &hex(&random)))
    }

    fn answer_with(&self, method: &str, uri: &str, user: &str, password: &str, cnonce: &str) -> String {
        let Self { algorithm, named, realm, nonce, opaque, qop, count } = self;
        let secret = algorithm.hash(&format!("{user}:{realm}:{password}"));
        let request = algorithm.hash(&format!("{method}:{uri}"));
        let response = if *qop {
            algorithm.hash(&format!("{secret}:{nonce}:{count:08x}:{cnonce}:auth:{request}"))
        } else {
            algorithm.hash(&format!("{secret}:{nonce}:{request}"))
        };
        let mut text = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\""
        );
        if let Some(named) = named {
            let _ = write!(text, ", algorithm={named}");
        }
        if *qop {
            let _ = write!(text, ", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\"");
        }
        if let Some(opaque) = opaque {
            let _ = write!(text, ", opaque=\"{opaque}\"");
        }
        text
    }
}

/// `name=value` and `name="value"`, with commas between them.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_start_matches([' ', ',', '\t']);
        let (name, rest) = rest.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(rest) => rest.split_once('"')?,
            None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
        };
        self.0 = rest;
        Some((name.trim(), value.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of RFC 7616, section 3.9.1.
    #[test]
    fn the_examples_of_the_standard() {
        let header = |algorithm: &str| {
            format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        };
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let mut challenge = Challenge::parse(&header(algorithm)).unwrap();
            challenge.count = 1;
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let text = challenge.answer_with("GET", "/dir/index.html", "Mufasa", "Circle of Life", cnonce);
            assert!(text.contains(&format!("response=\"{response}\"")), "{text}");
            assert!(text.contains("nc=00000001") && text.contains("opaque="), "{text}");
        }
        let both = [header("MD5"), header("SHA-256"), "Basic realm=\"x\"".into()];
        let chosen = Challenge::choose(both.iter().map(String::as_str)).unwrap();
        assert_eq!(chosen.algorithm, Algorithm::Sha256);
        assert!(Challenge::choose(["Basic realm=\"x\""].into_iter()).is_err());
        assert!(Challenge::parse("Digest realm=\"x\", nonce=\"y\", algorithm=SHA-512-256").is_none());
    }

    proptest! {
        #[test]
        fn any_challenge_is_read_or_refused(text: String) {
            if let Some(mut challenge) = Challenge::parse(&format!("Digest {text}")) {
                let _ = challenge.answer("GET", "/", "user", "password");
            }
        }
    }
}
