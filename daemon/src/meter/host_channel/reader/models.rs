//! What the host says that it learned of its own power (`GET /v1/model`), where its operator shares it: this VM's part,
//! as models. Asked for on a connection of its own once the host sends data, and again from time to time, because the
//! host goes on learning. A port of virtio-serial has no requests.

use super::super::address::Address;
use super::super::connect::{self, Connection};
use super::{LINE, Link, RESPONSE};
use crate::model::text::safe;
use crate::power_model::file;
use crate::power_model::stand_in::Installed;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// The most bytes of an answer: each model has some thousand.
const MOST_BYTES: usize = 256 << 10;
/// The most models of an answer: one of the packages and one of memory are known.
const MOST_MODELS: usize = 8;
/// Pause while nothing was heard of the host yet.
const EARLY: Duration = Duration::from_secs(1);
/// Pause between two questions.
const AGAIN: Duration = Duration::from_secs(600);

#[derive(Deserialize)]
struct Answer<'a> {
    protocol: u64,
    #[serde(borrow)]
    models: Vec<&'a RawValue>,
}

/// Keeps the models of the host, for as long as it is not dropped.
pub(super) async fn keep(address: &Address, link: &Link) {
    let mut said = String::new();
    loop {
        while link.channel().latest().is_none() {
            sleep(EARLY).await;
        }
        match timeout(RESPONSE, ask(address)).await.unwrap_or_else(|_| Err("no answer".to_owned())) {
            Ok(Some(models)) => link.channel().models = models.into(),
            // The operator does not share them any more, or never did.
            Ok(None) => link.channel().models = Arc::default(),
            // What was known stays: the host may be away.
            Err(why) if why != said => {
                tracing::warn!("{address}: the host's model is not used: {}", safe(&why));
                said = why;
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

/// The models that the host has for this VM now; `None`: it shares none.
async fn ask(address: &Address) -> Result<Option<Vec<Installed>>, String> {
    let io = match connect::open(address).await.map_err(|error| error.to_string())? {
        Connection::Http(io) => io,
        Connection::Serial(_) => return Ok(None),
    };
    let cut = |error: hyper::Error| format!("HTTP: {error}");
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LINE).max_headers(32);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(cut)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get("/v1/model").header(header::HOST, "jouled").header(header::CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(cut)?;
    match answer.status() {
        StatusCode::OK => {}
        // Older hosts have no such path; 503: it has not learned enough yet.
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => return Ok(None),
        status => return Err(format!("it answers {}", status.as_u16())),
    }
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
    let body = body.map_err(|_| format!("the answer is cut short or has more than {MOST_BYTES} bytes"))?.to_bytes();
    models(&body, address).map(Some)
}

/// The models of an answer.
fn models(body: &[u8], address: &Address) -> Result<Vec<Installed>, String> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| format!("its answer: {error}"))?;
    if answer.protocol != 1 {
        return Err(format!("field protocol: it is {}, and this version knows 1: update jouled", answer.protocol));
    }
    let one = |(number, model): (usize, &&RawValue)| {
        let model = file::read(model.get().as_bytes()).map_err(|error| format!("models[{number}]: {error}"))?;
        Ok(Installed { file: address.to_string(), model: Arc::new(model) })
    };
    answer.models.iter().take(MOST_MODELS).enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_cannot_be_used_says_why() {
        let address = Address::Unix("/x".into());
        let why = |text: &str| models(text.as_bytes(), &address).unwrap_err();
        assert!(why("{}").starts_with("its answer: missing field `protocol`"), "{}", why("{}"));
        assert!(why("<html>").starts_with("its answer: "));
        assert!(why(r#"{"protocol":2,"models":[]}"#).starts_with("field protocol: it is 2"));
        let bad = why(r#"{"protocol":1,"models":[{"format":"jouled power model","version":9}]}"#);
        assert!(bad.starts_with("models[0]: field version: it is 9"), "{bad}");
        assert_eq!(models(br#"{"protocol":1,"vcpus":2,"idle":"apart","models":[]}"#, &address).unwrap().len(), 0);
    }
}
