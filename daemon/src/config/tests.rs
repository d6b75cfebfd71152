//! The configuration: the shipped file, what is refused and how, drop-ins.

use super::*;
use crate::export::guest::{Profile, VsockMode};

/// The shipped file, with every commented key switched on.
fn shipped() -> String {
    let text = include_str!("../../../etc/jouled.toml");
    let is_key = |line: &str| {
        line.starts_with('#') && line[1..].starts_with(|c: char| c.is_ascii_lowercase() || c == '"' || c == '[')
    };
    text.lines().map(|line| if is_key(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jouled.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), |_| {}).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_is_complete() {
    assert_eq!(load("").unwrap().listen, Config::default().listen);
}

#[test]
fn the_shipped_file_changes_only_where_the_host_is_looked_for_and_its_keys_are_all_valid() {
    use crate::meter::host_channel::Connect;
    assert_eq!(load("").unwrap().meter.vsock.connect, Connect::Off);
    assert_eq!(load(include_str!("../../../etc/jouled.toml")).unwrap().meter.vsock.connect, Connect::Auto);
    assert_eq!(load(include_str!("../../../etc/jouled.toml")).unwrap().series.processes, 500);
    let all = load(&shipped()).unwrap();
    assert_eq!(all.node_name.as_deref(), Some("rack3-node7"));
    let known = format!("{:?}", load(&lan("bogus = 1")).unwrap_err());
    for key in known.split("there are ").nth(1).unwrap().trim_end_matches(['"', '\\', 'n']).split(", ") {
        assert!(shipped().contains(&format!("\n{key} = ")) || shipped().contains(&format!("\n# {key} = ")), "{key}");
    }
    assert_eq!(all.floors()["rapl/package-0"], Microwatts(21_500_000));
    assert_eq!(all.export.prometheus, PrometheusOptions::default());
    // The one difference: the installed file uses the host's own devices where they exist.
    assert_eq!((all.export.guest.vsock, GuestConfig::default().vsock), (VsockMode::Auto, VsockMode::Off));
    assert_eq!(all.export.guest.vm.values().next().unwrap().profile, Profile::Trusted);
}

/// Every key that the program knows is in the shipped file: serde names the expected ones when it refuses an unknown
/// one.
#[test]
fn every_key_is_in_the_shipped_file() {
    let shipped = shipped();
    for section in [
        "",
        "meter",
        "meter.rapl",
        "meter.ipmi",
        "meter.vsock",
        "meter.estimate",
        "usage",
        "attribution",
        "learn",
        "series",
        "export",
        "meter.hwmon",
        "meter.nvml",
        "meter.redfish",
        "[meter.redfish.bmc]",
        "export.jobs",
        "export.powercap",
        "export.prometheus",
        "export.guest",
        "export.guest.vm.x",
        "export.guest.acpi",
        "export.dbus",
        "control",
        "inventory",
    ] {
        let text = if section.is_empty() { "bogus = 1".to_string() } else { format!("[{section}]\nbogus = 1") };
        let error = load(&text).unwrap_err();
        assert!(error.contains("jouled.toml") && error.contains("bogus"), "{error}");
        let known = error.split("there are ").nth(1).unwrap();
        for key in known.trim().split(", ") {
            let as_section =
                format!("[{}{key}", if section.is_empty() { String::new() } else { format!("{section}.") });
            assert!(
                shipped.contains(&format!("\n{key} = ")) || shipped.contains(&as_section),
                "{key} of [{section}] is not in etc/jouled.toml"
            );
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let says = |text: &str, words: &[&str]| {
        let error = load(text).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    says("interval = 500", &["interval", "100ms to 60s"]);
    says("interval = \"soon\"", &["jouled.toml: ", "interval", "is not a time"]);
    says("[usage]\nsource = \"magic\"", &["jouled.toml: ", "usage.source", "magic", "procfs"]);
    says("[attribution]\nplatform = \"bmc\"", &["jouled.toml: attribution.platform: \"bmc\" is no", "\"redfish\""]);
    says("[attribution]\nweights = \"watts\"", &["attribution.weights", "watts", "auto, cycles, time, model"]);
    says("[attribution]\nweights = \"model\"\n[learn]\nenabled = false", &["attribution.weights", "[learn]"]);
    says("[series]\nprocesses = \"many\"", &["series.processes", "many"]);
    says("[control]\nmode = \"rw\"", &["control.mode", "octal"]);
    says("[meter.estimate]\npackage_share = 2", &["meter.estimate.package_share", "at most 1"]);
    says(
        "[meter.estimate]\nidle_watts_per_thread = 5\nfull_watts_per_thread = 4",
        &["idle_watts_per_thread", "at most full"],
    );
    says("[meter.estimate]\nidle_watts_per_thread = 50", &["idle_watts_per_thread", "set full_watts_per_thread, too"]);
    says("[meter.estimate]\nfull_watts_per_thread = 1001", &["full_watts_per_thread", "0 to 1000 watts"]);
    let long = format!("/run/{}", "x".repeat(103));
    for (section, key) in [("control", "socket"), ("inventory", "socket"), ("export.models", "estimator")] {
        says(&format!("[{section}]\n{key} = {long:?}"), &[&format!("{section}.{key}"), "107 bytes"]);
        says(&format!("[{section}]\n{key} = \"/run/a\\u0000b\""), &[&format!("{section}.{key}"), "NUL"]);
        assert!(load(&format!("[{section}]\n{key} = {:?}", &long[..107])).is_ok(), "{section}");
    }
    says(&format!("runtime_dir = {:?}", &long[..100]), &["runtime_dir", "room for the names of sockets"]);
    says("state_dir = \"/var/\\u0000\"", &["jouled.toml: state_dir", "NUL"]);
    says("[export.models]\nfolders = [\"/a\", \"/b\\u0000\"]", &["export.models.folders.1", "NUL"]);
    says("[export.guest]\nprofile = \"fine\"", &["export.guest.profile", "fine", "multi-tenant"]);
    says("[export.guest.vm.web]\nprofile = \"fine\"", &["export.guest.vm.web.profile", "fine", "multi-tenant"]);
    says("[export.guest.vm.web]\n", &["export.guest.vm.web", "profile"]);
    says("[export.dbus]\nuse = \"maybe\"", &["export.dbus.use", "maybe", "auto"]);
    says("[export.dbus]\nusers = []", &["export.dbus", "users", "group"]);
    says("[export.guest]\nport = 0", &["export.guest.port", "out of range"]);
    says("[export.guest]\nhybrid = [\"run\"]", &["export.guest.hybrid", "absolute"]);
    says("[export.guest.acpi]\nslot = 32", &["export.guest.acpi.slot", "1 to 31"]);
    says("[export.guest.acpi]\nfolder = \"/run/a,b\"", &["export.guest.acpi.folder", "comma"]);
    for vm in ["../web", ".web", "a b", "a,b", ""] {
        let vms = format!("[export.guest.acpi.vms]\n\"{vm}\" = \"root\"");
        says(&vms, &["export.guest.acpi.vms", "else its UUID"]);
    }
    says("[export.guest.acpi]\nvms = { web = \"\" }", &["export.guest.acpi.vms", "with a user"]);
    says(
        "[[meter.redfish.bmc]]\nurl = \"bmc\"",
        &["jouled.toml: meter.redfish.bmc.0.url: not a URL", "bmc.0.username: ", "bmc.0.password_file: "],
    );
    says("[meter.vsock]\nconnect = \"tcp:1\"", &["meter.vsock.connect", "\"auto\""]);
    says(
        "[meter.hwmon]\nuse = \"always\"",
        &["jouled.toml: meter.hwmon.use: ", "\"always\" is not one of auto, never"],
    );
    says("[meter.nvml]\nlibrary = \"lib.so\"", &["meter.nvml.library: wanted: an absolute path"]);
    says("[meter.ipmi]\nperiod = \"1s\"", &["meter.ipmi.period", "5s to 60s"]);
    says("[meter.ipmi]\ndevice = \"ipmi0\"", &["meter.ipmi.device", "absolute"]);
    says("[export.jobs]\nlog = \"jobs.jsonl\"", &["export.jobs.log", "journal", "absolute"]);
    says("[export.jobs]\nlog = \"/dev/null\"", &["export.jobs.log", "/dev"]);
    says("[export.powercap]\npath = \"sysfs\"", &["export.powercap.path", "absolute"]);
    says("[export.powercap]\npath = \"/sys/x\"", &["export.powercap.path", "/sys"]);
    says("interval = ", &["jouled.toml"]);
}

#[test]
fn no_password_in_the_wrong_place_is_shown() {
    for text in [
        "[meter.redfish]\nbmc = \"hunter2\"",
        "[[meter.redfish.bmc]]\nauth = \"hunter2\"",
        "[[meter.redfish.bmc]]\nchassis = \"hunter2\"",
        "[[meter.ipmi.lan]]\nprivilege = \"hunter2\"",
        "[[meter.ipmi.lan]]\npassword = \"hunter2\"",
        "[[meter.redfish.bmc]]\npassword_file = [\"hunter2\"]",
        "[[meter.redfish.bmc]]\npassword = hunter2\n",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
    ] {
        let error = load(text).unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("jouled.toml: "), "{text}: {error}");
    }
    let long = load(&format!("[usage]\nsource = \"{}\"", "x".repeat(500_000))).unwrap_err();
    assert!(long.len() < 1000, "{}", long.len());
}

/// A BMC over the network, in which one line is another one.
fn lan(line: &str) -> String {
    let key = line.split(' ').next().unwrap();
    let lines = ["name = \"a\"", "address = \"bmc\"", "username = \"u\"", "password_file = \"/p\""];
    let others = lines.into_iter().filter(|other| !other.starts_with(key));
    format!("[[meter.ipmi.lan]]\n{}\n{line}", others.collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_bmc_over_the_network_is_checked_key_by_key() {
    let config = load(&lan("credential = \"c\"").replace("password_file = \"/p\"\n", "")).unwrap();
    assert_eq!(config.meter.ipmi.lan[0].credential.as_deref(), Some("c"));
    for (line, words) in [
        ("name = \"a b\"", &["lan.0.name", "letters"][..]),
        ("address = \"a b\"", &["lan", "is no address"]),
        ("username = \"01234567890123456\"", &["lan.0.username", "16"]),
        ("credential = \"c\"", &["lan.0.password_file", "either"]),
        ("password_file = \"p\"", &["lan.0.password_file", "absolute"]),
        ("privilege = \"root\"", &["privilege", "operator"]),
        ("timeout = \"1m\"", &["lan.0.timeout", "100ms to 3s"]),
    ] {
        let error = load(&lan(line)).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let twice = format!("{}\n{}", lan("name = \"a\""), lan("name = \"a\""));
    assert!(load(&twice).unwrap_err().contains("lan.1.name"));
    // A password that was written here by mistake is not repeated.
    let error = load(&lan("password = \"hunter2\"").replace("password_file = \"/p\"\n", "")).unwrap_err();
    assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
}

#[test]
fn drop_ins_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jouled.toml");
    fs::write(&path, "[series]\nprocesses = 1\nothers = 1").unwrap();
    fs::create_dir(dir.path().join("jouled.toml.d")).unwrap();
    fs::write(dir.path().join("jouled.toml.d/20.toml"), "[series]\nprocesses = 3").unwrap();
    fs::write(dir.path().join("jouled.toml.d/10.toml"), "[series]\nprocesses = 2").unwrap();
    let config = Config::load(Some(&path), |_| {}).unwrap();
    assert_eq!((config.series.processes, config.series.others), (3, 1));
    fs::write(dir.path().join("jouled.toml.d/30.toml"), "[series]\nproceses = 3").unwrap();
    assert!(Config::load(Some(&path), |_| {}).unwrap_err().to_string().contains("30.toml"));
}

#[test]
fn spans() {
    let span = |text: &str| Span::try_from(crate::model::values::SpanText::Text(text.into())).map(|span| span.0.0);
    assert_eq!(span("250ms"), Ok(250_000_000));
    assert_eq!(span("1.5 s"), Ok(1_500_000_000));
    assert_eq!(span("2m"), Ok(120_000_000_000));
    assert!(span("-1s").is_err() && span("1d").is_err() && span("").is_err() && span("1e9h").is_err());
}

#[test]
fn a_limit_of_series_takes_no_guest_its_numbers() {
    let limits = |text: &str| load(text).unwrap().limits().shown[Kind::Vm.index()];
    assert_eq!(limits("[series]\nothers = 3"), 3);
    assert_eq!(limits("[series]\nothers = 3\n[export.guest]\nvsock = \"auto\""), VMS_WITH_CHANNEL);
    assert_eq!(limits("[series]\nothers = 10000\n[export.guest]\nvsock = \"auto\""), 10_000);
}
