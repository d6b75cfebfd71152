//! The HTTP server: listeners, routes (/metrics, probes, the bare list where there is no page to look at). The accept
//! loop is `serve`; the metrics are `prometheus`.

pub(in crate::export) mod answer;
pub(in crate::export) mod once;
pub(in crate::export) mod peer;
pub(in crate::export) mod places;
mod request_body;
pub(in crate::export) mod serve;
pub(in crate::export) mod stall;
pub mod web_config;

use super::Snapshots;
use super::guest::Guests;
use super::prometheus::{Format, PrometheusOptions, render_changing, render_lasting};
use super::push::Board;
use crate::model::snapshot::Snapshot;
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use answer::Texts;
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use once::Once;
use places::{Limits, Places};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use web_config::WebConfig;

/// Most connections at a time, over all addresses.
const CONNECTIONS: Limits = Limits { all: 256, each: 128, waiting: 64 };
const BACKLOG: i32 = 512;
/// What the kernel keeps for a connection, in bytes: sent to it and not read yet, and not yet taken by its reader. The
/// kernel doubles both for its own use. By default they grow to megabytes.
const KERNEL_BUFFERS: (usize, usize) = (16 << 10, 64 << 10);
/// Time after which the kernel gives up a connection whose reader takes nothing, also one that is closed already.
const READER_LIMIT: Duration = Duration::from_secs(15);
/// Age of the last tick, in intervals, from which on jouled counts as stuck.
const LIVE_INTERVALS: u64 = 5;
/// Age of the last tick below which jouled never counts as stuck.
const LIVE_MIN: Nanos = Nanos(10 * Nanos::SECOND.0);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}{}", advice(.why))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    why: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop what listens there (ss -ltnp shows it) or configure another port",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address (ip address shows those it has)",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// Opens listeners on all `addresses`. Needs a tokio runtime. An IPv6 wildcard also accepts IPv4, unless an IPv4
/// address with the same port is listed.
///
/// # Errors
/// For the first address that cannot be listened on; then no listener is kept.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let open = |address: &SocketAddr| {
        let only_v6 = addresses.iter().any(|other| other.is_ipv4() && other.port() == address.port());
        listen(*address, only_v6).map_err(|why| BindError { address: *address, why })
    };
    addresses.iter().map(open).collect()
}

/// Makes listeners of sockets that the service manager opened. Needs a tokio runtime.
///
/// # Errors
/// Where one of them cannot be used.
pub fn take<'a>(sockets: impl IntoIterator<Item = &'a std::net::TcpListener>) -> io::Result<Vec<TcpListener>> {
    let take = |socket: &std::net::TcpListener| {
        let socket = socket.try_clone()?;
        socket.set_nonblocking(true)?;
        bound_buffers(&SockRef::from(&socket))?;
        TcpListener::from_std(socket)
    };
    sockets.into_iter().map(take).collect()
}

fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    bound_buffers(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Bounds what the kernel keeps for the connections of a listener: they inherit its options.
fn bound_buffers(listener: &SockRef<'_>) -> io::Result<()> {
    listener.set_recv_buffer_size(KERNEL_BUFFERS.0)?;
    listener.set_send_buffer_size(KERNEL_BUFFERS.1)?;
    listener.set_tcp_user_timeout(Some(READER_LIMIT))
}

/// Serves `router` on all `listeners` until `stop`, then returns within a second. `web` adds TLS, passwords and
/// headers, and is read again when its files change.
pub async fn serve(listeners: Vec<TcpListener>, router: Router, web: Option<Arc<WebConfig>>, stop: CancellationToken) {
    let router = match &web {
        Some(web) => web.guard(router),
        None => router,
    };
    let places = Places::new(CONNECTIONS);
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(serve::accept(listener, router.clone(), web.clone(), Arc::clone(&places), stop.clone()));
    }
    if let Some(web) = web {
        tasks.spawn(web.watch(stop.clone()));
    }
    // Without any address there is nothing to accept; the service still runs until `stop`.
    if tasks.is_empty() {
        stop.cancelled().await;
    }
    tasks.join_all().await;
}

/// Texts that are made of snapshots, and count together.
#[derive(Clone, Default)]
pub struct SharedTexts(Once);

impl SharedTexts {
    /// Another text.
    pub(in crate::export) fn another(&self) -> Once {
        self.0.beside()
    }
}

#[derive(Clone)]
struct Pages {
    snapshots: Snapshots,
    options: Arc<PrometheusOptions>,
    guests: Guests,
    receivers: Board,
    openmetrics: Once,
    classic: Once,
    clock: fn() -> Stamp,
    started: Stamp,
}

