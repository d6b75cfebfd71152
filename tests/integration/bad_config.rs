//! Invalid configurations and arguments, and addresses, folders and files that are in use or missing: jouled ends with
//! a message that names the place, the key and the reason. Not invalid files of the host: those are in bad_input.rs.

use crate::common::{World, bare_jouled, jouled, output, refused, said};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

fn check(config: &Path) -> Command {
    let mut command = bare_jouled();
    command.arg("--check-config").arg("--config").arg(config);
    command
}

fn file(dir: &tempfile::TempDir, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join("jouled.toml");
    fs::write(&path, text).unwrap();
    path
}

/// Checks a message: a line begins with the place of the value and its key, and contains these words.
fn assert_says(message: &str, place: &str, reason: &[&str]) {
    let message = message.strip_prefix("jouled: ").unwrap_or_else(|| panic!("{message}"));
    assert!(message.starts_with(place), "{message:?} does not begin with {place:?}");
    for words in reason {
        assert!(message.contains(words), "{message:?} does not say {words:?}");
    }
}

#[test]
fn every_bad_value_names_file_key_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (text, key, reason) in [
        ("wibble = 1", "wibble", &["no such key", "interval"][..]),
        (
            "[meter]\nradar = 1",
            "meter.radar",
            &["no such key", "rapl, vsock, nvml, hwmon, ipmi, redfish, http, prometheus, snmp, mqtt, nut, estimate"],
        ),
        ("[meter.nvml]\nlibrary = \"libnvidia-ml.so.1\"", "meter.nvml.library", &["wanted", "an absolute path"]),
        ("[meter.nvml]\nuse = \"always\"", "meter.nvml.use", &["\"always\"", "auto, never"]),
        (
            "[meter.vsock]\nconnect = \"vsock:1:28282\"",
            "meter.vsock.connect",
            &["\"vsock:1:28282\"", "\"auto\"", "serial:"],
        ),
        ("[export.powercap]\npath = \"/sys/class\"", "export.powercap.path", &["wanted", "/sys"]),
        ("[[meter.http]]\nname = \"a\"\nurl = \"http://a\"", "meter.http.0.power", &["is missing: a JSON pointer"]),
        ("[[meter.http]]\nname = \"a\"\npreset = \"fritz\"", "meter.http.0.preset", &["\"fritz\"", "home-assistant"]),
        ("[[meter.http]]\nname = \"a\"\nmeasures = \"rack\"", "meter.http.0.measures", &["\"rack\"", "this machine"]),
        ("[meter.estimate]\nfoo = 1", "meter.estimate.foo", &["no such key", "package_share"]),
        ("[meter.rapl]\nvia = \"sideways\"", "meter.rapl.via", &["\"sideways\"", "auto, perf, powercap, off"]),
        ("interval = \"50ms\"", "interval", &["out of range", "100ms to 60s"]),
        ("interval = 5000", "interval", &["out of range", "100ms to 60s"]),
        ("interval = \"soon\"", "interval", &["\"soon\" is not a time", "500ms"]),
        ("interval = true", "interval", &["not a time", "500ms"]),
        ("interval = -1", "interval", &["is not a time"]),
        ("interval = nan", "interval", &["is not a time"]),
        ("listen = \"127.0.0.1:1\"", "listen", &["expected a sequence"]),
        ("listen = [\"nonsense\"]", "listen.0", &["invalid socket address"]),
        ("[usage]\nmax_entries = -1", "usage.max_entries", &["-1"]),
        ("[usage]\nmax_entries = 5", "usage.max_entries", &["out of range", "64 to 1048576"]),
        ("[usage]\nmax_entries = \"many\"", "usage.max_entries", &["\"many\"", "u32"]),
        ("[series]\nprocesses = 99999999", "series.processes", &["0 to 1000000"]),
        ("[series]\nretention = \"25h\"", "series.retention", &["0 to 24h"]),
        ("[series]\nmin_joules = -1", "series.min_joules", &["0 to 1000000 joules"]),
        ("[series]\nmin_joules = nan", "series.min_joules", &["0 to 1000000 joules"]),
        ("[control]\nmode = \"9999\"", "control.mode", &["octal", "0660"]),
        (
            "[attribution.idle_watts]\n\"rapl/package-0\" = -5",
            "attribution.idle_watts.rapl/package-0",
            &["0 to 100000 watts"],
        ),
        ("[attribution]\nidle = \"gone\"", "attribution.idle", &["apart, by-use"]),
        ("[meter.estimate]\npackage_share = 2.0", "meter.estimate.package_share", &["above 0, at most 1"]),
        ("[export.prometheus]\nlevels = [\"planet\"]", "export.prometheus.levels.0", &["\"planet\"", "user-unit"]),
        ("log_level = \"loud\"", "log_level", &["\"loud\"", "error, warn, info"]),
        ("[[tenant]]\nname = \"a\"\nspace = \"b\"", "tenant.0.space", &["no such key", "namespace, pod"]),
        ("[[tenant]]\nslice = \"b\"", "tenant.0", &["missing field `name`"]),
        ("[[tenant]]\nname = \"a\"", "tenant.0.name", &["no condition"]),
        ("[[tenant]]\nname = \"unassigned\"\nslice = \"b\"", "tenant.0.name", &["choose another name"]),
        ("[[tenant]]\nname = \"a\\n\"\nslice = \"b\"", "tenant.0.name", &["control characters"]),
        ("[[tenant]]\nname = \"a\"\nslice = [\"b\", \"x[\"]", "tenant.0.slice.1", &["\"[\" without \"]\""]),
        ("[[tenant]]\nname = \"a\"\nslice = []", "tenant.0.slice", &["an empty list"]),
        ("[[tenant]]\nname = \"a\"\nuser = true", "tenant.0.user", &["a name or pattern, or a list of them"]),
        ("[[tenant]]\nname = \"a\"\nlabel = { \"b.c\" = \"\" }", "tenant.0.label.b.c", &["is empty"]),
        ("[[tenant]]\nname = \"a\"\nslice = \"b\"\nor = [{}]", "tenant.0.or.0", &["no condition"]),
        (
            "[[tenant]]\nname = \"a\"\nslice = \"b\"\n[[tenant]]\nname = \"a\"\nslice = \"c\"",
            "tenant.1.name",
            &["the name of two rules", "[[tenant.or]]"],
        ),
    ] {
        let path = file(&dir, text);
        let message = refused(&mut check(&path));
        assert_says(&message, &format!("{}: {key}: ", path.display()), reason);
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    for text in ["interval = ", "[usage", "[control]\nmode = 0660"] {
        let path = file(&dir, text);
        assert_says(&refused(&mut check(&path)), &format!("{}: ", path.display()), &["TOML parse error at line"]);
    }
    let path = file(&dir, "[series]\nprocesses = 99999999\nothers = 0\n");
    let message = refused(&mut check(&path));
    assert!(message.contains("series.processes") && message.contains("series.others"), "all faults at once: {message}");
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, b"# \xff\xfe\n");
    assert_says(&refused(&mut check(&path)), &format!("{}: ", path.display()), &["UTF-8"]);
    let path = file(&dir, vec![b'#'; 10 << 20]);
    assert_says(
        &refused(&mut check(&path)),
        &format!("{}: 10485760 bytes", path.display()),
        &["is this the right file"],
    );
    let none = dir.path().join("none.toml");
    assert_says(&refused(&mut check(&none)), &format!("{}: ", none.display()), &["No such file"]);
    assert_says(&refused(&mut check(dir.path())), &format!("{}: ", dir.path().display()), &["not a file"]);
}

