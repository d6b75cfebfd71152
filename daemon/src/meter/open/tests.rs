//! Tests of which meters are opened, and of the rules between them.

use super::super::fake_sysfs::{FakeHost, ICE_LAKE_SERVER};
use super::*;
use crate::meter::rapl::RaplVia;
use crate::meter::{host_channel, hwmon};
use crate::model::source::SourceRole;
use crate::model::values::Use;

fn config(text: &str) -> MeterConfig {
    use figment::providers::{Format, Toml};
    figment::Figment::from(Toml::string(text)).extract().unwrap()
}

/// The sources that give energy, and the state of every source.
fn open(host: &FakeHost, text: &str) -> (Vec<String>, Vec<SourceState>) {
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    let (meters, mut states) = open_all(&config(text), &roots, &Topology::read(&roots));
    // hwmon is on a thread and always opened. A meter that stands by, or whose driver is not loaded, has no domains.
    let gives = |meter: &&dyn Meter| meter.source() == host_channel::SOURCE || !meter.domains().is_empty();
    let all = || meters.iter().map(|meter| &**meter as &dyn Meter);
    let sources = all().filter(gives).map(|meter| meter.source().to_owned()).filter(|source| source != hwmon::SOURCE);
    let sources = sources.collect();
    let state = |meter: &dyn Meter| SourceState::new(meter.source(), SourceRole::Meter, meter.health());
    states.extend(all().map(state));
    (sources, states)
}

fn why<'a>(states: &'a [SourceState], source: &str) -> (&'static str, &'a str) {
    states.iter().find(|state| state.source == source).map(|state| (state.health.as_str(), state.health.why())).unwrap()
}

fn host() -> FakeHost {
    let host = FakeHost::new();
    host.cpus(1, 2, &ICE_LAKE_SERVER);
    host.stat(&[0, 0], &[0, 0]);
    host
}

#[test]
fn powercap_leaves_no_need_for_an_estimate() {
    let host = host();
    host.zone("intel-rapl:0", "package-0", 1);
    let (sources, states) = open(&host, "");
    assert_eq!(sources, ["rapl-powercap"]);
    assert!(why(&states, "rapl-perf").1.contains("--sysfs"));
    assert_eq!(why(&states, "estimate"), ("unsupported", "not needed: the packages are measured"));
    assert_eq!(open(&host, "[estimate]\nuse = \"always\"").0, ["rapl-powercap", "estimate"]);
    assert_eq!(open(&host, "[rapl]\nvia = \"off\"").0, ["estimate"]);
}

#[test]
fn an_unreadable_counter_falls_back_in_full_view() {
    let host = host();
    host.zone("intel-rapl:0", "package-0", 1);
    host.break_sys("class/powercap/intel-rapl:0/energy_uj");
    let (sources, states) = open(&host, "");
    assert_eq!(sources, ["estimate"]);
    let (state, reason) = why(&states, "rapl-powercap");
    assert!(state == "failed" && reason.contains("intel-rapl:0/energy_uj"), "{state} {reason}");
}

#[test]
fn nothing_there_is_unsupported_unless_it_was_named() {
    let host = host();
    let (sources, states) = open(&host, "[estimate]\nuse = \"never\"");
    assert_eq!(sources, [""; 0]);
    assert_eq!(why(&states, "rapl-powercap").0, "unsupported");
    assert_eq!(why(&states, "estimate").0, "unsupported");
    assert_eq!(why(&open(&host, "[rapl]\nvia = \"powercap\"").1, "rapl-powercap").0, "failed");
    let (sources, states) = open(&host, "[rapl]\nvia = \"perf\"");
    assert_eq!(sources, ["estimate"]);
    assert_eq!(why(&states, "rapl-perf").0, "failed");
    assert_eq!(why(&states, "rapl-powercap"), ("unsupported", "not wanted: via = \"perf\" in [meter.rapl]"));
}

#[test]
fn the_hosts_word_and_rapl_are_never_both() {
    let host = host();
    host.zone("intel-rapl:0", "package-0", 1);
    let named = "[vsock]\nconnect = \"unix:/nonexistent/host.sock\"";
    let (sources, states) = open(&host, named);
    assert_eq!(sources, ["vsock"]);
    assert_eq!(why(&states, "estimate").1, "standing by: it takes over while the host says nothing");
    for source in ["rapl-perf", "rapl-powercap"] {
        assert!(why(&states, source).1.contains("unix:/nonexistent/host.sock"), "{states:?}");
    }
    assert_eq!(open(&host, &format!("{named}\n[estimate]\nuse = \"never\"")).0, ["vsock"]);
    assert_eq!(open(&host, &format!("{named}\n[estimate]\npackage_share = 2.0")).0, ["vsock"]);
    assert_eq!(why(&open(&host, "").1, "vsock").1, "not wanted: connect = \"off\" in [meter.vsock]");
    let auto = "[vsock]\nconnect = \"auto\"";
    let (sources, states) = open(&host, auto);
    assert_eq!(sources, ["rapl-powercap"]);
    assert_eq!(why(&states, "vsock"), ("unsupported", "not needed: this machine has a meter of its own"));
    // The vsock device in another sysfs is not this machine's.
    host.remove_zone("intel-rapl:0");
    host.write_sys("bus/virtio/devices/virtio0/device", "0x0013\n");
    let (sources, states) = open(&host, auto);
    assert_eq!(sources, ["estimate"]);
    assert!(why(&states, "vsock").1.contains("--sysfs is not /sys"));
}

#[test]
fn a_bad_estimate_is_a_failure() {
    let (sources, states) = open(&host(), "[estimate]\npackage_share = 2.0");
    assert_eq!(sources, [""; 0]);
    assert_eq!(why(&states, "estimate").0, "failed");
}

#[test]
fn every_key_is_known() {
    let all = config(
        "[rapl]\nvia = \"powercap\"\ndram_billed = false\n[estimate]\nuse = \"never\"\nidle_watts_per_thread = 1\n\
         full_watts_per_thread = 2.5\npackage_share = 0.5",
    );
    assert_eq!(all.rapl, RaplConfig { via: RaplVia::Powercap, dram_billed: Some(false) });
    assert_eq!((all.estimate.r#use, all.estimate.full_watts_per_thread), (Use::Never, Some(2.5)));
    use figment::providers::{Format, Toml};
    for bad in ["[rapl]\nwia = \"auto\"", "[estimate]\nuse = \"maybe\"", "[hwmon]\nuse = \"always\"", "[radar]\nx = 1"]
    {
        assert!(figment::Figment::from(Toml::string(bad)).extract::<MeterConfig>().is_err(), "{bad}");
    }
}

#[test]
fn an_estimate_that_cannot_take_over_is_a_failure_only_where_it_is_needed() {
    let host = host();
    host.zone("intel-rapl:0", "package-0", 1);
    let (sources, states) = open(&host, "[estimate]\npackage_share = 2.0");
    assert_eq!(sources, ["rapl-powercap"]);
    let (state, reason) = why(&states, "estimate");
    assert!(
        state == "unsupported" && reason.contains("it could not take over: ") && reason.contains("package_share"),
        "{reason}"
    );
}
