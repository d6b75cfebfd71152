//! Tests of the pages over real connections.

use super::*;
use crate::export::prometheus::tests::snapshot;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Sends `head` (request line and headers, without the empty line) and returns all of the answer.
pub(in crate::export) async fn ask(mut io: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
    io.write_all(format!("{head}\r\nHost: evil.example\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// 0.5 s after the tick that the sample snapshot shows.
fn soon() -> Stamp {
    Stamp { monotonic: Nanos(99_500_000_000), ..Stamp::default() }
}

/// 10.5 s after it.
fn late() -> Stamp {
    Stamp { monotonic: Nanos(109_500_000_000), ..Stamp::default() }
}

struct Server {
    address: SocketAddr,
    snapshots: watch::Sender<Arc<Snapshot>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(snapshot: Snapshot, clock: fn() -> Stamp) -> Server {
    let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
    let listeners = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listeners, routes(receiver, clock), None, stop.clone()));
    Server { address, snapshots, stop, task }
}

fn routes(snapshots: Snapshots, clock: fn() -> Stamp) -> Router {
    let (texts, guests) = (SharedTexts::default(), crate::export::guest::tests::nobody());
    let of_metrics = router(&texts, snapshots.clone(), PrometheusOptions::default(), guests, Board::default(), clock);
    of_metrics.merge(bare(&texts, snapshots))
}

impl Server {
    async fn ask(&self, head: &str) -> String {
        ask(TcpStream::connect(self.address).await.unwrap(), head).await
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_asked_for() {
    let server = start(snapshot(), soon);
    let classic = server.ask("GET /metrics HTTP/1.1").await;
    assert!(
        classic.starts_with("HTTP/1.1 200")
            && classic.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n")
    );
    assert!(classic.contains("\njouled_tick_age_seconds 0.5\n"), "{classic}");
    let openmetrics = server.ask("GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0").await;
    assert!(openmetrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(openmetrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn other_methods_and_paths_are_answered_as_http_wants() {
    let server = start(snapshot(), soon);
    let head = server.ask("HEAD /metrics HTTP/1.1").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n") && head.contains("content-length: "),
        "{head}"
    );
    let post = server.ask("POST /metrics HTTP/1.1\r\nContent-Length: 0").await;
    assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET,HEAD"), "{post}");
    for path in ["/nothing", "/metrics/", "/../etc/passwd"] {
        assert!(server.ask(&format!("GET {path} HTTP/1.1")).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    let long = "x".repeat(20_000);
    for head in [format!("GET /{long} HTTP/1.1"), format!("GET / HTTP/1.1\r\nX-Long: {long}")] {
        let answer = server.ask(&head).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 414"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn probes_tell_a_stuck_daemon_from_a_young_one() {
    let server = start(snapshot(), soon);
    for path in ["/healthz", "/probe/livez", "/probe/readyz"] {
        assert!(server.ask(&format!("GET {path} HTTP/1.1")).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    let stuck = start(snapshot(), late);
    assert!(stuck.ask("GET /probe/livez HTTP/1.1").await.starts_with("HTTP/1.1 503"));
    assert!(stuck.ask("GET /probe/readyz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
    // Long intervals: five of them are allowed.
    let mut slow = snapshot();
    slow.host = Arc::new(crate::model::snapshot::Host { interval: Nanos(3 * Nanos::SECOND.0), ..(*slow.host).clone() });
    stuck.snapshots.send_replace(Arc::new(slow));
    assert!(stuck.ask("GET /probe/livez HTTP/1.1").await.starts_with("HTTP/1.1 200"));

    let young = start(Snapshot { ticks: 0, kinds: Vec::new(), ..snapshot() }, late);
    assert!(young.ask("GET /probe/livez HTTP/1.1").await.starts_with("HTTP/1.1 200"));
    for path in ["/probe/readyz", "/metrics"] {
        assert!(young.ask(&format!("GET {path} HTTP/1.1")).await.starts_with("HTTP/1.1 503"), "{path}");
    }
}

#[tokio::test]
async fn the_landing_page_escapes_and_reflects_nothing() {
    let mut evil = snapshot();
    evil.host = Arc::new(crate::model::snapshot::Host { node_name: "<script>\"'&".into(), ..(*evil.host).clone() });
    let page = start(evil, soon).ask("GET / HTTP/1.1").await;
    assert!(
        page.contains("jouled 0.1.0 on &lt;script&gt;&quot;&#39;&amp;</h1>") && !page.contains("<script"),
        "{page}"
    );
    assert!(page.contains("rapl-powercap (meter): failed open &quot;/sys") && !page.contains("evil.example"));
}

#[tokio::test]
async fn it_stops_within_a_second_whoever_is_connected() {
    let server = start(snapshot(), soon);
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    server.stop.cancel();
    server.task.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_hung_up_on() {
    let server = start(snapshot(), soon);
    for said in ["", "GET /metrics HTTP/1.1\r\nHost: ", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let start = tokio::time::Instant::now();
        let mut io = TcpStream::connect(server.address).await.unwrap();
        io.write_all(said.as_bytes()).await.unwrap();
        let _ = io.read_to_end(&mut Vec::new()).await;
        let after = start.elapsed();
        assert!(after >= Duration::from_secs(9) && after < Duration::from_secs(60), "{said:?}: after {after:?}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named() {
    let taken = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = taken[0].local_addr().unwrap();
    let error = bind(&[address]).unwrap_err();
    assert_eq!(error.address, address);
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("another port"), "{text}");
}

#[tokio::test]
async fn both_wildcards_go_together() {
    let free = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap()[0].local_addr().unwrap().port();
    let addresses = [format!("0.0.0.0:{free}").parse().unwrap(), format!("[::]:{free}").parse().unwrap()];
    match bind(&addresses) {
        Ok(listeners) => assert_eq!(listeners.len(), 2),
        Err(error) if error.address.is_ipv6() && error.why.kind() != io::ErrorKind::AddrInUse => {
            println!("skipped: no IPv6 here: {error}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn without_an_address_it_waits_to_be_stopped() {
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(Vec::new(), Router::new(), None, stop.clone()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!serving.is_finished());
    stop.cancel();
    serving.await.unwrap();
}
