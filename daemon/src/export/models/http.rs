//! Models on the metrics page's listener: `GET /v1/models`, `GET /v1/models/NAME` (the file as it is), and of Kepler's
//! model server `POST /model` and `GET /best-models`.

use super::SharedModels;
use crate::power_model::kepler::served::{self, BestQuery};
use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time for the body of a request to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// The routes.
pub fn routes(models: SharedModels) -> Router {
    Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/{name}", get(file))
        .route("/model", post(model))
        .route("/best-models", get(best))
        .with_state(models)
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// What a client asks with whether the file has changed: half of its SHA-256.
fn mark(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let digits: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

async fn list(State(models): State<SharedModels>) -> Response {
    let models = Arc::clone(&models.borrow());
    json(served::list(&models))
}

async fn file(State(models): State<SharedModels>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let models = Arc::clone(&models.borrow());
    match models.file(&name) {
        Some(bytes) => {
            let mark = mark(bytes);
            let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok()).unwrap_or_default();
            if known.split(',').any(|one| one.trim() == mark) {
                return (StatusCode::NOT_MODIFIED, [(header::ETAG, mark)]).into_response();
            }
            let head = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, mark)];
            (head, bytes.to_vec()).into_response()
        }
        None => refused(StatusCode::NOT_FOUND, "there is no file of this name; /v1/models lists those that there are"),
    }
}

async fn model(State(models): State<SharedModels>, body: Body) -> Response {
    let too_long = || {
        let why = format!("the request has more than {} bytes", served::MOST_BYTES);
        refused(StatusCode::PAYLOAD_TOO_LARGE, &why)
    };
    // By its head: nothing of it is waited for.
    if body.size_hint().lower() > served::MOST_BYTES as u64 {
        return too_long();
    }
    let body = match timeout(BODY_LIMIT, Limited::new(body, served::MOST_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_long(),
        Ok(Err(_)) => {
            let why = "the body of the request is cut short, or its chunks are not as HTTP has them";
            return refused(StatusCode::BAD_REQUEST, why);
        }
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the request did not arrive within 10 s"),
    };
    let models = Arc::clone(&models.borrow());
    match served::model(&models, &body) {
        Ok(weights) => json(weights),
        Err(why) => refused(StatusCode::BAD_REQUEST, &why),
    }
}

async fn best(State(models): State<SharedModels>, Query(query): Query<BestQuery>) -> Response {
    let models = Arc::clone(&models.borrow());
    match served::best_models(&models, &query) {
        Ok(best) => json(best),
        Err(why) => refused(StatusCode::BAD_REQUEST, &why),
    }
}
