//! Tests of the client against small servers that misbehave.

use super::super::fixture;
use super::*;
use crate::model::entity::Kind;
use crate::model::snapshot::KindView;
use std::os::unix::fs::PermissionsExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// A server that answers its connections with `answers`, one each, and then keeps the last one open if `hang`.
pub struct Fake {
    pub client: Client,
    _dir: tempfile::TempDir,
}

pub fn fake(answers: Vec<Vec<u8>>, hang: bool) -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("jouled.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = peer.read(&mut asked).await.unwrap();
            let _ = peer.write_all(&answer).await;
            if hang {
                std::future::pending::<()>().await;
            }
        }
    });
    let client = Client { socket, patience: Duration::from_millis(300), limit: 1 << 20 };
    Fake { client, _dir: dir }
}

fn http(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

pub const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

async fn error(answer: Vec<u8>, hang: bool) -> ClientError {
    fake(vec![answer], hang).client.snapshot().await.unwrap_err()
}

#[tokio::test]
async fn a_snapshot_comes_through() {
    let snapshot = fixture::snapshot();
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(fake(vec![http(&json)], false).client.snapshot().await.unwrap(), snapshot);
    let (a, b) = json.split_at(json.len() / 2);
    let chunked = format!("{CHUNKED}{}{}0\r\n\r\n", chunk(a), chunk(b));
    assert_eq!(fake(vec![chunked.into_bytes()], false).client.snapshot().await.unwrap(), snapshot);
}

#[tokio::test]
async fn nobody_there_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(dir.path().join("jouled.sock"));
    let said = client.snapshot().await.unwrap_err().to_string();
    assert!(
        said.starts_with("jouled is not running (no ") && said.ends_with("systemctl start jouled, or make run"),
        "{said}"
    );
    drop(UnixListener::bind(dir.path().join("jouled.sock")).unwrap());
    assert!(matches!(client.snapshot().await.unwrap_err(), ClientError::Refused(_)));
}

#[tokio::test]
async fn a_closed_door_names_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("jouled.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Root may open everything, so what the kernel would say is said here.
    let said = Client::new(socket).unconnected(io::ErrorKind::PermissionDenied.into());
    assert!(matches!(&said, ClientError::Denied(_, Some(_))), "{said}");
    assert_eq!(group_name("root:x:0:\njouled:x:998:alice,bob\nbad\n", 998).as_deref(), Some("jouled"));
    assert_eq!(group_name("root:x:0:\n", 998), None);
    assert!(ClientError::Denied(PathBuf::new(), Some("jouled".into())).to_string().contains("usermod -aG jouled"));
    assert!(ClientError::Denied(PathBuf::new(), Some("root".into())).to_string().contains("run joulectl as root"));
}

#[tokio::test]
async fn garbage_is_refused() {
    assert!(matches!(error(b"\x00\xff nonsense\r\n\r\n".to_vec(), false).await, ClientError::Broken(..)));
    assert!(matches!(error(Vec::new(), false).await, ClientError::Broken(..)));
    assert!(matches!(error(http("not json \x1b[2J"), false).await, ClientError::OtherVersion(_, None, _)));
    let said = error(b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\nno\x1b[2J".to_vec(), false).await.to_string();
    assert!(said.ends_with("404 Not Found: no\\u{1b}[2J"), "{said}");
}

#[tokio::test]
async fn another_version_is_named() {
    let said = error(http(r#"{"host": {"version": "9.1.0"}, "planets": []}"#), false).await.to_string();
    assert!(said.contains("jouled 9.1.0 and joulectl 0.1.0 do not understand each other"), "{said}");
    let snapshot = serde_json::to_string(&fixture::snapshot()).unwrap();
    let other = error(http(&snapshot.replace("\"zone\":\"package\"", "\"zone\":\"hologram\"")), false).await;
    assert!(matches!(&other, ClientError::OtherVersion(_, Some(_), why) if why.contains("hologram")), "{other}");
}

/// A jouled that has more kinds of entity, or fewer, or in another order.
#[tokio::test]
async fn other_kinds_of_entity_are_no_misunderstanding() {
    let mut snapshot = fixture::snapshot();
    let whole = snapshot.clone();
    assert_eq!(snapshot.kinds.pop().map(|view| view.kind), Some(Kind::Tenant));
    snapshot.kinds.reverse();
    let json = serde_json::to_string(&snapshot).unwrap();
    let empty = serde_json::to_string(&KindView::empty(Kind::Pod)).unwrap();
    let json = json.replace("\"kinds\":[", &format!("\"kinds\":[{},", empty.replace("pod", "robot")));
    assert!(json.contains("robot"));
    let read = fake(vec![http(&json)], false).client.snapshot().await.unwrap();
    assert_eq!(read.kinds, whole.kinds);
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let mut half = http(&serde_json::to_string(&fixture::snapshot()).unwrap());
    half.truncate(half.len() / 2);
    assert!(matches!(error(half.clone(), false).await, ClientError::Broken(..)));
    assert!(matches!(error(half, true).await, ClientError::TimedOut(..)), "and one that never ends is not waited for");
    assert!(matches!(error(Vec::new(), true).await, ClientError::TimedOut(..)));
}

#[tokio::test]
async fn a_flood_is_cut_off() {
    let flood = format!("{CHUNKED}{}", chunk(&" ".repeat(64 << 10)).repeat(20));
    assert!(matches!(error(flood.clone().into_bytes(), true).await, ClientError::TooLarge(..)));
    let server = fake(vec![flood.into_bytes()], true);
    let mut stream = server.client.stream().await.unwrap();
    assert!(matches!(stream.next().await.unwrap_err(), ClientError::TooLarge(..)), "a line without end");
}

#[tokio::test]
async fn a_stream_is_lines_however_they_are_cut() {
    let mut snapshot = fixture::snapshot();
    fixture::host(&mut snapshot).interval = crate::model::units::Nanos(1_000_000);
    let first = serde_json::to_string(&snapshot).unwrap();
    snapshot.ticks += 1;
    let all = format!("{first}\n\n{}\n", serde_json::to_string(&snapshot).unwrap());
    let pieces: String = all.as_bytes().chunks(100).map(|piece| chunk(std::str::from_utf8(piece).unwrap())).collect();
    let server = fake(vec![format!("{CHUNKED}{pieces}").into_bytes()], true);
    let mut stream = server.client.stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().ticks, 50);
    assert_eq!(stream.next().await.unwrap().unwrap().ticks, 51);
    assert!(matches!(stream.next().await.unwrap_err(), ClientError::TimedOut(..)), "no tick any more");

    let server = fake(vec![format!("{CHUNKED}{pieces}0\r\n\r\n").into_bytes()], false);
    let mut stream = server.client.stream().await.unwrap();
    assert!(stream.next().await.unwrap().is_some() && stream.next().await.unwrap().is_some());
    assert!(stream.next().await.unwrap().is_none(), "jouled ended it");
}
