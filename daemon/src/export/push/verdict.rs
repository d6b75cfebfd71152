//! What a receiver's answer means. Pure.

use crate::sys::https_client::{Error, Response};
use crate::sys::safe_text::excerpt;
use hyper::StatusCode;
use hyper::header::{LOCATION, RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// Longest excerpt of a receiver's text, in characters.
const EXCERPT: usize = 160;
/// Longest time that a receiver may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Header of version 2.0: how many samples were written.
const WRITTEN: &str = "x-prometheus-remote-write-samples-written";

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken. `written`: how many samples of it, where the receiver says so.
    Taken {
        /// Samples.
        written: Option<u64>,
    },
    /// A part of it was taken, and the rest is not wanted: it is not sent again.
    Partly {
        /// Samples that were taken.
        written: u64,
        /// The receiver's words.
        why: String,
    },
    /// It is sent again later.
    Later {
        /// Not before this time, as the receiver says.
        after: Option<Duration>,
        /// Why.
        why: String,
    },
    /// The receiver does not know this version of the protocol.
    OtherVersion,
    /// Something in it is not wanted; the rest may be.
    Samples(String),
    /// It is too large.
    TooLarge(String),
    /// Nothing is wanted: the login, the address or the configuration is wrong.
    Closed(String),
}

/// Reads the answer to a request. `is_2`: it was of version 2.0. `now`: for the dates of `Retry-After`.
pub fn verdict(answer: Result<&Response, &Error>, is_2: bool, now: SystemTime) -> Verdict {
    let response = match answer {
        Ok(response) => response,
        Err(error) => return Verdict::Later { after: None, why: error.why.clone() },
    };
    let written = response.header(WRITTEN).and_then(|count| count.trim().parse().ok());
    let status = response.status;
    let text = response.body.as_ref().map_or_else(|_| String::new(), |body| words(body));
    let why = format!("status {}{text}", status.as_u16());
    match status {
        // A receiver of version 1.0 that does not look at the version finds an empty request in one of version 2.0.
        status if status.is_success() && is_2 && written.is_none() => Verdict::OtherVersion,
        status if status.is_success() => Verdict::Taken { written },
        StatusCode::UNSUPPORTED_MEDIA_TYPE if is_2 => Verdict::OtherVersion,
        StatusCode::TOO_MANY_REQUESTS => Verdict::Later { after: retry_after(response, now), why },
        status if status.is_server_error() => Verdict::Later { after: retry_after(response, now), why },
        status if status.is_redirection() => {
            let to = response.header(LOCATION).unwrap_or("nowhere");
            Verdict::Closed(format!(
                "redirected to {} (status {}): not followed, as a password would go there; set url to where it is",
                excerpt(to, EXCERPT),
                status.as_u16()
            ))
        }
        StatusCode::PAYLOAD_TOO_LARGE => Verdict::TooLarge(why),
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => match written {
            Some(written) if is_2 => Verdict::Partly { written, why },
            _ => Verdict::Samples(why),
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Verdict::Closed(format!("wrong login ({why})")),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Verdict::Closed(format!("takes no remote write at this url ({why})"))
        }
        _ => Verdict::Closed(why),
    }
}

fn words(body: &[u8]) -> String {
    let text = excerpt(String::from_utf8_lossy(body).trim(), EXCERPT);
    if text.is_empty() { text } else { format!(": {text}") }
}

/// The time of `Retry-After`: seconds, or a date.
fn retry_after(response: &Response, now: SystemTime) -> Option<Duration> {
    let text = response.header(RETRY_AFTER)?.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?,
    };
    Some(after.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::https_client::ErrorKind;
    use hyper::header::{HeaderMap, HeaderName, HeaderValue};

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Response {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Response { status: StatusCode::from_u16(status).unwrap(), headers, body: Ok(body.into()) }
    }

    #[test]
    fn each_answer_has_one_meaning() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let of = |response: &Response, is_2| verdict(Ok(response), is_2, now);
        assert_eq!(of(&answer(204, &[], ""), false), Verdict::Taken { written: None });
        assert_eq!(of(&answer(204, &[], ""), true), Verdict::OtherVersion);
        assert_eq!(of(&answer(204, &[(WRITTEN, "7")], ""), true), Verdict::Taken { written: Some(7) });
        assert_eq!(of(&answer(415, &[], ""), true), Verdict::OtherVersion);
        assert!(matches!(of(&answer(415, &[], ""), false), Verdict::Closed(_)));
        let why = "status 400: out of order \\u{1b}".to_owned();
        assert_eq!(of(&answer(400, &[], "out of order \u{1b}"), false), Verdict::Samples(why.clone()));
        let partly = answer(400, &[(WRITTEN, "3")], "out of order \u{1b}");
        assert_eq!(of(&partly, true), Verdict::Partly { written: 3, why });
        for (value, after) in [
            ("42", Some(42)),
            ("99999", Some(3600)),
            ("soon", None),
            ("Tue, 14 Nov 2023 22:14:20 GMT", Some(60)),
            ("Tue, 14 Nov 2023 22:12:20 GMT", None),
        ] {
            for status in [429, 503] {
                let later = of(&answer(status, &[("retry-after", value)], ""), false);
                let Verdict::Later { after: said, .. } = later else { panic!("{later:?}") };
                assert_eq!(said, after.map(Duration::from_secs), "{value}");
            }
        }
        for status in [301, 401, 403, 404, 405, 402, 410, 499] {
            assert!(matches!(of(&answer(status, &[], ""), false), Verdict::Closed(_)), "{status}");
        }
        assert!(matches!(of(&answer(413, &[], ""), true), Verdict::TooLarge(_)));
        let error = Error { kind: ErrorKind::Slow, why: "no answer within 10 s".into() };
        let later = Verdict::Later { after: None, why: "no answer within 10 s".into() };
        assert_eq!(verdict(Err(&error), true, now), later);
    }
}
