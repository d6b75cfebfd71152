//! Folders that others can write to: links, files, names, helpers, virtio-serial ports.

use super::*;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;

fn trusted() -> GuestConfig {
    GuestConfig { profile: Profile::Trusted, ..GuestConfig::default() }
}

fn hybrid(dir: &Path) -> GuestConfig {
    GuestConfig { hybrid: vec![dir.to_owned()], ..trusted() }
}

/// Everything below a folder.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(tree(&entry.path()));
        }
        all.push(entry.path().strip_prefix(dir).unwrap().to_owned());
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_link_or_file_where_the_socket_should_be_stays_as_it_is() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let precious = outside.path().join("precious");
    std::fs::write(&precious, "mine").unwrap();
    let names = ["link", "dangling", "file", "folder"];
    let _vmms = names.map(|name| StdListener::bind(dir.path().join(name)).unwrap());
    symlink(&precious, dir.path().join("link_28282")).unwrap();
    symlink(outside.path().join("new"), dir.path().join("dangling_28282")).unwrap();
    std::fs::write(dir.path().join("file_28282"), "file").unwrap();
    std::fs::create_dir(dir.path().join("folder_28282")).unwrap();
    let before = tree(dir.path());
    let server = Server::start(hybrid(dir.path()), Host::new([vm(1)]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(tree(dir.path()), before);
    assert_eq!(tree(outside.path()), [PathBuf::from("precious")]);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    server.end().await;
    assert_eq!(tree(dir.path()), before);
    assert_eq!(std::fs::read_to_string(dir.path().join("file_28282")).unwrap(), "file");
}

#[tokio::test]
async fn links_to_sockets_and_folders_are_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _vmm = StdListener::bind(outside.path().join("vm.vsock")).unwrap();
    symlink(outside.path().join("vm.vsock"), dir.path().join("linked.vsock")).unwrap();
    symlink(outside.path(), dir.path().join("linked")).unwrap();
    let named = dir.path().join("named");
    symlink(outside.path(), &named).unwrap();
    let config = GuestConfig { hybrid: vec![dir.path().to_owned(), named], ..trusted() };
    let server = Server::start(config, Host::new([vm(1)]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(tree(outside.path()), [PathBuf::from("vm.vsock")], "nothing is made where nobody named it");
    server.end().await;
}

#[tokio::test]
async fn a_socket_replaced_by_a_link_while_it_is_served_is_not_removed_with_the_rest() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _vmm = StdListener::bind(dir.path().join("vm.vsock")).unwrap();
    let door = dir.path().join("vm.vsock_28282");
    let server = Server::start(hybrid(dir.path()), Host::new([vm(1)]));
    drop(dial(&door).await);
    let precious = outside.path().join("precious");
    std::fs::write(&precious, "mine").unwrap();
    std::fs::remove_file(&door).unwrap();
    symlink(&precious, &door).unwrap();
    server.end().await;
    assert_eq!(std::fs::read_link(&door).unwrap(), precious);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let _vmms = ["stale", "used"].map(|name| StdListener::bind(dir.path().join(name)).unwrap());
    drop(StdListener::bind(dir.path().join("stale_28282")).unwrap());
    let other = StdListener::bind(dir.path().join("used_28282")).unwrap();
    other.set_nonblocking(true).unwrap();
    let mut below = vm(1);
    below.name = "web".into();
    let server = Server::start(hybrid(dir.path()), Host::new([below]));
    let mut status = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Ok(io) = UnixStream::connect(dir.path().join("stale_28282")).await {
            status = get(io, "/v1/energy").await.0;
            break;
        }
    }
    assert_eq!(status, 200);
    // It was asked whether it lives, and no more.
    while let Ok((mut io, _)) = other.accept() {
        use std::io::Read;
        assert_eq!(io.read(&mut [0]).unwrap_or(0), 0);
    }
    let doors = server.guests.list();
    assert_eq!((doors[0].channel.as_str(), doors[0].peer.ends_with("stale_28282")), ("hybrid", true));
    server.end().await;
    assert!(dir.path().join("used_28282").exists() && !dir.path().join("stale_28282").exists());
}