#[test]
fn faults_in_drop_ins_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "interval = \"2s\"\n");
    let drop_ins = dir.path().join("jouled.toml.d");
    fs::create_dir(&drop_ins).unwrap();
    let drop_in = drop_ins.join("20-b.toml");
    for (text, key, reason) in
        [("interval = \"1ms\"", "interval", "out of range"), ("[usage]\nsauce = 1", "usage.sauce", "no such key")]
    {
        fs::write(&drop_in, text).unwrap();
        assert_says(&refused(&mut check(&path)), &format!("{}: {key}: ", drop_in.display()), &[reason]);
    }
    // The later drop-in wins, and only files that end in .toml are drop-ins.
    fs::write(&drop_in, "interval = \"1ms\"").unwrap();
    fs::write(drop_ins.join("30-c.toml"), "interval = \"1s\"").unwrap();
    fs::write(drop_ins.join("README"), "not for jouled").unwrap();
    assert_eq!(said(output(&mut check(&path))), "the configuration is valid\n");
    fs::remove_dir_all(&drop_ins).unwrap();
    fs::write(&drop_ins, "").unwrap();
    assert_says(&refused(&mut check(&path)), &format!("{}: ", drop_ins.display()), &["Not a directory"]);
}

#[test]
fn faults_in_environment_variables_name_the_variable() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    for (variable, value, reason) in [
        ("JOULED_INTERVAL", "1ms", &["100ms to 60s"][..]),
        ("JOULED_WIBBLE", "1", &["no such key", "node_name"]),
        ("JOULED_USAGE__SOURCE", "magic", &["\"magic\"", "auto, bpf, procfs"]),
        ("JOULED_SERIES__PROCESSES", "x", &["\"x\"", "u32"]),
        ("JOULED_METER__RAPL__WIA", "perf", &["no such key", "via"]),
        ("JOULED_NODE_NAME", "12", &["double quotes"]),
        ("JOULED_PORT", "28283", &["no such key", "listen"]),
        ("JOULED_SERVICE_HOST", "node-1", &["no such key"]),
    ] {
        let message = refused(check(&path).env(variable, value));
        assert_says(&message, &format!("environment variable {variable}: "), reason);
    }
    for (variable, value) in
        [("JOULED_NODE_NAME", "\"12\""), ("JOULED_LISTEN", "[\"127.0.0.1:5\"]"), ("JOULED_SOCKET", "/x")]
    {
        assert_eq!(said(output(check(&path).env(variable, value))), "the configuration is valid\n", "{variable}");
    }
}

