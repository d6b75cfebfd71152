//! The program against a fake jouled, and a real libvirtd (its test driver, with sockets of its own) where it is
//! installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use virt::connect::Connect;
use virt::sys;

const TIME_LIMIT: Duration = Duration::from_secs(40);

/// A process that is killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

fn program(folder: &Path, uri: &str) -> Process {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jouled-libvirt"));
    command.env_clear().args(["--uri", uri, "--socket"]).arg(folder.join("inventory.sock")).stderr(log);
    Process(command.spawn().unwrap())
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap()
}

/// A fake jouled: the listening end of the inventory socket.
struct FakeJouled {
    lines: BufReader<UnixStream>,
}

impl FakeJouled {
    fn listen(folder: &Path) -> UnixListener {
        let path = folder.join("inventory.sock");
        let _ = std::fs::remove_file(&path);
        UnixListener::bind(path).unwrap()
    }

    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(TIME_LIMIT)).unwrap();
        Self { lines: BufReader::new(stream) }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Reads lines until one is as wanted.
    fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + TIME_LIMIT;
        loop {
            let line = self.line();
            if wanted(&line) {
                return line;
            }
            assert!(Instant::now() < end, "{what}: {line}");
        }
    }
}

fn domains(path: &Path, domains: &[String]) -> String {
    std::fs::write(path, format!("<node>{}</node>", domains.concat())).unwrap();
    format!("test://{}", path.display())
}

fn domain(number: u32, name: &str, more: &str) -> String {
    format!(
        "<domain type='test'><name>{name}</name><uuid>00000000-0000-4000-8000-{number:012}</uuid>{more}<memory>1024</memory>\
         <vcpu>1</vcpu><os><type>hvm</type></os></domain>"
    )
}

#[test]
fn names_of_any_kind_reach_jouled_cut_but_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let long = "n".repeat(10_000);
    let odd = "&quot;..&quot; 'y' &lt;b&gt; ü\u{202e}";
    // libvirt itself keeps and writes the metadata, with prefixes of its own choice.
    let profile = "<metadata><j:guest xmlns:j='https://jouled.org/xmlns/guest/1' profile='off'/>\
        <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>shop-db</nova:name>\
        <nova:flavor name='m1.large'/><nova:owner><nova:user uuid='0a1b'>eve</nova:user>\
        <nova:project uuid='f47a'>demo</nova:project></nova:owner></nova:instance></metadata>";
    let uri =
        domains(&folder.path().join("node.xml"), &[domain(1, &long, ""), domain(2, odd, ""), domain(3, "c", profile)]);
    let listener = FakeJouled::listen(folder.path());
    let _program = program(folder.path(), &uri);
    let line = FakeJouled::accept(&listener).line();
    assert_eq!(
        (&line["v"], &line["source"], &line["uri"], &line["health"]),
        (&2.into(), &"libvirt".into(), &uri.into(), &"ok".into())
    );
    assert_eq!(line["machines"].as_array().unwrap().len(), 3);
    assert_eq!(line["machines"][0]["name"].as_str().unwrap(), &long[..256]);
    assert_eq!(line["machines"][1]["name"], "\"..\" 'y' <b> ü\u{202e}");
    assert_eq!(
        (&line["machines"][2]["title"], &line["machines"][2]["labels"]),
        (
            &"shop-db".into(),
            &serde_json::json!({
                "project": "demo", "project_id": "f47a", "user": "eve", "user_id": "0a1b", "flavor": "m1.large"
            })
        )
    );
    assert!(line["machines"][0].get("labels").is_none());
    assert_eq!((&line["machines"][2]["profile"], &line["machines"][2]["state"]), (&"off".into(), &"running".into()));
}