#[tokio::test]
async fn the_socket_goes_with_the_vm_and_comes_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("of-vm");
    std::fs::create_dir(&below).unwrap();
    let _vmm = StdListener::bind(below.join("v.sock")).unwrap();
    let door = below.join("v.sock_28282");
    let mut server = Server::start(hybrid(dir.path()), Host::new([vm(1)]));
    drop(dial(&door).await);
    server.host.vms.clear();
    server.host.meet();
    server.tick(1000);
    for _ in 0..100 {
        if !door.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!door.exists());
    server.host.vms.insert(0, (vm(2), 7_000));
    server.host.meet();
    server.tick(1000);
    let (_, body) = get(dial(&door).await, "/v1/energy").await;
    assert!(body.contains("\"vm2\"") && body.contains("7000"), "{body}");
    server.end().await;
}

#[tokio::test]
async fn a_port_of_virtio_serial_is_fed_and_other_sockets_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let of_vm = dir.path().join("domain-1-web");
    std::fs::create_dir(&of_vm).unwrap();
    let port = tokio::net::UnixListener::bind(of_vm.join("org.jouled.0")).unwrap();
    let agent = StdListener::bind(of_vm.join("org.qemu.guest_agent.0")).unwrap();
    agent.set_nonblocking(true).unwrap();
    let mut host = Host::new([Vm { vmm: Vmm::Qemu, ..vm(1) }]);
    host.charge(0, 5_000_000);
    let config = GuestConfig { serial: vec![dir.path().to_owned()], ..trusted() };
    let mut server = Server::start(config, host);
    // The first one asks who listens, the second one speaks.
    let io = loop {
        let (mut io, _) = port.accept().await.unwrap();
        if tokio::time::timeout(Duration::from_secs(5), io.read(&mut [0])).await.expect("nothing comes").unwrap() == 1 {
            break io;
        }
    };
    // It was not read: the next ones are dropped, not kept.
    for _ in 0..100 {
        server.host.charge(0, 1_000_000);
        server.tick(1000);
        settle().await;
    }
    let mut lines = BufReader::new(io).lines();
    let first = format!("{{{}", lines.next_line().await.unwrap().unwrap());
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["zones"][0]["energy_uj"], 5_000_000);
    server.host.charge(0, 1_000_000);
    server.tick(1000);
    let next: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(next["zones"][0]["energy_uj"], 106_000_000, "nothing is queued, and nothing lost");
    assert_eq!(server.guests.list()[0].channel, "serial");
    assert!(agent.accept().is_err(), "nobody touched the guest agent's");
    server.end().await;
    assert!(lines.next_line().await.unwrap().is_none());
}