/// The routes, without `/`. `clock` is [`Stamp::now`], except in tests.
pub fn router(
    texts: &SharedTexts,
    snapshots: Snapshots,
    options: PrometheusOptions,
    guests: Guests,
    receivers: Board,
    clock: fn() -> Stamp,
) -> Router {
    let pages = Pages {
        snapshots,
        options: Arc::new(options),
        guests,
        receivers,
        classic: texts.another(),
        openmetrics: texts.another(),
        clock,
        started: clock(),
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(live))
        .route("/probe/livez", get(live))
        .route("/probe/readyz", get(ready))
        .fallback(async || (StatusCode::NOT_FOUND, "not found; / lists what there is\n"))
        .with_state(pages)
}

impl Pages {
    /// The last snapshot; `None` before the first tick.
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        (snapshot.ticks > 0).then_some(snapshot)
    }
}

fn not_yet() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "nothing is measured yet\n").into_response()
}

/// The connections of the server, where there is one: closed where they hold too much.
type Readers = Option<Extension<Arc<Places>>>;

fn too_much_is_held() -> Response {
    let retry = [(header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, retry, "slow readers hold too many pages\n").into_response()
}

async fn metrics(State(pages): State<Pages>, readers: Readers, headers: HeaderMap) -> Response {
    if pages.snapshot().is_none() {
        return not_yet();
    }
    let format = Format::negotiate(headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()));
    let page = match format {
        Format::OpenMetrics => &pages.openmetrics,
        Format::Classic => &pages.classic,
    };
    let options = Arc::clone(&pages.options);
    let make = move |snapshot: &Arc<Snapshot>| render_lasting(snapshot, &options, format).into_bytes();
    let Some((snapshot, lasting)) = page.get(&pages.snapshots, readers.map(|readers| readers.0), make).await else {
        return too_much_is_held();
    };
    let receivers = pages.receivers.all();
    let changing = render_changing(&snapshot, pages.guests.totals(), receivers, (pages.clock)(), format);
    let body = Body::new(Texts([lasting, changing.into()]));
    ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")], body).into_response()
}

async fn live(State(pages): State<Pages>) -> Response {
    let (last, interval) = match pages.snapshot() {
        Some(snapshot) => (snapshot.at, snapshot.host.interval),
        None => (pages.started, Nanos::ZERO),
    };
    let age = (pages.clock)().monotonic - last.monotonic;
    if age <= LIVE_MIN.max(Nanos(interval.0.saturating_mul(LIVE_INTERVALS))) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("the last tick was {} s ago\n", age.0 / Nanos::SECOND.0))
            .into_response()
    }
}

async fn ready(State(pages): State<Pages>) -> Response {
    if pages.snapshot().is_some() { "ok\n".into_response() } else { not_yet() }
}

/// `/` where there is no page to look at: a bare list.
pub fn bare(texts: &SharedTexts, snapshots: Snapshots) -> Router {
    Router::new().route("/", get(landing)).with_state((texts.another(), snapshots))
}

async fn landing(State((text, snapshots)): State<(Once, Snapshots)>, readers: Readers) -> Response {
    let make = |snapshot: &Arc<Snapshot>| landing_page(snapshot).into_bytes();
    match text.get(&snapshots, readers.map(|readers| readers.0), make).await {
        Some((_, page)) => Html(page).into_response(),
        None => too_much_is_held(),
    }
}

fn landing_page(snapshot: &Snapshot) -> String {
    let host = &*snapshot.host;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>jouled on {node}</title></head><body>\n\
         <h1>jouled {version} on {node}</h1>\n\
         <ul><li><a href=\"/metrics\">Metrics</a></li><li><a href=\"/probe/livez\">Alive?</a></li>\
         <li><a href=\"/probe/readyz\">Ready?</a></li></ul>\n<h2>Energy domains</h2>\n<ul>",
        node = escape(&host.node_name),
        version = escape(&host.version),
    );
    for view in &snapshot.domains {
        let domain = &*view.domain;
        // Writing to a String cannot fail.
        let _ =
            write!(page, "<li>{}: {} by {}</li>", escape(&domain.id), domain.quality.as_str(), escape(&domain.source));
    }
    page.push_str("</ul>\n<h2>Sources</h2>\n<ul>");
    for view in &snapshot.sources {
        let why = escape(view.health.why());
        let _ =
            write!(page, "<li>{} ({}): {} {why}</li>", escape(&view.source), view.role.as_str(), view.health.as_str());
    }
    page.push_str("</ul>\n</body></html>\n");
    page
}

/// `text` escaped for HTML, in text and in attributes.
pub(in crate::export) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
pub(in crate::export) mod tests;
