//! Where an HTTP server is: scheme, host, port and path of a configured URL. Resolves no name.

use hyper::Uri;
use hyper::http::uri::Scheme;

/// A server's place, and the path of the URL that named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// TLS, or plain TCP.
    pub https: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Value of the `Host` header.
    pub authority: String,
    /// Path and query of the URL; empty or `/` where it has none.
    pub path: String,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong. The URL's text is not in it: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "not a URL such as \"https://bmc.example\"")?;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err("not a URL such as \"https://bmc.example\""),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("a user or password in it would be shown: use username and password_file");
        }
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || port == 0 {
            return Err("names no host or no port");
        }
        let path = uri.path_and_query().map_or_else(String::new, ToString::to_string);
        Ok(Self { https, host, port, authority: authority.as_str().to_owned(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let endpoint = Endpoint::parse("https://[fe80::1]:8443/").unwrap();
        assert_eq!((endpoint.https, endpoint.host.as_str(), endpoint.port), (true, "fe80::1", 8443));
        assert_eq!(endpoint.path, "/");
        assert_eq!(Endpoint::parse("http://10.0.0.1").unwrap().port, 80);
        assert_eq!(Endpoint::parse("https://meter.example/rpc?id=1").unwrap().path, "/rpc?id=1");
        for bad in ["", "meter.example", "ftp://meter.example", "https://root:calvin@meter.example", "https://a:0"] {
            let why = Endpoint::parse(bad).unwrap_err();
            assert!(!why.contains("calvin"), "{why}");
        }
    }
}
