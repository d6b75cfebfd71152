//! Against Debian's own snmpd, whose values come from a script (`pass`): versions 2c and 3, every way to sign and to
//! encrypt, wrong users and passwords, a restart.

use super::super::super::entries::until;
use super::*;
use crate::meter::real_programs::{Running, find};
use std::fs;
use std::path::Path;
use std::process::Command;

const BASE: &str = "1.3.6.1.4.1.318.1.1.26.4.3.1";

/// snmpd on a UDP port of its own, with the values of an APC rPDU2 in files.
struct Snmpd {
    dir: tempfile::TempDir,
    program: PathBuf,
    address: String,
    running: Option<Running>,
}

impl Snmpd {
    fn new() -> Option<Self> {
        let program = find("snmpd")?;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        // `pass` runs it with -g OID: it prints the OID, the type and the value.
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = -g ] || exit 0\ncase $2 in\n.{BASE}.5.1) f={power};;\n.{BASE}.9.1) f={energy};;\n\
             *) exit 0;;\nesac\necho \"$2\"; echo gauge; cat \"$f\"\n",
            power = path("power").display(),
            energy = path("energy").display(),
        );
        fs::write(path("values"), script).unwrap();
        let mut config = format!(
            "rocommunity right 127.0.0.1\npass .{BASE} /bin/sh {}\nagentAddress udp:127.0.0.1:PORT\n",
            path("values").display()
        );
        for (name, auth, privacy) in USERS {
            let privacy_words = privacy.map_or_else(String::new, |word| format!(" {word} {PASSWORD}-private"));
            let level = if privacy.is_some() { "priv" } else { "auth" };
            config += &format!("createUser {name} {auth} {PASSWORD}{privacy_words}\nrouser {name} {level}\n");
        }
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(path("snmpd.conf"), config.replace("PORT", &port.to_string())).unwrap();
        fs::write(path("password"), PASSWORD).unwrap();
        fs::write(path("private"), format!("{PASSWORD}-private")).unwrap();
        fs::write(path("wrong"), "another password").unwrap();
        let mut snmpd = Self { dir, program, address: format!("127.0.0.1:{port}"), running: None };
        snmpd.draw(8, 15);
        snmpd.start();
        Some(snmpd)
    }

    fn start(&mut self) {
        self.running = None;
        let state = self.path("state");
        fs::create_dir_all(&state).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["-f", "-Lf"]).arg(self.path("log")).args(["-C", "-c"]).arg(self.path("snmpd.conf"));
        command.args(["-I", "-smux"]).env("SNMP_PERSISTENT_DIR", &state).env("MIBS", "");
        self.running = Some(Running::start(&mut command));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets the power in 10 W and the energy in 0.1 kWh.
    fn draw(&self, power: u32, energy: u32) {
        for (name, value) in [("power", power), ("energy", energy)] {
            let new = self.path("new");
            fs::write(&new, format!("{value}\n")).unwrap();
            fs::rename(new, self.path(name)).unwrap();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

/// Users: name, `auth`, `privacy`, in the words of snmpd.
const USERS: [(&str, &str, Option<&str>); 5] = [
    ("md5", "MD5", None),
    ("sha1", "SHA", Some("AES")),
    ("sha256", "SHA-256", Some("AES")),
    ("sha384", "SHA-384", None),
    ("sha512", "SHA-512", Some("AES")),
];

fn version_3(path: &Path, name: &str, privacy: bool) -> String {
    let auth = if USERS.iter().any(|(user, ..)| *user == name) { name } else { "sha256" };
    let mut lines = format!(
        "preset = \"apc\"\nversion = \"3\"\nusername = \"{name}\"\nauth = \"{auth}\"\npassword_file = {:?}\n",
        path.join("password")
    );
    if privacy {
        lines += &format!("privacy = \"aes128\"\nprivacy_password_file = {:?}\n", path.join("private"));
    }
    lines
}

#[test]
fn a_real_snmpd_by_version_2c_and_3() {
    let Some(mut snmpd) = Snmpd::new() else { return };
    let folder = snmpd.dir.path().to_owned();
    fs::write(folder.join("community"), "right").unwrap();
    let community = |file: &str| format!("preset = \"apc\"\npassword_file = {:?}\n", folder.join(file));
    let mut plain = probe(&snmpd.address, &community("community"));
    let first = until("snmpd", &mut plain, Result::is_ok);
    assert_eq!(numbers(first), (Some(80.0), Some(5.4e6)), "{}", snmpd.log());
    let why = probe(&snmpd.address, &community("wrong")).ask().unwrap_err().why;
    assert!(why.contains("To a wrong community agents do not answer"), "{why}");

    for (name, _, privacy) in USERS {
        let mut probe = probe(&snmpd.address, &version_3(&folder, name, privacy.is_some()));
        for _ in 0..2 {
            assert_eq!(numbers(probe.ask()), (Some(80.0), Some(5.4e6)), "{name}: {}", snmpd.log());
        }
    }
    let wrong = |lines: String| {
        let failure = probe(&snmpd.address, &lines).ask().unwrap_err();
        assert!(!failure.why.contains(PASSWORD), "{failure:?}");
        failure
    };
    let replaced = |from: &str, to: &str| version_3(&folder, "sha256", true).replace(from, to);
    let unknown = wrong(replaced("username = \"sha256\"", "username = \"nobody\""));
    assert!(unknown.kind == FailureKind::Login && unknown.why.contains("no user of this name"), "{unknown:?}");
    let password = wrong(replaced("/password\"", "/wrong\""));
    assert!(password.kind == FailureKind::Login && password.why.contains("wrong password"), "{password:?}");
    let auth = wrong(replaced("auth = \"sha256\"", "auth = \"sha512\""));
    assert!(auth.kind == FailureKind::Login && auth.why.contains("auth is another"), "{auth:?}");
    // snmpd answers a wrong privacy password or not, by version.
    let private = wrong(replaced("/private\"", "/wrong\""));
    assert!(private.why.contains("wrong privacy password"), "{private:?}");
    let level = wrong(version_3(&folder, "md5", true));
    assert!(level.kind == FailureKind::Login && level.why.contains("wants privacy for this user"), "{level:?}");
    let view = wrong(version_3(&folder, "sha256", false));
    assert!(matches!(view.kind, FailureKind::Login | FailureKind::Unusable), "{view:?}");

    // Its clock begins again with a restart.
    let mut probe = probe(&snmpd.address, &version_3(&folder, "sha512", true));
    assert_eq!(numbers(probe.ask()).0, Some(80.0));
    snmpd.draw(12, 16);
    snmpd.start();
    let after = until("snmpd after its restart", &mut probe, Result::is_ok);
    assert_eq!(numbers(after), (Some(120.0), Some(5.76e6)), "{}", snmpd.log());
}