/// Another process: this program again, under another name, which does what its variables say.
struct Other(std::process::Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Other {
    fn start(name: &str, listen: &[&Path], words: &[&str]) -> Self {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let paths: Vec<_> = listen.iter().map(|path| path.to_str().unwrap()).collect();
        command
            .arg0(name)
            .args(["export::guest::tests::folders::another_process", "--exact", "--nocapture", "--"])
            .args(words);
        command
            .env("GUEST_TEST_LISTEN", paths.join(":"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// What it gets when it connects and asks.
    async fn ask(mut self, door: &Path) -> String {
        use std::io::{Read, Write};
        let door = door.to_str().unwrap().to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            writeln!(self.0.stdin.take().unwrap(), "{door}").unwrap();
            let mut said = String::new();
            self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            said
        });
        tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().unwrap()
    }
}

/// What [`Other`] does. Nothing, unless it is one.
#[test]
fn another_process() {
    use std::io::{Read, Write};
    let Ok(listen) = std::env::var("GUEST_TEST_LISTEN") else { return };
    let _listeners: Vec<_> =
        listen.split(':').filter(|path| !path.is_empty()).map(|path| StdListener::bind(path).unwrap()).collect();
    let mut door = String::new();
    io::stdin().read_line(&mut door).unwrap();
    let Ok(mut io) = std::os::unix::net::UnixStream::connect(door.trim()) else { return };
    let _ = io.write_all(b"GET /v1/energy HTTP/1.0\r\n\r\n");
    let mut said = String::new();
    let _ = io.read_to_string(&mut said);
    println!("answer: {said}");
}

#[tokio::test]
async fn a_process_that_is_not_the_vms_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let _vmm = StdListener::bind(dir.path().join("vm.vsock")).unwrap();
    let door = dir.path().join("vm.vsock_28282");
    let server = Server::start(hybrid(dir.path()), Host::new([vm(1)]));
    drop(dial(&door).await);
    // Of the same user.
    let said = Other::start("other", &[], &[]).ask(&door).await;
    assert!(said.contains("answer: ") && !said.contains("HTTP"), "{said}");
    let refused = server.guests.totals().unwrap().refused;
    assert!(refused.contains(&("process", 1)), "{refused:?}");
    server.end().await;
}

#[tokio::test]
async fn a_vhost_user_helper_speaks_for_its_vm_unless_it_erases_who() {
    for (forwards, removes, served) in [(false, false, true), (false, true, true), (true, false, false)] {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("x");
        std::fs::create_dir(&below).unwrap();
        let (uds, socket) = (below.join("vm.vsock"), dir.path().join("vhost.sock"));
        let pair = format!("guest-cid=4,uds-path={},socket={}", uds.display(), socket.display());
        let words = ["--vm", &pair, "--forward-cid=1"];
        let helper =
            Other::start("/usr/bin/vhost-device-vsock", &[&uds, &socket], &words[..if forwards { 3 } else { 2 }]);
        while !socket.exists() {
            settle().await;
        }
        // vhost-device-vsock does, once the VMM has connected.
        if removes {
            std::fs::remove_file(&socket).unwrap();
        }
        let qemu = Vm { vmm: Vmm::Qemu, vhost_user: vec![socket.to_str().unwrap().into()], ..vm(3) };
        // Anybody may start what claims the same.
        let impostor = Vm { vmm: Vmm::Qemu, vhost_user: qemu.vhost_user.clone(), vouched: false, ..vm(1) };
        let mut host = Host::new([impostor, qemu, Vm { vmm: Vmm::Qemu, ..vm(4) }]);
        host.charge(1, 33_000);
        let server = Server::start(hybrid(&below), host);
        let door = below.join("vm.vsock_28282");
        if served {
            // This process is not the helper.
            assert!(closed(dial(&door).await).await);
            let said = helper.ask(&door).await;
            assert!(said.contains("\"vm3\"") && said.contains("33000"), "{said}");
        } else {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!door.exists());
        }
        server.end().await;
    }
}

#[tokio::test]
async fn a_helper_of_a_socket_that_two_vms_claim_speaks_for_neither() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("x");
    std::fs::create_dir(&below).unwrap();
    let (uds, socket) = (below.join("vm.vsock"), dir.path().join("vhost.sock"));
    let pair = format!("uds-path={},socket={}", uds.display(), socket.display());
    let _helper = Other::start("/usr/bin/vhost-device-vsock", &[&uds, &socket], &["--vm", &pair]);
    while !socket.exists() {
        settle().await;
    }
    let claims =
        |vm: Vm| Vm { vmm: Vmm::Qemu, vhost_user: vec![socket.to_str().unwrap().into()], vouched: false, ..vm };
    let server = Server::start(hybrid(&below), Host::new([claims(vm(3)), claims(vm(4))]));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!below.join("vm.vsock_28282").exists());
    server.end().await;
}

#[test]
fn a_process_id_that_is_used_again_inherits_no_socket() {
    let guests = guests(trusted()).0;
    // SAFETY: no arguments.
    let (pid, uid) = (std::process::id(), rustix::process::geteuid().as_raw());
    assert!(guests.runs_as(pid, uid) && guests.runs_as(pid, 0));
    assert!(!guests.runs_as(pid, uid + 1) && !guests.runs_as(u32::MAX, uid + 1));
}

#[test]
fn no_more_folders_are_open_than_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..folder::BELOW + 100 {
        std::fs::create_dir(dir.path().join(number.to_string())).unwrap();
    }
    assert_eq!(folder::Folder::open(dir.path()).unwrap().list().unwrap().1.len(), 1024);
}
