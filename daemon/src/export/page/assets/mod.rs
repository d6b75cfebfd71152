//! The files of the page as the binary has them, compressed, and the headers that go with them.

use super::Page;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crc32fast::Hasher;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec;
use ring::digest::{SHA256, digest};

/// The first part of the document, with style and script: raw deflate that goes on.
static HEAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page_head.deflate"));
/// docs/troubleshooting.md as HTML: raw deflate.
static HELP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page_help.deflate"));
/// Ends raw deflate that goes on: an empty last block.
const END: [u8; 5] = [1, 0, 0, 0xff, 0xff];
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// How well the part that changes is compressed: quickly.
const LEVEL: u8 = 2;

/// What is computed of the files once.
pub(super) struct Assets {
    /// Of the document's first part.
    checksum: Hasher,
    length: usize,
    policy: HeaderValue,
    help_policy: HeaderValue,
}

impl Assets {
    pub fn load() -> Self {
        let (head, help) = (head(), plain(HELP));
        let mut checksum = Hasher::new();
        checksum.update(&head);
        let policy = |text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            let hash = |open: &str, close: &str| between(&text, open, close).map(source).unwrap_or("'none'".into());
            let policy = format!(
                "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; \
                 form-action 'none'; frame-ancestors 'none'",
                hash("<script type=\"module\">", "</script>"),
                hash("<style>", "</style>"),
            );
            HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
        };
        Self { policy: policy(&head), help_policy: policy(&help), length: head.len(), checksum }
    }

    /// The document with `rest` after its first part, as gzip.
    pub fn compressed(&self, rest: &str) -> Vec<u8> {
        let mut checksum = self.checksum.clone();
        checksum.update(rest.as_bytes());
        let rest_compressed = compress_to_vec(rest.as_bytes(), LEVEL);
        let length = (self.length + rest.len()) as u32;
        let (checksum, length) = (checksum.finalize().to_le_bytes(), length.to_le_bytes());
        [&GZIP_HEAD, HEAD, &rest_compressed, &checksum, &length].concat()
    }

    /// The same as it is.
    pub fn plain(&self, rest: &str) -> Vec<u8> {
        [&head(), rest.as_bytes()].concat()
    }

    /// The headers of the document.
    pub fn headers(&self) -> [(HeaderName, HeaderValue); 8] {
        headers(&self.policy)
    }
}

fn headers(policy: &HeaderValue) -> [(HeaderName, HeaderValue); 8] {
    let fixed = HeaderValue::from_static;
    [
        (header::CONTENT_SECURITY_POLICY, policy.clone()),
        (header::CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, fixed("no-store")),
        (header::VARY, fixed("accept-encoding")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        (header::X_FRAME_OPTIONS, fixed("DENY")),
        (HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
    ]
}

/// Whether the reader takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let refused = |rest: &str| rest.trim().strip_prefix("q=").is_some_and(|q| q.parse().is_ok_and(|q: f32| q == 0.0));
    accepted.flat_map(|value| value.split(',')).any(|one| {
        let (name, rest) = one.split_once(';').unwrap_or((one, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !refused(rest)
    })
}

fn head() -> Vec<u8> {
    plain(&[HEAD, &END].concat())
}

fn plain(deflated: &[u8]) -> Vec<u8> {
    // What the build compressed can be read: a test reads both.
    decompress_to_vec(deflated).unwrap_or_default()
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(open)?;
    Some(after.split_once(close)?.0)
}

/// A source of the policy that allows this text alone.
fn source(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// docs/troubleshooting.md.
pub(super) async fn help(State(page): State<Page>, headers: HeaderMap) -> Response {
    let plain = plain(HELP);
    let body = if takes_gzip(&headers) {
        let (checksum, length) = (crc32fast::hash(&plain).to_le_bytes(), (plain.len() as u32).to_le_bytes());
        [&GZIP_HEAD, HELP, &checksum, &length].concat()
    } else {
        plain
    };
    let mut answer = (self::headers(&page.assets.help_policy), Bytes::from(body)).into_response();
    if takes_gzip(&headers) {
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_small_and_whole() {
        assert!(HEAD.len() + HELP.len() <= 150 * 1024, "{} + {}", HEAD.len(), HELP.len());
        let (assets, rest) = (Assets::load(), "<title>ü</title>");
        let text = String::from_utf8(assets.plain(rest)).unwrap();
        assert!(text.starts_with("<!DOCTYPE html>") && text.ends_with(rest) && text.contains("</script>"));
        let gzip = assets.compressed(rest);
        let (body, end) = (&gzip[10..gzip.len() - 8], &gzip[gzip.len() - 8..]);
        assert_eq!(decompress_to_vec(body).unwrap(), text.as_bytes());
        assert_eq!(end[..4], crc32fast::hash(text.as_bytes()).to_le_bytes());
        assert_eq!(end[4..], (text.len() as u32).to_le_bytes());
        let help = String::from_utf8(plain(HELP)).unwrap();
        assert!(
            help.contains("<h1 id=\"troubleshooting\">") && !help.contains("http://") && !help.contains("https://")
        );
    }

    #[test]
    fn the_policy_allows_the_pages_own_text_alone() {
        let assets = Assets::load();
        let policy = assets.policy.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(
            policy.contains("; style-src 'sha256-") && !policy.contains("-inline") && !policy.contains("-eval"),
            "{policy}"
        );
        let help = assets.help_policy.to_str().unwrap();
        assert!(help.contains("script-src 'none'; style-src 'sha256-"), "{help}");
        // A style or handler in an attribute would be refused by the browser.
        let text = String::from_utf8(head()).unwrap();
        assert!(!text.contains(" style=\"") && !text.contains(" onclick=") && !text.contains("innerHTML"));
    }

    #[test]
    fn gzip_is_sent_to_who_takes_it() {
        let takes = |value: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert!(takes("gzip, deflate, br") && takes("br;q=1.0, GZIP;q=0.5"));
        assert!(!takes("") && !takes("identity") && !takes("gzip;q=0"));
    }
}
