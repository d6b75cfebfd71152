//! What a reload restarts, key by key. The keys are those of etc/jouled.toml, which tests/integration/man.rs holds to
//! what jouled takes.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const MEASURING: &str = "measuring";
const GUESTS: &str = "guest channel";
const PAGE: &str = "metrics page";
const CONTROL: &str = "joulectl's socket";
const INVENTORY: &str = "inventory socket";
const MACHINED: &str = "systemd-machined";
const MIRROR: &str = "powercap mirror";
const ESTIMATOR: &str = "estimator's socket";
const JOBS: &str = "job log";
const HISTORY: &str = "history";
const PUSH: &str = "push";
const BUS: &str = "org.jouled1 on the bus";
/// The metrics page and joulectl's socket show the VMs of the guest channel.
const CHANNEL: &[&str] = &[GUESTS, PAGE, CONTROL];
/// Opening the guest channel gives every VM a series, so the sampler restarts too.
const CHANNEL_OPENS: &[&str] = &[MEASURING, GUESTS, PAGE, CONTROL];

/// Section, key, a value that is not the default, and what a reload with it restarts. A section in `[[…]]` is a list.
const KEYS: &[(&str, &str, &str, &[&str])] = &[
    ("", "interval", r#""2s""#, &[MEASURING]),
    ("", "node_name", r#""other""#, &[MEASURING]),
    ("", "listen", r#"["127.0.0.1:1"]"#, &[PAGE]),
    ("", "state_dir", r#""/run/other""#, &[MEASURING, HISTORY]),
    ("", "runtime_dir", r#""/run/other""#, &[MEASURING, CONTROL, INVENTORY]),
    ("", "sysfs", r#""/run/other""#, &[MEASURING]),
    ("", "procfs", r#""/run/other""#, &[MEASURING, GUESTS, PAGE, CONTROL, BUS]),
    // Every reload sets the level.
    ("", "log_level", r#""debug""#, &[]),
    ("meter.rapl", "via", r#""perf""#, &[MEASURING]),
    ("meter.rapl", "dram_billed", "true", &[MEASURING]),
    ("meter.hwmon", "use", r#""never""#, &[MEASURING]),
    ("meter.nvml", "use", r#""never""#, &[MEASURING]),
    ("meter.nvml", "library", r#""/usr/lib/libnvidia-ml.so.2""#, &[MEASURING]),
    ("meter.ipmi", "use", r#""never""#, &[MEASURING]),
    ("meter.ipmi", "device", r#""/dev/ipmi1""#, &[MEASURING]),
    ("meter.ipmi", "period", r#""20s""#, &[MEASURING]),
    ("[meter.ipmi.lan]", "name", r#""other""#, &[MEASURING]),
    ("[meter.ipmi.lan]", "address", r#""192.0.2.11""#, &[MEASURING]),
    ("[meter.ipmi.lan]", "username", r#""other""#, &[MEASURING]),
    ("[meter.ipmi.lan]", "password_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.ipmi.lan]", "credential", r#""other""#, &[MEASURING]),
    ("[meter.ipmi.lan]", "privilege", r#""operator""#, &[MEASURING]),
    ("[meter.ipmi.lan]", "timeout", r#""1s""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "name", r#""other""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "url", r#""https://192.0.2.11""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "username", r#""other""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "password_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "credential", r#""other""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "auth", r#""basic""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "tls", r#""insecure""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "ca_file", r#""/etc/other""#, &[MEASURING]),
    (
        "[meter.redfish.bmc]",
        "sha256",
        r#""1111111111111111111111111111111111111111111111111111111111111111""#,
        &[MEASURING],
    ),
    ("[meter.redfish.bmc]", "chassis", r#"["other"]"#, &[MEASURING]),
    ("[meter.redfish.bmc]", "period", r#""20s""#, &[MEASURING]),
    ("[meter.redfish.bmc]", "timeout", r#""1s""#, &[MEASURING]),
    ("[meter.http]", "name", r#""other""#, &[MEASURING]),
    ("[meter.http]", "url", r#""https://192.0.2.11""#, &[MEASURING]),
    ("[meter.http]", "preset", r#""shelly""#, &[MEASURING]),
    ("[meter.http]", "measures", r#""this machine""#, &[MEASURING]),
    ("[meter.http]", "share", "0.5", &[MEASURING]),
    ("[meter.http]", "scale", "2.0", &[MEASURING]),
    ("[meter.http]", "power", r#""/other""#, &[MEASURING]),
    ("[meter.http]", "energy", r#""/other""#, &[MEASURING]),
    ("[meter.http]", "time", r#""/other""#, &[MEASURING]),
    ("[meter.http]", "power_unit", r#""kW""#, &[MEASURING]),
    ("[meter.http]", "energy_unit", r#""Wh""#, &[MEASURING]),
    ("[meter.http]", "channel", "1", &[MEASURING]),
    ("[meter.http]", "auth", r#""digest""#, &[MEASURING]),
    ("[meter.http]", "username", r#""other""#, &[MEASURING]),
    ("[meter.http]", "password_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.http]", "credential", r#""other""#, &[MEASURING]),
    ("[meter.http]", "tls", r#""insecure""#, &[MEASURING]),
    ("[meter.http]", "ca_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.http]", "sha256", r#""1111111111111111111111111111111111111111111111111111111111111111""#, &[MEASURING]),
    ("[meter.http]", "period", r#""20s""#, &[MEASURING]),
    ("[meter.http]", "timeout", r#""1s""#, &[MEASURING]),
    ("[meter.prometheus]", "name", r#""other""#, &[MEASURING]),
    ("[meter.prometheus]", "url", r#""https://192.0.2.11""#, &[MEASURING]),
    ("[meter.prometheus]", "from", r#""page""#, &[MEASURING]),
    ("[meter.prometheus]", "measures", r#""this machine""#, &[MEASURING]),
    ("[meter.prometheus]", "share", "0.5", &[MEASURING]),
    ("[meter.prometheus]", "scale", "2.0", &[MEASURING]),
    ("[meter.prometheus]", "power", r#""other""#, &[MEASURING]),
    ("[meter.prometheus]", "energy", r#""other""#, &[MEASURING]),
    ("[meter.prometheus]", "power_unit", r#""kW""#, &[MEASURING]),
    ("[meter.prometheus]", "energy_unit", r#""Wh""#, &[MEASURING]),
    ("[meter.prometheus]", "auth", r#""digest""#, &[MEASURING]),
    ("[meter.prometheus]", "username", r#""other""#, &[MEASURING]),
    ("[meter.prometheus]", "password_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.prometheus]", "credential", r#""other""#, &[MEASURING]),
    ("[meter.prometheus]", "tls", r#""insecure""#, &[MEASURING]),
    ("[meter.prometheus]", "ca_file", r#""/etc/other""#, &[MEASURING]),
    (
        "[meter.prometheus]",
        "sha256",
        r#""1111111111111111111111111111111111111111111111111111111111111111""#,
        &[MEASURING],
    ),
    ("[meter.prometheus]", "period", r#""20s""#, &[MEASURING]),
    ("[meter.prometheus]", "timeout", r#""1s""#, &[MEASURING]),
    ("[meter.snmp]", "name", r#""other""#, &[MEASURING]),
    ("[meter.snmp]", "address", r#""192.0.2.11""#, &[MEASURING]),
    ("[meter.snmp]", "version", r#""3""#, &[MEASURING]),
    ("[meter.snmp]", "preset", r#""hpe""#, &[MEASURING]),
    ("[meter.snmp]", "pdu", "2", &[MEASURING]),
    ("[meter.snmp]", "inlet", "2", &[MEASURING]),
    ("[meter.snmp]", "outlet", "2", &[MEASURING]),
    ("[meter.snmp]", "sensor", "2", &[MEASURING]),
    ("[meter.snmp]", "power", r#""1.3.6.1.4.1.99.1""#, &[MEASURING]),
    ("[meter.snmp]", "energy", r#""1.3.6.1.4.1.99.2""#, &[MEASURING]),
    ("[meter.snmp]", "power_unit", r#""kW""#, &[MEASURING]),
    ("[meter.snmp]", "energy_unit", r#""kWh""#, &[MEASURING]),
    ("[meter.snmp]", "power_scale", "2.0", &[MEASURING]),
    ("[meter.snmp]", "energy_scale", "2.0", &[MEASURING]),
    ("[meter.snmp]", "username", r#""other""#, &[MEASURING]),
    ("[meter.snmp]", "auth", r#""sha512""#, &[MEASURING]),
    ("[meter.snmp]", "password_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.snmp]", "credential", r#""other""#, &[MEASURING]),
    ("[meter.snmp]", "privacy", r#""aes256""#, &[MEASURING]),
    ("[meter.snmp]", "privacy_password_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.snmp]", "privacy_credential", r#""other""#, &[MEASURING]),
    ("[meter.snmp]", "measures", r#""this machine""#, &[MEASURING]),
    ("[meter.snmp]", "share", "0.5", &[MEASURING]),
    ("[meter.snmp]", "scale", "2.0", &[MEASURING]),
    ("[meter.snmp]", "period", r#""20s""#, &[MEASURING]),
    ("[meter.snmp]", "timeout", r#""1s""#, &[MEASURING]),
    ("[meter.mqtt]", "name", r#""other""#, &[MEASURING]),
    ("[meter.mqtt]", "broker", r#""mqtts://192.0.2.11""#, &[MEASURING]),
    ("[meter.mqtt]", "topic", r#""other""#, &[MEASURING]),
    ("[meter.mqtt]", "power", r#""/other""#, &[MEASURING]),
    ("[meter.mqtt]", "energy", r#""/other""#, &[MEASURING]),
    ("[meter.mqtt]", "time", r#""/other""#, &[MEASURING]),
    ("[meter.mqtt]", "power_unit", r#""kW""#, &[MEASURING]),
    ("[meter.mqtt]", "energy_unit", r#""Wh""#, &[MEASURING]),
    ("[meter.mqtt]", "username", r#""other""#, &[MEASURING]),
    ("[meter.mqtt]", "password_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.mqtt]", "credential", r#""other""#, &[MEASURING]),
    ("[meter.mqtt]", "tls", r#""insecure""#, &[MEASURING]),
    ("[meter.mqtt]", "ca_file", r#""/etc/other""#, &[MEASURING]),
    ("[meter.mqtt]", "sha256", r#""1111111111111111111111111111111111111111111111111111111111111111""#, &[MEASURING]),
    ("[meter.mqtt]", "measures", r#""this machine""#, &[MEASURING]),
    ("[meter.mqtt]", "share", "0.5", &[MEASURING]),
    ("[meter.mqtt]", "scale", "2.0", &[MEASURING]),
    ("[meter.mqtt]", "period", r#""20s""#, &[MEASURING]),
    ("[meter.mqtt]", "timeout", r#""1s""#, &[MEASURING]),
    ("[meter.nut]", "name", r#""other""#, &[MEASURING]),
    ("[meter.nut]", "address", r#""192.0.2.11""#, &[MEASURING]),
    ("[meter.nut]", "ups", r#""other""#, &[MEASURING]),
    ("[meter.nut]", "variable", r#""outlet.1.realpower""#, &[MEASURING]),
    ("[meter.nut]", "measures", r#""this machine""#, &[MEASURING]),
    ("[meter.nut]", "share", "0.5", &[MEASURING]),
    ("[meter.nut]", "scale", "2.0", &[MEASURING]),
    ("[meter.nut]", "period", r#""20s""#, &[MEASURING]),
    ("[meter.nut]", "timeout", r#""1s""#, &[MEASURING]),
    ("meter.vsock", "connect", r#""auto""#, &[MEASURING]),
    ("meter.estimate", "use", r#""always""#, &[MEASURING]),
    ("meter.estimate", "idle_watts_per_thread", "0.5", &[MEASURING]),
    ("meter.estimate", "full_watts_per_thread", "4.5", &[MEASURING]),
    ("meter.estimate", "package_share", "0.5", &[MEASURING]),
    ("usage", "source", r#""procfs""#, &[MEASURING]),
    ("usage", "path", r#""helpers""#, &[MEASURING]),
    ("usage", "counters", r#""off""#, &[MEASURING]),
    ("usage", "max_entries", "64", &[MEASURING]),
    ("usage", "gpus", "false", &[MEASURING]),
    // Guests are told what becomes of idle energy.
    ("attribution", "idle", r#""by-use""#, &[MEASURING, GUESTS, PAGE, CONTROL]),
    ("attribution", "platform", r#""none""#, &[MEASURING]),
    ("attribution.idle_watts", "\"rapl/package-0\"", "21.5", &[MEASURING]),
    ("series", "processes", "5", &[MEASURING]),
    ("series", "others", "5", &[MEASURING]),
    ("series", "retention", r#""5s""#, &[MEASURING]),
    ("learn", "enabled", "false", &[MEASURING]),
    ("history", "use", r#""never""#, &[HISTORY]),
    ("history", "size_mb", "50", &[HISTORY]),
    ("carbon", "intensity", "300", &[MEASURING]),
    ("carbon", "country", r#""DE""#, &[MEASURING]),
    ("carbon", "file", r#""/run/other.json""#, &[MEASURING]),
    ("carbon", "market_intensity", "0", &[MEASURING]),
    ("carbon", "market_source", r#""other""#, &[MEASURING]),
    ("carbon", "market_file", r#""/run/other.json""#, &[MEASURING]),
    ("carbon", "embodied_kg", "900", &[HISTORY]),
    ("carbon", "lifetime_years", "5", &[HISTORY]),
    ("price", "currency", r#""USD""#, &[MEASURING]),
    ("price", "per_kwh", "0.5", &[MEASURING]),
    ("price", "file", r#""/run/other.json""#, &[MEASURING]),
    ("price", "time_zone", r#""UTC""#, &[MEASURING]),
    ("price", "tariff", r#"[{ name = "night", price = 0.2, from = "22:00", until = "06:00" }]"#, &[MEASURING]),
    ("report", "pue", "1.5", &[HISTORY]),
    ("attribution", "weights", r#""time""#, &[MEASURING]),
    ("names", "kubernetes", r#""off""#, &[MEASURING]),
    ("names", "proxmox", r#""/etc/pve/lxc""#, &[MEASURING]),
    ("series", "min_joules", "0.5", &[MEASURING]),
    ("export", "web_config_file", r#""/etc/other""#, &[PAGE]),
    ("export.guest", "vsock", r#""on""#, CHANNEL_OPENS),
    ("export.guest", "port", "5", CHANNEL),
    ("export.guest", "profile", r#""trusted""#, CHANNEL),
    ("export.guest", "privileged_ports", "true", CHANNEL),
    ("export.guest", "model", "true", CHANNEL),
    ("export.guest", "hybrid", r#"["/run/other"]"#, CHANNEL_OPENS),
    ("export.guest", "serial", r#"["/run/other"]"#, CHANNEL_OPENS),
    ("export.guest.vm.\"6f1f3ca8-3a64-4a4c-8f0a-0d6b1f9a5c11\"", "profile", r#""trusted""#, CHANNEL),
    ("export.guest.acpi", "vms", r#"{ web = "root" }"#, CHANNEL_OPENS),
    ("export.guest.acpi", "folder", r#""/run/other""#, CHANNEL),
    ("export.guest.acpi", "slot", "5", CHANNEL),
    ("export.guest.acpi", "estimates", "true", CHANNEL),
    ("export.guest.acpi", "migration", "true", CHANNEL),
    ("export.dbus", "use", r#""off""#, &[BUS]),
    ("export.dbus", "group", r#""other""#, &[BUS]),
    ("export.page", "use", r#""off""#, &[PAGE]),
    ("export.jobs", "log", r#""journal""#, &[JOBS]),
    ("export.models", "folders", r#"["/run/other"]"#, &[]),
    ("export.models", "trusted_keys", r#""/run/other""#, &[]),
    ("export.models", "require_signatures", "true", &[]),
    ("export.models", "serve", "true", &[PAGE]),
    ("export.models", "estimator", r#""/run/other.sock""#, &[ESTIMATOR]),
    ("export.models", "mode", r#""0600""#, &[]),
    ("export.powercap", "path", r#""/run/other""#, &[MIRROR]),
    ("export.powercap", "mode", r#""0444""#, &[MIRROR]),
    ("export.powercap", "estimates", "true", &[MIRROR]),
    ("export.powercap", "smooth", "false", &[MIRROR]),
    ("export.prometheus", "levels", r#"["vm"]"#, &[PAGE]),
    ("export.prometheus.dialects", "kepler", "false", &[PAGE]),
    ("export.prometheus.dialects", "legacy", "true", &[PAGE]),
    ("[export.push]", "name", r#""other""#, &[PUSH]),
    ("[export.push]", "url", r#""https://192.0.2.11/api/v1/push""#, &[PUSH]),
    ("[export.push]", "protocol", r#""remote-write-1.0""#, &[PUSH]),
    ("[export.push]", "interval", r#""15s""#, &[PUSH]),
    ("[export.push]", "levels", r#"["vm"]"#, &[PUSH]),
    ("[export.push]", "series", r#""all""#, &[PUSH]),
    ("[export.push]", "labels", r#"{ cluster = "other" }"#, &[PUSH]),
    ("[export.push]", "headers", r#"{ "X-Scope-OrgID" = "other" }"#, &[PUSH]),
    ("[export.push]", "auth", r#""bearer""#, &[PUSH]),
    ("[export.push]", "username", r#""other""#, &[PUSH]),
    ("[export.push]", "password_file", r#""/etc/other""#, &[PUSH]),
    ("[export.push]", "credential", r#""other""#, &[PUSH]),
    ("[export.push]", "tls", r#""insecure""#, &[PUSH]),
    ("[export.push]", "ca_file", r#""/etc/other""#, &[PUSH]),
    ("[export.push]", "sha256", r#""1111111111111111111111111111111111111111111111111111111111111111""#, &[PUSH]),
    ("[export.push]", "cert_file", r#""/etc/other""#, &[PUSH]),
    ("[export.push]", "key_file", r#""/etc/other""#, &[PUSH]),
    ("[export.push]", "timeout", r#""20s""#, &[PUSH]),
    ("[export.push]", "spread", r#""0s""#, &[PUSH]),
    ("[export.push]", "log_mb", "100", &[PUSH]),
    ("[export.push]", "log_age", r#""24h""#, &[PUSH]),
    ("[export.push]", "replay_rate", "1000", &[PUSH]),
    ("control", "socket", r#""/run/other.sock""#, &[CONTROL]),
    ("control", "mode", r#""0600""#, &[CONTROL]),
    ("inventory", "socket", r#""/run/other.sock""#, &[INVENTORY]),
    ("inventory", "mode", r#""0600""#, &[INVENTORY]),
    ("inventory", "users", r#"["other"]"#, &[INVENTORY]),
    ("inventory", "machined", "false", &[MACHINED]),
    ("[tenant]", "name", r#""other""#, &[MEASURING]),
    ("[tenant]", "namespace", r#"["a", "b-*"]"#, &[MEASURING]),
    ("[tenant]", "pod", r#""other""#, &[MEASURING]),
    ("[tenant]", "container", r#""other""#, &[MEASURING]),
    ("[tenant]", "image", r#""other""#, &[MEASURING]),
    ("[tenant]", "label", r#"{ team = "a" }"#, &[MEASURING]),
    ("[tenant]", "project", r#""other""#, &[MEASURING]),
    ("[tenant]", "vm", r#""other""#, &[MEASURING]),
    ("[tenant]", "job", r#""other""#, &[MEASURING]),
    ("[tenant]", "account", r#""other""#, &[MEASURING]),
    ("[tenant]", "partition", r#""other""#, &[MEASURING]),
    ("[tenant]", "user", r#"1000"#, &[MEASURING]),
    ("[tenant]", "slice", r#""other.slice""#, &[MEASURING]),
    ("[tenant]", "unit", r#""other.service""#, &[MEASURING]),
    ("[tenant]", "user_unit", r#""other.service""#, &[MEASURING]),
    ("[tenant]", "named", r#""other""#, &[MEASURING]),
    ("[tenant]", "or", r#"[{ slice = "other.slice" }]"#, &[MEASURING]),
];

/// An entry of a list, or a section with keys that need each other, complete: every other key of it has a default.
const ENTRIES: [(&str, &[(&str, &str)]); 11] = [
    ("carbon", &[("embodied_kg", "1200"), ("lifetime_years", "4")]),
    ("price", &[("currency", r#""EUR""#), ("per_kwh", "0.3")]),
    ("[tenant]", &[("name", r#""one""#), ("unit", r#""one.service""#)]),
    (
        "[meter.ipmi.lan]",
        &[
            ("name", r#""bmc""#),
            ("address", r#""192.0.2.10""#),
            ("username", r#""jouled""#),
            ("password_file", r#""/etc/bmc""#),
        ],
    ),
    (
        "[meter.redfish.bmc]",
        &[
            ("name", r#""bmc""#),
            ("url", r#""https://192.0.2.10""#),
            ("username", r#""jouled""#),
            ("password_file", r#""/etc/bmc""#),
        ],
    ),
    (
        "[meter.http]",
        &[
            ("name", r#""plug""#),
            ("url", r#""https://192.0.2.10""#),
            ("power", r#""/apower""#),
            ("auth", r#""basic""#),
            ("username", r#""jouled""#),
            ("password_file", r#""/etc/plug""#),
        ],
    ),
    (
        "[meter.prometheus]",
        &[
            ("name", r#""pdu""#),
            ("url", r#""https://192.0.2.10""#),
            ("energy", r#""pdu_energy""#),
            ("auth", r#""basic""#),
            ("username", r#""jouled""#),
            ("password_file", r#""/etc/prometheus""#),
        ],
    ),
    ("[meter.snmp]", &[("name", r#""pdu""#), ("address", r#""192.0.2.10""#), ("preset", r#""raritan""#)]),
    (
        "[meter.mqtt]",
        &[
            ("name", r#""plug""#),
            ("broker", r#""mqtts://192.0.2.10""#),
            ("topic", r#""tele/plug/SENSOR""#),
            ("power", r#""/ENERGY/Power""#),
            ("username", r#""jouled""#),
            ("password_file", r#""/etc/plug""#),
        ],
    ),
    ("[meter.nut]", &[("name", r#""ups""#), ("ups", r#""rack""#)]),
    (
        "[export.push]",
        &[
            ("name", r#""central""#),
            ("url", r#""https://192.0.2.10/api/v1/write""#),
            ("auth", r#""basic""#),
            ("username", r#""jouled""#),
            ("password_file", r#""/etc/central""#),
            ("cert_file", r#""/etc/jouled.pem""#),
            ("key_file", r#""/etc/jouled.key""#),
        ],
    ),
];

/// What a user of SNMP version 3 needs; the last two are for privacy.
const SNMP_3: [(&str, &str); 5] = [
    ("version", r#""3""#),
    ("username", r#""jouled""#),
    ("password_file", r#""/etc/pdu""#),
    ("privacy", r#""aes128""#),
    ("privacy_password_file", r#""/etc/pdu.private""#),
];

fn config(toml: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jouled.toml");
    std::fs::write(&file, toml).unwrap();
    Config::load(Some(&file), |_| ()).unwrap_or_else(|error| panic!("{toml}: {error}"))
}

/// A section with these keys, as a file.
fn file(section: &str, keys: &BTreeMap<&str, &str>) -> String {
    let keys: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    if section.is_empty() { keys } else { format!("[{section}]\n{keys}") }
}

/// Section and key of each key that etc/jouled.toml has, most of them commented out.
fn keys_of_the_file() -> BTreeSet<(String, String)> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in include_str!("../../../etc/jouled.toml").lines() {
        let line = line.trim_start_matches('#').trim_start();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && !key.contains(char::is_whitespace)
        {
            keys.insert((section.clone(), key.to_owned()));
        }
    }
    keys
}

#[test]
fn each_key_restarts_what_uses_it() {
    let known: BTreeSet<_> = KEYS.iter().map(|(section, key, ..)| (section.to_string(), key.to_string())).collect();
    assert_eq!(known, keys_of_the_file(), "KEYS here, and etc/jouled.toml");
    for (section, key, value, restarted) in KEYS {
        let entry = ENTRIES.iter().find(|(list, _)| list == section);
        let mut keys: BTreeMap<&str, &str> = entry.map(|(_, keys)| keys.iter().copied().collect()).unwrap_or_default();
        let before = if entry.is_some() { file(section, &keys) } else { String::new() };
        // What a key contradicts, and what it needs.
        match (*section, *key) {
            (_, "credential") => drop(keys.remove("password_file")),
            (_, "preset") => drop(keys.remove("power")),
            ("[export.push]", "auth") => drop(keys.remove("username")),
            ("[meter.snmp]", "sensor") => drop(keys.insert("preset", r#""entity-sensor""#)),
            ("[meter.snmp]", "power" | "energy" | "power_unit" | "energy_unit" | "power_scale" | "energy_scale") => {
                keys.remove("preset");
                keys.insert("power", r#""1.3.6.1.4.1.99.7""#);
            }
            ("[meter.snmp]", "version" | "username" | "auth") => keys.extend(SNMP_3[..3].iter().copied()),
            ("[meter.snmp]", "privacy" | "privacy_password_file") => keys.extend(SNMP_3),
            ("[meter.snmp]", "privacy_credential") => keys.extend(SNMP_3[..4].iter().copied()),
            _ => {}
        }
        keys.insert(key, value);
        let (old, new) = (config(&before), config(&file(section, &keys)));
        assert_ne!(old, new, "[{section}] {key} = {value} is the default");
        let wanted = if restarted.is_empty() {
            "nothing restarted".to_owned()
        } else {
            format!("restarted: {}", restarted.join(", "))
        };
        assert_eq!(Change::between(&old, &new).words(), wanted, "[{section}] {key}");
        assert_eq!(Change::between(&new, &new).words(), "nothing restarted", "[{section}] {key}");
    }
}

/// Processes and cgroups are observed by the same sources over most reloads: then a sleeping process keeps its series.
#[test]
fn sources_of_use_go_on_unless_their_own_keys_change() {
    let renewed = |toml| !SourceSettings::of(&config("")).same_observers(&SourceSettings::of(&config(toml)));
    for toml in [
        "interval = \"2s\"",
        "[meter.rapl]\nvia = \"perf\"",
        "[attribution]\nidle = \"by-use\"",
        "[series]\nothers = 5",
    ] {
        assert!(!renewed(toml), "{toml}");
    }
    for toml in ["sysfs = \"/x\"", "procfs = \"/x\"", "[usage]\ngpus = false", "[meter.nvml]\nuse = \"never\""] {
        assert!(renewed(toml), "{toml}");
    }
}
