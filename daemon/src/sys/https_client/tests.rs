//! The client's bounds, against a server that sends fixed bytes. TLS and trust are tested with a BMC's certificates in
//! `meter/bmc/redfish/tests`.

use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;

const TIMEOUT: Duration = Duration::from_millis(300);

/// A server that reads a request and sends `answers`, one a connection; it keeps each connection open. Returns its URL.
fn server(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
            open.push(stream);
        }
        std::thread::sleep(Duration::from_secs(5));
    });
    url
}

fn client(url: &str) -> Client {
    Client::new(Options {
        peer: "the meter",
        endpoint: Endpoint::parse(url).unwrap(),
        verify: Verify::Insecure,
        timeout: TIMEOUT,
        max_body: 10,
        headers: &[],
    })
    .unwrap()
}

async fn get(client: &mut Client) -> Result<String, (ErrorKind, String)> {
    let response = client.request(&Method::GET, "/x", None, None).await;
    let body = response.and_then(|response| response.body);
    body.map(|body| String::from_utf8(body.to_vec()).unwrap()).map_err(|error| (error.kind, error.why))
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit() {
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let url = server(vec![answer("0123456789"), answer("0123456789a")]);
    assert_eq!(get(&mut client(&url)).await.as_deref(), Ok("0123456789"));
    let (kind, why) = get(&mut client(&url)).await.unwrap_err();
    assert_eq!(kind, ErrorKind::Unusable);
    assert!(why.contains("GET /x: the answer is longer than 10 bytes"), "{why}");
}

#[tokio::test]
async fn a_server_that_stops_is_waited_for_up_to_the_timeout() {
    let url = server(vec![Vec::new(), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n01".to_vec()]);
    for words in ["no answer within", "stopped in the middle"] {
        let (kind, why) = get(&mut client(&url)).await.unwrap_err();
        assert!(kind == ErrorKind::Slow && why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn the_peer_is_named_and_its_text_is_escaped() {
    let url = server(vec![b"\x1b[2J\r\n\r\n".to_vec()]);
    let (kind, why) = get(&mut client(&url)).await.unwrap_err();
    assert!(kind == ErrorKind::Broken && !why.contains('\u{1b}'), "{why}");
    // A port that is closed again.
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let mut client = client(&url);
    let (kind, why) = get(&mut client).await.unwrap_err();
    assert!(kind == ErrorKind::Broken && why.contains("no TCP connection"), "{why}");
    assert_eq!(client.trust(), "INSECURE: no TLS");
}

#[tokio::test]
async fn the_status_is_known_whatever_becomes_of_the_body() {
    let bodies: [&[u8]; 5] = [
        // Cut short; never begun; chunked without a chunk; a bad chunk; too long.
        b"Content-Length: 9\r\nConnection: close\r\n\r\n012",
        b"Content-Length: 9\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Content-Length: 99999999\r\n\r\n",
    ];
    for status in [401, 403, 404, 429, 503, 201] {
        for body in bodies {
            let answer = [format!("HTTP/1.1 {status} Text\r\nRetry-After: 42\r\n").as_bytes(), body].concat();
            let complete = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
            let mut client = client(&server(vec![answer, complete]));
            let response = client.request(&Method::GET, "/x", None, None).await.unwrap();
            assert_eq!((response.status.as_u16(), response.header("retry-after")), (status, Some("42")));
            assert!(response.body.is_err());
            // The rest of it is not taken for the next answer.
            assert_eq!(get(&mut client).await.as_deref(), Ok("ok"));
        }
    }
}
