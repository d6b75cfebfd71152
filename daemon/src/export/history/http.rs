//! `GET /v1/report` and `GET /v1/statement`, on the metrics page and on joulectl's socket.

use super::{LINES, Refusal, Reports};
use crate::export::Snapshots;
use crate::history::report::{By, Query as Asked, ReportStep};
use crate::history::statement::StatementQuery;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

#[derive(Clone)]
struct Answering {
    reports: Reports,
    snapshots: Snapshots,
}

/// The routes `/v1/report` and `/v1/statement`.
pub fn routes(reports: Reports, snapshots: Snapshots) -> Router {
    let routes = Router::new().route("/v1/report", get(of_all)).route("/v1/statement", get(of_one));
    routes.with_state(Answering { reports, snapshots })
}

/// The query of a report.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    /// Seconds since 1970.
    from: i64,
    /// Seconds since 1970.
    until: i64,
    by: By,
    step: Option<ReportStep>,
    limit: Option<usize>,
}

async fn of_all(State(of): State<Answering>, words: Result<Query<Words>, QueryRejection>) -> Response {
    let Words { from, until, by, step, limit } = match words {
        Ok(Query(words)) => words,
        Err(error) => {
            let why = format!(
                "{error}; wanted: from and until in seconds since 1970, by ({}), and, where wanted, step (hour, day, \
                 month) and limit",
                By::words().join(", ")
            );
            return refused(StatusCode::BAD_REQUEST, &why);
        }
    };
    let node = of.snapshots.borrow().host.node_name.clone();
    let asked = Asked { from, until, by, step, limit: limit.unwrap_or(LINES) };
    answer(of.reports.report(asked, node).await.and_then(|report| json(&report)))
}

/// The query of a statement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity {
    /// Seconds since 1970.
    from: i64,
    /// Seconds since 1970.
    until: i64,
    kind: String,
    name: String,
}

async fn of_one(State(of): State<Answering>, words: Result<Query<Entity>, QueryRejection>) -> Response {
    let wanted = "wanted: from and until in seconds since 1970, kind (as of by in /v1/report), and name, which is the \
                  entity's id or its name";
    let Entity { from, until, kind, name } = match words {
        Ok(Query(words)) => words,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &format!("{error}; {wanted}")),
    };
    let kind = match kind.parse() {
        Ok(By::Kind(kind)) => kind,
        _ => return refused(StatusCode::BAD_REQUEST, &format!("{kind:?} is no kind of entity; {wanted}")),
    };
    let snapshot = of.snapshots.borrow().clone();
    let asked = StatementQuery { from, until, kind, name };
    answer(of.reports.statements(asked, snapshot).await.and_then(|made| json(&made)))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|error| Refusal::Failed(error.to_string()))
}

fn answer(made: Result<Vec<u8>, Refusal>) -> Response {
    match made {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(Refusal::NoHistory(why)) => refused(StatusCode::NOT_FOUND, &why),
        Err(Refusal::Asked(why)) => refused(StatusCode::BAD_REQUEST, &why),
        Err(Refusal::Failed(why)) => refused(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}