#[test]
fn a_restarted_jouled_gets_every_machine_again() {
    let folder = tempfile::tempdir().unwrap();
    let uri = domains(&folder.path().join("node.xml"), &[domain(1, "a", "")]);
    // It may start before jouled does.
    let _program = program(folder.path(), &uri);
    std::thread::sleep(Duration::from_millis(300));
    let listener = FakeJouled::listen(folder.path());
    let mut first = FakeJouled::accept(&listener);
    assert_eq!(first.line()["machines"][0]["name"], "a");
    let began = Instant::now();
    assert_eq!(first.line().get("machines"), None, "a heartbeat");
    assert!((8..40).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    first.lines.get_mut().write_all(b"there are \x1b[31m4 connections\n").unwrap();
    drop((first, listener));
    let listener = FakeJouled::listen(folder.path());
    assert_eq!(FakeJouled::accept(&listener).line()["machines"][0]["name"], "a");
    assert!(log(folder.path()).contains("jouled says: there are  [31m4 connections"), "{}", log(folder.path()));
}

/// Starts libvirtd with its sockets in `folder`; prints the reason where it cannot (`None`).
fn libvirtd(folder: &Path) -> Option<Process> {
    let config = folder.join("libvirtd.conf");
    let text = format!(
        "unix_sock_dir = \"{}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nlog_outputs = \"4:stderr\"\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("libvirtd");
    command
        .arg("--config")
        .arg(&config)
        .arg("--pid-file")
        .arg(folder.join("pid"))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    // Its own state goes there, too.
    command
        .env("HOME", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .env("XDG_CONFIG_HOME", folder)
        .env("XDG_CACHE_HOME", folder);
    let process = match command.spawn() {
        Ok(child) => Process(child),
        Err(error) => {
            println!("skipped: libvirtd: {error}");
            return None;
        }
    };
    let end = Instant::now() + TIME_LIMIT;
    while Connect::open(Some(&uri(folder))).is_err() {
        assert!(Instant::now() < end, "libvirtd does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(process)
}

fn uri(folder: &Path) -> String {
    format!("test+unix:///default?socket={}", folder.join("libvirt-sock").display())
}

#[test]
fn a_libvirtd_that_hangs_is_killed_and_starts_again() {
    virt::error::clear_error_callback();
    let folder = tempfile::tempdir().unwrap();
    let Some(first) = libvirtd(folder.path()) else { return };
    let listener = FakeJouled::listen(folder.path());
    let _program = program(folder.path(), &uri(folder.path()));
    let mut jouled = FakeJouled::accept(&listener);
    assert_eq!(jouled.line()["machines"][0]["name"], "test");
    let has = |line: &Value, name: &str| {
        line["machines"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == name))
    };

    let writer = Connect::open(Some(&uri(folder.path()))).unwrap();
    let vsock = "<devices><vsock model='virtio'><cid auto='no' address='42'/></vsock></devices>";
    let made = writer.create_domain_xml(&domain(1, "web", vsock), sys::VIR_DOMAIN_NONE).unwrap();
    let began = Instant::now();
    let line = jouled.find("an event of another client", |line| has(line, "web"));
    // Without events it would come with a later full list.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let web = line["machines"].as_array().unwrap().iter().find(|one| one["name"] == "web").unwrap();
    assert_eq!(web["cid"], 42);
    drop((made, writer));

    // It is stopped in the middle of its work, and continued later.
    first.signal("-STOP");
    let hung = jouled.find("it hangs", |line| line["health"] != "ok");
    assert!(hung["health"].as_str().unwrap().contains("does not answer"), "{hung}");
    first.signal("-CONT");
    jouled.find("it goes on", |line| line["health"] == "ok" && has(line, "test"));

    drop(first);
    let gone = jouled.find("it is killed", |line| line["health"] != "ok");
    assert!(has(&gone, "test") && gone["machines"][0].get("cid").is_none(), "{gone}");
    // The error is repeated with the heartbeat.
    let beat = jouled.line();
    assert_ne!(beat["health"], "ok");
    let _second = libvirtd(folder.path()).unwrap();
    let back = jouled.find("it is back", |line| line["health"] == "ok");
    assert!(has(&back, "test") && !has(&back, "web"), "{back}");
}

/// A libvirt that accepts the connection and never answers: libvirt's library waits forever.
#[test]
fn a_libvirt_that_never_answers_is_reported_and_ends_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let mute: PathBuf = folder.path().join("libvirt-sock");
    let _mute = UnixListener::bind(mute).unwrap();
    let listener = FakeJouled::listen(folder.path());
    let began = Instant::now();
    let mut program = program(folder.path(), &uri(folder.path()));
    let mut jouled = FakeJouled::accept(&listener);
    let line = jouled.line();
    assert_eq!((&line["health"], line["machines"].as_array().map(Vec::len)), (&"does not answer".into(), Some(0)));
    assert!((14..32).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let code = loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            break status.code();
        }
        assert!(began.elapsed() < Duration::from_secs(80), "it does not end");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(code, Some(1));
    assert!(log(folder.path()).contains("has not answered for 60s"), "{}", log(folder.path()));
}

#[test]
fn invalid_arguments_are_refused() {
    let refused = |uri: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_jouled-libvirt")).args(["--uri", uri]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("").contains("not a connection URI"));
    assert!(refused("qemu:///\n\u{1b}").contains("\\n\\u{1b}"));
}
