//! Guests that mean harm: the others are served on time, and nothing grows.

use super::*;
use crate::export::history::Reports;
use std::time::Instant;

fn rig() -> Cids {
    let config = GuestConfig { profile: Profile::Trusted, ..GuestConfig::default() };
    Cids::start(config, Host::new([vm(1), vm(2)]))
}

fn connections(rig: &Cids) -> Vec<usize> {
    rig.server.guests.list().into_iter().map(|guest| guest.connections).collect()
}

/// Everything that comes until the other side closes.
async fn all(io: &mut UnixStream) -> String {
    let mut got = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), io.read_to_end(&mut got)).await.expect("still open");
    String::from_utf8(got).unwrap()
}

#[tokio::test]
async fn ten_thousand_connections_of_one_guest_keep_no_other_waiting() {
    let mut rig = rig();
    settle().await;
    let mut good = Stream::open(rig.dial(102).await).await;
    good.next().await.unwrap();
    let (mut held, mut worst) = (Vec::new(), Duration::ZERO);
    for n in 0..10_000 {
        let io = rig.dial(101).await;
        if held.len() < 100 {
            held.push(io);
        }
        if n % 500 == 0 {
            let begin = Instant::now();
            rig.server.tick(1000);
            good.next().await.unwrap();
            worst = worst.max(begin.elapsed());
            assert_eq!(get(rig.dial(102).await, "/v1/energy").await.0, 200);
        }
    }
    settle().await;
    // Far more than a page takes on a busy machine, far less than 500 connections one after the other would.
    assert!(worst < Duration::from_secs(5), "{worst:?}");
    assert!(connections(&rig)[0] <= 4, "{:?}", connections(&rig));
    assert!(rig.server.guests.list()[0].refused > 9_000);
}

#[tokio::test]
async fn a_fifth_connection_is_closed_and_there_is_room_again_later() {
    let rig = rig();
    settle().await;
    let mut four = Vec::new();
    for _ in 0..4 {
        four.push(Stream::open(rig.dial(101).await).await);
    }
    assert!(closed(rig.dial(101).await).await);
    four.pop();
    settle().await;
    rig.energy(101).await;
}

#[tokio::test(start_paused = true)]
async fn slow_heads_are_given_up() {
    let rig = rig();
    settle().await;
    let mut io = rig.dial(101).await;
    let begin = tokio::time::Instant::now();
    for byte in b"GET /v1/energy HTTP/1.1\r\nHost: h\r\nX-Slow: ".iter().cycle() {
        if io.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(begin.elapsed() < Duration::from_secs(30), "a byte a second is taken for ever");
    }
    // One that says nothing at all.
    let mut io = rig.dial(101).await;
    assert_eq!(io.read(&mut [0]).await.unwrap_or(0), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(connections(&rig), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn endless_and_malformed_requests_get_an_error_and_the_connection_closed() {
    let rig = rig();
    settle().await;
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)), "HTTP/1.1 4"),
        (format!("GET / HTTP/1.1\r\n{}", "X-Y: z\r\n".repeat(100_000)), "HTTP/1.1 431"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".into(), "HTTP/1.1 400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), ""),
        ("GET /v1/energy\r\n\r\n".into(), "HTTP/1.1 400"),
        ("POST /v1/energy HTTP/1.1\r\nContent-Length: 999999999\r\n\r\nx".into(), "HTTP/1.1 413"),
        ("GET /v1/energy HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n".into(), "HTTP/1.1 413"),
    ] {
        let mut io = rig.dial(101).await;
        let _ = io.write_all(request.as_bytes()).await;
        let answer = all(&mut io).await;
        assert!(
            answer.starts_with(status) || answer.is_empty() && request.len() > 10_000,
            "{request:.60?}: {answer:.200?}"
        );
        // The rate of new connections is by the real clock.
        std::thread::sleep(Duration::from_millis(100));
    }
    settle().await;
    assert_eq!(connections(&rig), [0, 0]);
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_asked_so() {
    let rig = rig();
    settle().await;
    let (status, body) = get(rig.dial(101).await, "/v1/../../etc/passwd").await;
    assert!(status == 404 && body.contains("/v1/energy"), "{body}");
    let mut io = rig.dial(101).await;
    io.write_all(b"DELETE /v1/energy HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
    let answer = all(&mut io).await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_limited_like_others() {
    let rig = rig();
    settle().await;
    let mut io = rig.dial(101).await;
    // More than its share: writing fails once it is closed.
    let _ = io.write_all(&b"GET /v1/energy HTTP/1.1\r\n\r\n".repeat(10_000)).await;
    let answers = all(&mut io).await;
    let count = |status: &str| answers.matches(status).count();
    assert!((1..=40).contains(&count("HTTP/1.1 200")), "{}", count("HTTP/1.1 200"));
    assert!(count("HTTP/1.1 429") <= 1);
    rig.energy(102).await;
}

#[tokio::test]
async fn too_many_requests_are_told_so() {
    let rig = rig();
    settle().await;
    let mut said = Vec::new();
    for _ in 0..18 {
        said.push(get(rig.dial(101).await, "/v1/energy").await.0);
    }
    let mut io = rig.dial(101).await;
    io.write_all(&b"GET /v1/energy HTTP/1.1\r\n\r\n".repeat(8)).await.unwrap();
    let answer = all(&mut io).await;
    assert!(said.iter().all(|status| *status == 200), "{said:?}");
    assert!(
        answer.contains("HTTP/1.1 429") && answer.contains("retry-after: 1") && answer.contains("/v1/stream"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_never_reads_is_dropped() {
    let mut rig = rig();
    settle().await;
    let mut deaf = rig.dial(101).await;
    deaf.write_all(b"GET /v1/stream HTTP/1.1\r\n\r\n").await.unwrap();
    settle().await;
    assert_eq!(connections(&rig), [1, 0]);
    let mut good = Stream::open(rig.dial(102).await).await;
    good.next().await.unwrap();
    for _ in 0..3_000 {
        rig.server.tick(1000);
        good.next().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(connections(&rig), [0, 1]);
}

#[tokio::test]
async fn the_list_on_the_control_socket_is_made_once_for_a_snapshot() {
    use crate::export::control;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let mut server = Server::start(GuestConfig::default(), Host::new([vm(1)]));
    let stop = CancellationToken::new();
    let control = control::bind(&path, control::DEFAULT_MODE).unwrap();
    let serves = control.serve(server.snapshots.subscribe(), server.guests.clone(), Reports::default(), stop.clone());
    let serves = tokio::spawn(serves);
    while server.guests.list().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let list = async || {
        let (status, body) = get(dial(&path).await, "/v1/guests").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap()
    };
    let first = list().await;
    assert_eq!((first[0]["vm_id"].as_str(), first[0]["channel"].as_str()), (Some(&*vm(1).id), Some("")));
    // Requests cost no list of their own: what changes meanwhile is in the one of the next snapshot.
    server.guests.vsock_is_open();
    assert_eq!(list().await, first);
    server.tick(1000);
    assert_eq!(list().await[0]["channel"], "vsock");
    stop.cancel();
    serves.await.unwrap();
    server.end().await;
}
