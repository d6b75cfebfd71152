//! The page to look at (`[export.page]`), on the metrics page's listener: `GET /`, its event stream `/v1/events`, what
//! it asks for beside the stream (`/v1/page/…`), and `/troubleshooting`. Reads snapshots; measures nothing,
//! and no request changes anything.

mod assets;
mod belongs;
mod details;
mod events;
mod feed;
mod html;
mod reasons;
#[cfg(test)]
mod tests;

pub use feed::Feed;

use super::Snapshots;
use super::guest::Guests;
use super::http::SharedTexts;
use super::http::once::Once;
use crate::model::entity::Kind;
use assets::Assets;
use axum::Router;
use axum::routing::get;
use events::Readers;
use serde::Deserialize;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// `[export.page]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PageConfig {
    /// Whether there is a page.
    #[serde(rename = "use")]
    pub wanted: PageUse,
}

/// `use` of `[export.page]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PageUse {
    /// There is one.
    #[default]
    On,
    /// `/` has a bare list instead.
    Off,
}

/// What the routes answer from.
#[derive(Clone)]
struct Page {
    feed: Arc<Feed>,
    guests: Guests,
    assets: Arc<Assets>,
    /// The document, plain and compressed: with one kind alone, by its index, then with all.
    documents: Arc<Vec<[Once; 2]>>,
    /// The first frame of an event stream.
    full: Once,
    meters: Once,
    readers: Arc<Readers>,
    stop: CancellationToken,
}

/// The routes of the page. `feed` is run by [`Feed::run`]. Event streams end at `stop`.
pub fn routes(texts: &SharedTexts, feed: Arc<Feed>, guests: Guests, stop: CancellationToken) -> Router {
    let page = Page {
        feed,
        guests,
        assets: Arc::new(Assets::load()),
        documents: Arc::new((0..=Kind::ALL.len()).map(|_| [texts.another(), texts.another()]).collect()),
        full: texts.another(),
        meters: texts.another(),
        readers: Arc::default(),
        stop,
    };
    Router::new()
        .route("/", get(html::document))
        .route("/v1/events", get(events::events))
        .route("/v1/page/row", get(details::row))
        .route("/v1/page/curves", get(details::curves))
        .route("/v1/page/hours", get(details::hours))
        .route("/v1/page/meters", get(details::meters))
        .route("/troubleshooting", get(assets::help))
        .with_state(page)
}

impl Page {
    fn shown(&self) -> &Snapshots {
        self.feed.shown()
    }
}

/// The kinds on the page in the order of its tabs: those that `levels` of `[export.prometheus]` lists.
fn tabs(levels: &[Kind]) -> Vec<Kind> {
    const ORDER: [Kind; 12] = [
        Kind::Tenant,
        Kind::Unit,
        Kind::Container,
        Kind::Pod,
        Kind::Vm,
        Kind::Job,
        Kind::JobStep,
        Kind::User,
        Kind::Session,
        Kind::UserUnit,
        Kind::Slice,
        Kind::Process,
    ];
    ORDER.into_iter().filter(|kind| levels.contains(kind)).collect()
}
