//! The web configuration file as written: its keys and their meaning. Reads no other file.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a map with tls_server_config, http_server_config, basic_auth_users")]
pub(super) struct File {
    pub tls_server_config: Option<TlsServerConfig>,
    pub http_server_config: HttpServerConfig,
    /// User → bcrypt hash.
    pub basic_auth_users: BTreeMap<String, String>,
}

impl File {
    /// Reads the file's text; an empty one is a configuration without anything.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_yaml_ng::from_str::<Option<Self>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| without_values(&error))
    }
}

/// Longest key that an error shows, in bytes.
const KEY: usize = 64;

/// A key as errors show it: a word. Other text may be of a wrong file.
fn shown_key(key: &str) -> &str {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if key.len() <= KEY && key.bytes().all(is_word) { key } else { "a key that is not shown" }
}

/// What serde's errors about a value begin with. What they quote follows.
const ABOUT_A_VALUE: [&str; 6] =
    ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant ", "unknown field ", "duplicate "];

/// The text of an error without the values that it quotes: key, kind of value, what is expected, line and column.
fn without_values(error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    let place =
        error.location().map_or_else(String::new, |at| format!(" at line {} column {}", at.line(), at.column()));
    let Some(at) = ABOUT_A_VALUE.iter().filter_map(|words| text.find(words)).min() else {
        // The YAML parser's own errors may quote names of tags and anchors.
        return format!("no valid YAML{place}");
    };
    // Before it is the path to the key: `tls_server_config.min_version: `.
    let (path, what) = text.split_at(at);
    let path = match path.trim_end_matches(": ") {
        "" => String::new(),
        path => format!("{}: ", shown_key(path)),
    };
    let wanted = what.rfind(", expected ").map_or("", |at| what[at..].split(" at line ").next().unwrap_or_default());
    let mut quoted = what.splitn(3, '`');
    let head = quoted.next().unwrap_or_default().split(['"', ',']).next().unwrap_or_default().trim_end();
    let head = match head {
        "unknown field" => format!("unknown field `{}`", shown_key(quoted.next().unwrap_or_default())),
        "unknown variant" => "unknown value".to_owned(),
        head => head.split(" at line ").next().unwrap_or_default().to_owned(),
    };
    format!("{path}{head}{wanted}{place}")
}

/// `tls_server_config`. Certificate and key are files, or PEM text in the file itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a map")]
pub(super) struct TlsServerConfig {
    pub cert: Option<String>,
    pub cert_file: Option<PathBuf>,
    pub key: Option<String>,
    pub key_file: Option<PathBuf>,
    pub client_ca: Option<String>,
    pub client_ca_file: Option<PathBuf>,
    pub client_auth_type: ClientAuth,
    pub client_allowed_sans: Vec<String>,
    pub min_version: Option<Version>,
    pub max_version: Option<Version>,
    /// Cipher suites of TLS 1.2; those of TLS 1.3 are fixed.
    pub cipher_suites: Vec<String>,
    pub curve_preferences: Vec<String>,
    pub prefer_server_cipher_suites: Option<bool>,
}

impl TlsServerConfig {
    /// The files that this section names; relative paths are relative to `base`.
    pub fn files(&self, base: &Path) -> impl Iterator<Item = PathBuf> {
        [&self.cert_file, &self.key_file, &self.client_ca_file].into_iter().flatten().map(move |file| base.join(file))
    }
}

/// `client_auth_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ClientAuth {
    #[default]
    NoClientCert,
    RequestClientCert,
    #[serde(alias = "RequireClientCert")]
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Version {
    TLS10,
    TLS11,
    TLS12,
    TLS13,
}

/// `http_server_config`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a map")]
pub(super) struct HttpServerConfig {
    /// Whether HTTP/2 is offered to TLS clients.
    pub http2: bool,
    headers: BTreeMap<String, String>,
}

