//! Hybrid sockets in real folders. This process is the VMM.

use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

struct Rig {
    dir: tempfile::TempDir,
    uds: std::path::PathBuf,
    door: std::path::PathBuf,
    _vmm: std::os::unix::net::UnixListener,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let uds = dir.path().join("vm.vsock");
    let vmm = std::os::unix::net::UnixListener::bind(&uds).unwrap();
    Rig { door: dir.path().join("vm.vsock_28282"), uds, _vmm: vmm, dir }
}

fn config(rig: &Rig) -> GuestConfig {
    GuestConfig { hybrid: vec![rig.dir.path().to_owned()], profile: Profile::Trusted, ..GuestConfig::default() }
}

#[tokio::test]
async fn a_guest_reads_its_energy_and_the_socket_goes_with_the_daemon() {
    let rig = rig();
    let mut host = Host::new([vm(1)]);
    host.charge(0, 1_234_567);
    let mut server = Server::start(config(&rig), host);
    let (status, body) = get(dial(&rig.door).await, "/v1/energy").await;
    assert_eq!(status, 200, "{body}");
    let object: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(object["vm"]["name"], "vm1");
    assert_eq!(object["zones"][0]["energy_uj"], 1_234_000, "to the quantum: {object}");
    let of = std::fs::symlink_metadata(&rig.door).unwrap();
    assert!(of.file_type().is_socket() && of.mode() & 0o777 == 0o600);

    let mut stream = Stream::open(dial(&rig.door).await).await;
    assert_eq!(stream.next().await.unwrap()["epoch"], object["epoch"]);
    server.host.charge(0, 433);
    server.tick(1000);
    let next = stream.next().await.unwrap();
    assert_eq!(next["zones"][0]["energy_uj"], 1_235_000, "what was less than a quantum comes later");
    assert_eq!(next["epoch"].as_u64().unwrap(), object["epoch"].as_u64().unwrap() + 1);
    server.end().await;
    assert!(!rig.door.exists() && rig.uds.exists());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_socket_that_is_removed_is_made_again() {
    let rig = rig();
    let mut host = Host::new([vm(1)]);
    host.charge(0, 1_234_567);
    let server = Server::start(config(&rig), host);
    assert_eq!(get(dial(&rig.door).await, "/v1/energy").await.0, 200);
    std::fs::remove_file(&rig.door).unwrap();
    let there = async {
        while !rig.door.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), there).await.unwrap();
    let (status, body) = get(dial(&rig.door).await, "/v1/energy").await;
    assert_eq!(status, 200, "{body}");
    // Another program's file in its place stays.
    std::fs::remove_file(&rig.door).unwrap();
    std::fs::write(&rig.door, "kept").unwrap();
    server.end().await;
    assert_eq!(std::fs::read_to_string(&rig.door).unwrap(), "kept");
}