/// What Kubernetes sets in a container beside Services of these names; `dashes--twice` is a name, too.
#[test]
fn services_of_kubernetes_are_no_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let of = |name: &str| {
        [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "28282"),
            ("SERVICE_PORT_HTTP_METRICS", "28282"),
            ("PORT", "tcp://10.0.0.1:28282"),
            ("PORT_28282_TCP", "tcp://10.0.0.1:28282"),
            ("PORT_28282_TCP_PROTO", "tcp"),
            ("PORT_28282_TCP_PORT", "28282"),
            ("PORT_28282_TCP_ADDR", "10.0.0.1"),
        ]
        .map(|(key, value)| (format!("{name}_{key}"), value))
    };
    for name in ["JOULED", "JOULED_X", "JOULED_METER", "JOULED_METER__RAPL", "JOULED__X"] {
        let answer = said(output(check(&path).envs(of(name))));
        assert_eq!(answer, "the configuration is valid\n", "{name}");
        let message = refused(check(&path).envs(of(name)).env("JOULED_WIBBLE", "1"));
        assert_says(&message, "environment variable JOULED_WIBBLE: ", &["no such key"]);
    }
    let message = refused(check(&path).envs(of("JOULED")).env("JOULED_PORT", "28283"));
    assert_says(&message, "environment variable JOULED_PORT: ", &["no such key"]);
    assert_eq!(said(output(check(&path).env("JOULED_PORT", "tcp://10.0.0.1:80"))), "the configuration is valid\n");
}

#[test]
fn wrong_arguments_are_code_2() {
    for (arguments, words) in [
        (&["--log-level", "bogus"][..], "error, warn, info, debug, trace"),
        (&["--listen", "here"], "--listen"),
        (&["--wibble"], "--wibble"),
        (&["--replay", "a", "--record", "b"], "--record"),
    ] {
        let output = output(bare_jouled().args(arguments));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(words), "{arguments:?}: {text}");
    }
}

#[test]
fn an_address_or_state_folder_in_use_is_refused() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let message = refused(world.jouled().args(["--listen", &address]));
    assert_says(&message, &format!("cannot listen on {address}: "), &["ss -ltnp", "another port"]);

    let message = refused(world.jouled().args(["--listen", "192.0.2.1:9"]));
    assert_says(&message, "cannot listen on 192.0.2.1:9: ", &["no such address"]);

    let daemon = world.start();
    let message = refused(&mut world.jouled());
    assert!(
        message.contains(world.state.to_str().unwrap()) && message.contains("another jouled is running"),
        "{message}"
    );
    assert!(message.contains("--state-dir"), "{message}");
    daemon.ticks().next();
    daemon.stop();
}

#[test]
fn a_state_folder_that_cannot_be_made_or_used_is_refused() {
    let world = World::new();
    let file = world.state.with_extension("file");
    fs::write(&file, "").unwrap();
    let below = file.join("state");
    let message =
        refused(bare_jouled().args(["--listen", "127.0.0.1:0", "--config"]).arg(&file).arg("--state-dir").arg(&below));
    assert!(message.contains("totals cannot be kept") && message.contains("Not a directory"), "{message}");
    assert!(message.contains(&format!("{}: ", file.display())), "{message}");

    fs::create_dir(&world.state).unwrap();
    fs::write(world.state.join("jouled.sock"), "mine").unwrap();
    let message = refused(&mut world.jouled());
    assert_says(&message, world.state.join("jouled.sock").to_str().unwrap(), &["no socket"]);
    assert_eq!(fs::read(world.state.join("jouled.sock")).unwrap(), b"mine");
}

#[test]
fn a_configured_file_that_is_missing_ends_the_start() {
    let world = World::new();
    world.config("[export]\nweb_config_file = \"/no/such/web.yml\"\n");
    assert_says(&refused(&mut world.jouled()), "/no/such/web.yml: ", &[]);
    world.config("");
    let nothing = world.state.with_extension("proc");
    let message = refused(&mut jouled(&world.host.sysfs(), &nothing, &world.state));
    assert_says(&message, nothing.to_str().unwrap(), &["No such file"]);
}