impl Default for HttpServerConfig {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

/// Headers that can be set, with their allowed values where there are few.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

impl HttpServerConfig {
    /// The headers of every answer; an empty value leaves the header out.
    pub fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().filter(|(_, value)| !value.is_empty()) {
            let Some((_, values)) = HEADERS.iter().find(|(known, _)| known == name) else {
                let known = HEADERS.map(|(name, _)| name).join(", ");
                let name = shown_key(name);
                return Err(format!("http_server_config.headers: {name} cannot be set, only {known}"));
            };
            if !values.is_empty() && !values.iter().any(|known| known.eq_ignore_ascii_case(value)) {
                return Err(format!("http_server_config.headers: {name} can be {}", values.join(" or ")));
            }
            let wrong = |error: &dyn std::fmt::Display| format!("http_server_config.headers: {name}: {error}");
            let header = HeaderName::try_from(name).map_err(|error| wrong(&error))?;
            headers.insert(header, HeaderValue::try_from(value).map_err(|error| wrong(&error))?);
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_node_exporters_users_write_is_understood() {
        let file = File::parse(
            "tls_server_config:\n  cert_file: node.crt\n  key_file: /etc/node.key\n  client_auth_type: RequireAndVerifyClientCert\n  \
             client_ca_file: ca.crt\n  min_version: TLS12\n  max_version: TLS13\nhttp_server_config:\n  http2: false\n  headers:\n    \
             X-Frame-Options: deny\n    Strict-Transport-Security: max-age=31536000\nbasic_auth_users:\n  alice: $2y$10$abc\n",
        )
        .unwrap();
        let tls = file.tls_server_config.unwrap();
        assert_eq!(tls.client_auth_type, ClientAuth::RequireAndVerifyClientCert);
        let files: Vec<_> = tls.files(Path::new("/etc/prometheus")).collect();
        assert_eq!(files, ["/etc/prometheus/node.crt", "/etc/node.key", "/etc/prometheus/ca.crt"].map(PathBuf::from));
        assert_eq!(file.http_server_config.headers().unwrap().len(), 2);
        assert!(!file.http_server_config.http2);
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        for text in ["", "# nothing\n", "{}"] {
            let file = File::parse(text).unwrap();
            assert!(
                file.tls_server_config.is_none() && file.http_server_config.http2 && file.basic_auth_users.is_empty()
            );
        }
    }

    #[test]
    fn no_error_shows_a_value() {
        let secret = "hunter2+/hunter2";
        for (text, words) in [
            (format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"), "string"),
            (secret.to_owned(), "string"),
            (format!("{secret}: x"), "unknown field"),
            (format!("basic_auth_users: {secret}"), "basic_auth_users: invalid type: string, expected a map"),
            (format!("basic_auth_users:\n  alice: [{secret}]"), "line 2"),
            (format!("basic_auth_users:\n  {secret}: [x]"), "sequence"),
            (format!("tls_server_config:\n  min_version: {secret}"), "min_version: unknown value, expected one of"),
            (format!("tls_server_config:\n  key: {{a: {secret}}}"), "tls_server_config.key: invalid type: map"),
            (format!("tls_server_config: \"{secret}, expected x\""), "string"),
            (format!("http_server_config:\n  http2: {secret}"), "http_server_config.http2: invalid type: string"),
            (format!("*{secret}"), "line 1"),
            (format!("!{secret} x"), "line"),
            (format!("a: b: {secret}"), "line 1"),
            (format!("\"{secret}"), "YAML"),
            (format!("{secret}: 1\n{secret}: 2"), ""),
            ("x".repeat(5 << 20), "string"),
        ] {
            let problem = File::parse(&text).err().unwrap_or_default();
            println!("{problem}");
            let shows = problem.contains("hunter") || problem.contains("BEGIN") || problem.contains("xxx");
            assert!(problem.contains(words) && !shows && problem.len() < 500, "{text:.100}: {problem:.500}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (text, named) in [
            ("tls_config: {}", "tls_config"),
            ("tls_server_config:\n  cert_fil: x\n", "cert_fil"),
            ("tls_server_config:\n  client_auth_type: Sometimes\n", "RequireAndVerifyClientCert"),
            ("http_server_config:\n  http3: true\n", "http3"),
            ("basic_auth_users: [alice]\n", "basic_auth_users"),
        ] {
            let problem = File::parse(text).unwrap_err();
            assert!(problem.contains(named) && !problem.contains("Sometimes"), "{problem}");
        }
        for (text, named) in [
            ("Server: x", "Server"),
            ("X-Frame-Options: maybe", "sameorigin"),
            ("X-XSS-Protection: \"a\\nb\"", "X-XSS"),
        ] {
            let file = File::parse(&format!("http_server_config:\n  headers:\n    {text}\n")).unwrap();
            let problem = file.http_server_config.headers().unwrap_err();
            assert!(problem.contains(named), "{problem}");
        }
    }
}
