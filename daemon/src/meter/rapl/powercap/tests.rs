//! Tests of the powercap meter on fake hosts: every rule of what is a domain, and every way a counter can fail.

use super::*;
use crate::meter::fake_sysfs::{FakeCpu, FakeHost, ICE_LAKE_SERVER, INTEL_RANGE, MILAN, TIGER_LAKE_CLIENT};
use crate::model::domain::{Scope, Zone};
use crate::model::source::PackageId;
use crate::model::units::Microwatts;

fn open_with(host: &FakeHost, config: &RaplConfig) -> Result<Option<Powercap>, String> {
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    Powercap::open(config, &roots, &Topology::read(&roots))
}

fn open(host: &FakeHost) -> Powercap {
    open_with(host, &RaplConfig::default()).unwrap().unwrap()
}

fn read(meter: &mut Powercap) -> Vec<Result<u64, String>> {
    let mut out = Vec::new();
    meter.read(Stamp::default(), &mut out);
    assert!(out.iter().zip(meter.domains()).all(|(reading, domain)| reading.domain == domain.id));
    out.into_iter()
        .map(|reading| match reading.reading? {
            Reading::Counter { total, .. } => Ok(total.0),
            other => Err(format!("no counter: {other:?}")),
        })
        .collect()
}

fn ids(meter: &Powercap) -> Vec<&str> {
    meter.domains().iter().map(|domain| domain.id.as_str()).collect()
}

fn billed(meter: &Powercap) -> Vec<&str> {
    meter.domains().iter().filter(|domain| domain.billed).map(|domain| domain.id.as_str()).collect()
}

fn two_sockets() -> FakeHost {
    let host = FakeHost::new();
    host.cpus(2, 4, &ICE_LAKE_SERVER);
    host.write_sys("class/powercap/intel-rapl/enabled", "1\n");
    for socket in 0..2 {
        host.zone(&format!("intel-rapl:{socket}"), &format!("package-{socket}"), 1000 + socket);
        host.zone(&format!("intel-rapl:{socket}:0"), "dram", 100 + socket);
    }
    host
}

#[test]
fn two_sockets_with_dram() {
    let host = two_sockets();
    let mut meter = open(&host);
    assert_eq!(ids(&meter), ["rapl/package-0", "rapl/package-0/dram", "rapl/package-1", "rapl/package-1/dram"]);
    assert_eq!(billed(&meter), ids(&meter));
    assert_eq!(read(&mut meter), [Ok(1000), Ok(100), Ok(1001), Ok(101)]);
    assert_eq!(meter.health(), Health::Healthy);
    let dram = &meter.domains()[3];
    assert_eq!((dram.zone, dram.scope), (Zone::Dram, Scope::Package(PackageId(1))));
    assert_eq!(dram.path, "/sys/class/powercap/intel-rapl:1:0");
    assert_eq!(dram.max_power, Microwatts(1_000_000_000));
    let mut out = Vec::new();
    meter.read(Stamp::default(), &mut out);
    let expected = Reading::Counter { total: Microjoules(1000), wraps_at: Some(Microjoules(INTEL_RANGE)) };
    assert_eq!(out[0].reading, Ok(expected));
}

#[test]
fn the_package_is_in_the_name_not_in_the_number() {
    let host = FakeHost::new();
    host.cpus(2, 1, &ICE_LAKE_SERVER);
    host.zone("intel-rapl:0", "package-1", 11);
    host.zone("intel-rapl:1", "package-0", 10);
    host.zone("intel-rapl:0:0", "dram", 1);
    let mut meter = open(&host);
    assert_eq!(ids(&meter), ["rapl/package-0", "rapl/package-1", "rapl/package-1/dram"]);
    assert_eq!(read(&mut meter), [Ok(10), Ok(11), Ok(1)]);
}

#[test]
fn intel_dies_are_domains_of_their_own() {
    let host = FakeHost::new();
    host.cpus(1, 4, &ICE_LAKE_SERVER);
    host.zone("intel-rapl:0", "package-0-die-0", 10);
    host.zone("intel-rapl:1", "package-0-die-1", 11);
    host.zone("intel-rapl:1:0", "dram", 12);
    let mut meter = open(&host);
    assert_eq!(ids(&meter), ["rapl/package-0-die-0", "rapl/package-0-die-1", "rapl/package-0-die-1/dram"]);
    assert!(meter.domains().iter().all(|domain| domain.scope == Scope::Package(PackageId(0))));
    assert_eq!(read(&mut meter), [Ok(10), Ok(11), Ok(12)]);
}

#[test]
fn amd_dies_are_one_package_and_its_core_is_one_core() {
    let host = FakeHost::new();
    host.cpus(2, 4, &MILAN);
    for (zone, name) in ["package-0-die-0", "package-0-die-1", "package-1-die-2", "package-1-die-3"].iter().enumerate()
    {
        host.zone(&format!("intel-rapl:{zone}"), name, 10 + zone as u64);
        host.zone(&format!("intel-rapl:{zone}:0"), "core", 1);
    }
    let mut meter = open(&host);
    assert_eq!(ids(&meter), ["rapl/package-0", "rapl/package-1"]);
    assert_eq!(read(&mut meter), [Ok(10), Ok(12)]);
    assert_eq!(meter.health(), Health::Healthy);
}

#[test]
fn mmio_is_an_alias_unless_it_is_all_there_is() {
    let host = FakeHost::new();
    host.cpus(1, 4, &TIGER_LAKE_CLIENT);
    host.zone("intel-rapl-mmio:0", "package-0", 5);
    let mut meter = open(&host);
    assert_eq!(ids(&meter), ["rapl/package-0"]);
    assert_eq!(read(&mut meter), [Ok(5)]);
    host.zone("intel-rapl:0", "package-0", 7);
    let mut meter = open(&host);
    assert_eq!(read(&mut meter), [Ok(7)]);
    assert_eq!(ids(&meter), ["rapl/package-0"]);
}

#[test]
fn a_bound_alias_is_not_swapped_for_another_counter() {
    let host = FakeHost::new();
    host.zone("intel-rapl-mmio:0", "package-0", 5);
    let mut meter = open(&host);
    host.zone("intel-rapl:0", "package-0", 7000);
    for _ in 0..2 * RESCAN_EVERY {
        assert_eq!(read(&mut meter), [Ok(5)]);
    }
}

#[test]
fn a_client_has_dram_core_and_uncore_inside_the_package() {
    let host = FakeHost::new();
    host.cpus(1, 8, &TIGER_LAKE_CLIENT);
    host.zone("intel-rapl:0", "package-0", 1);
    for (sub, name) in ["core", "uncore", "dram"].iter().enumerate() {
        host.zone(&format!("intel-rapl:0:{sub}"), name, 1);
    }
    host.zone("intel-rapl:1", "psys", 9);
    let mut meter = open(&host);
    let all = ["rapl/package-0", "rapl/package-0/core", "rapl/package-0/uncore", "rapl/package-0/dram", "rapl/psys"];
    assert_eq!(ids(&meter), all);
    assert_eq!(billed(&meter), ["rapl/package-0"]);
    assert_eq!(meter.domains()[4].scope, Scope::Machine);
    assert_eq!(read(&mut meter)[4], Ok(9));
    let meter = open_with(&host, &RaplConfig { dram_billed: Some(true), ..RaplConfig::default() }).unwrap().unwrap();
    assert_eq!(billed(&meter), ["rapl/package-0", "rapl/package-0/dram"]);
}

#[test]
fn dram_of_an_unknown_processor_is_billed_unless_it_has_graphics() {
    let host = FakeHost::new();
    host.cpus(1, 8, &FakeCpu { model: 9999, ..ICE_LAKE_SERVER });
    host.zone("intel-rapl:0", "package-0", 1);
    host.zone("intel-rapl:0:0", "dram", 1);
    assert_eq!(billed(&open(&host)).len(), 2);
    host.zone("intel-rapl:0:1", "uncore", 1);
    assert_eq!(billed(&open(&host)), ["rapl/package-0"]);
}

#[test]
fn a_silent_psys_is_no_domain_until_it_speaks() {
    let host = two_sockets();
    host.zone("intel-rapl:2", "psys", 77);
    host.zone("intel-rapl:3", "psys-1", 0);
    let mut meter = open(&host);
    assert_eq!(ids(&meter).len(), 5);
    assert_eq!(meter.domains()[4].id, "rapl/psys");
    assert_eq!(meter.domains()[4].max_power, Microwatts(2_000_000_000));
    assert!(!meter.domains()[4].billed);
    host.set_energy("intel-rapl:3", 5);
    for _ in 0..RESCAN_EVERY {
        read(&mut meter);
    }
    assert_eq!(ids(&meter)[5], "rapl/psys-1");
    assert_eq!(read(&mut meter)[5], Ok(5));
}

#[test]
fn other_control_types_are_ignored() {
    let host = FakeHost::new();
    for zone in ["dtpm:0", "idle-injection:0", "arm-scmi:0"] {
        host.zone(zone, "package-0", 1);
    }
    assert!(open_with(&host, &RaplConfig::default()).unwrap().is_none());
    assert!(open_with(&FakeHost::new(), &RaplConfig::default()).unwrap().is_none());
}

#[test]
fn zones_of_scmi_are_told_of_and_not_used() {
    let host = two_sockets();
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    assert_eq!(open(&host).detail(), "");
    host.write_sys("class/powercap/arm-scmi/enabled", "1\n");
    host.zone("arm-scmi:0", "cluster\u{1b}[2J", 1);
    for zone in 1..6 {
        host.zone(&format!("arm-scmi:{zone}"), &format!("zone-{zone}"), 1);
    }
    let told = open(&host).detail();
    assert!(told.starts_with("not used: arm-scmi zone \"cluster\\u{1b}[2J\", \"zone-1\", "), "{told}");
    assert!(told.ends_with(" and 2 more: its firmware does not say what it covers"), "{told}");
    assert!(absent(&roots).ends_with(&told));
}

#[test]
fn limits_raise_what_a_zone_can_draw_and_never_lower_it() {
    let host = two_sockets();
    let cap = |host: &FakeHost| open(host).domains()[0].max_power.0;
    let write =
        |what: &str, value: &str| host.write_sys(&format!("class/powercap/intel-rapl:0/constraint_{what}"), value);
    write("0_max_power_uw", "270000000\n");
    write("1_power_limit_uw", "324000000\n");
    assert_eq!(cap(&host), 2 * (270_000_000 + 324_000_000));
    write("1_power_limit_uw", "18446744073709551615\n");
    assert_eq!(cap(&host), 10_000_000_000);
    // Capped at the start, to be uncapped later; with and without the long-term power of a small processor.
    write("1_power_limit_uw", "garbage\n");
    for (long_term, limit) in [("15000000\n", "15000000\n"), ("0\n", "50000000\n"), ("", "1\n"), ("0\n", "0\n")] {
        write("0_max_power_uw", long_term);
        write("0_power_limit_uw", limit);
        assert_eq!(cap(&host), 1_000_000_000, "{long_term:?} {limit:?}");
    }
}

#[test]
fn a_missing_range_means_no_wrap() {
    let host = two_sockets();
    host.write_sys("class/powercap/intel-rapl:0/max_energy_range_uj", "0\n");
    std::fs::remove_file(host.zone_dir("intel-rapl:1").join("max_energy_range_uj")).unwrap();
    let mut out = Vec::new();
    open(&host).read(Stamp::default(), &mut out);
    for (domain, total) in [(0, 1000), (2, 1001)] {
        assert_eq!(out[domain].reading, Ok(Reading::Counter { total: Microjoules(total), wraps_at: None }));
    }
}

#[test]
fn bad_contents_are_errors_that_name_the_file() {
    let host = two_sockets();
    let mut meter = open(&host);
    let cases: [(&[u8], &str); 7] = [
        (b"", "empty"),
        (b"\n", "not a number"),
        (b"12 34\n", "not a number"),
        (b"-5\n", "not a number"),
        (b"\xff\xfe", "not a number"),
        (&[b'1'; 4096], "too long"),
        (b"262143328851\n", "above its range"),
    ];
    for (text, why) in cases {
        host.write_sys("class/powercap/intel-rapl:0/energy_uj", text);
        let readings = read(&mut meter);
        let error = readings[0].clone().unwrap_err();
        assert!(
            error.contains("intel-rapl:0/energy_uj: ") && error.contains(why) && error.lines().count() == 1,
            "{error}"
        );
        assert_eq!(readings[1..], [Ok(100), Ok(1001), Ok(101)]);
        assert!(matches!(meter.health(), Health::Degraded(why) if why.starts_with("1 of 4 domains cannot be read")));
        host.write_sys("class/powercap/intel-rapl:0/energy_uj", "1234\n");
        assert_eq!(read(&mut meter)[0], Ok(1234));
        assert_eq!(meter.health(), Health::Healthy);
    }
}

#[test]
fn a_falling_counter_is_passed_on() {
    let host = two_sockets();
    let mut meter = open(&host);
    host.set_energy("intel-rapl:0", 999_999);
    assert_eq!(read(&mut meter)[0], Ok(999_999));
    host.set_energy("intel-rapl:0", 3);
    assert_eq!(read(&mut meter)[0], Ok(3));
}

#[test]
fn nothing_readable_is_a_failure() {
    let host = FakeHost::new();
    host.zone("intel-rapl:0", "package-0", 1);
    host.break_sys("class/powercap/intel-rapl:0/energy_uj");
    let error = open_with(&host, &RaplConfig::default()).err().unwrap();
    assert!(error.contains("intel-rapl:0/energy_uj: Is a directory"), "{error}");
    host.break_sys("class/powercap/intel-rapl:0/name");
    let error = open_with(&host, &RaplConfig::default()).err().unwrap();
    assert!(error.contains("intel-rapl:0/name"), "{error}");
}

#[test]
fn the_missing_permission_says_how_to_get_it() {
    let error = std::io::Error::from(ErrorKind::PermissionDenied);
    let text = describe(Path::new("/sys/class/powercap/intel-rapl:0/energy_uj"), &error);
    assert!(
        text.starts_with("/sys/class/powercap/intel-rapl:0/energy_uj: ") && text.contains("CAP_DAC_READ_SEARCH"),
        "{text}"
    );
}

#[test]
fn zones_with_faults_of_their_own_leave_the_others_alone() {
    let host = two_sockets();
    host.break_sys("class/powercap/intel-rapl:1:0/energy_uj");
    host.zone("intel-rapl:4", "package-0", 4);
    let mut meter = open(&host);
    assert_eq!(ids(&meter).len(), 4);
    let readings = read(&mut meter);
    assert_eq!(readings[..3], [Ok(1000), Ok(100), Ok(1001)]);
    assert!(readings[3].is_err());
    host.write_sys("class/powercap/intel-rapl:5/name", "toaster\n");
    host.write_sys("class/powercap/intel-rapl:6/name", "package-6\n");
    host.zone("intel-rapl:9:0", "dram", 1);
    let meter = open(&host);
    assert_eq!(ids(&meter).len(), 4);
    for complaint in [
        "intel-rapl:4: rapl/package-0 a second time",
        "intel-rapl:5: unknown zone \"toaster\"",
        "intel-rapl:6: no energy_uj",
    ] {
        assert!(meter.complaints.iter().any(|line| line.contains(complaint)), "{complaint}: {:?}", meter.complaints);
    }
    assert!(meter.complaints.iter().any(|line| line.contains("intel-rapl:9:0: unknown zone \"dram\"")));
}

#[test]
fn a_zone_that_goes_comes_back() {
    let host = two_sockets();
    let mut meter = open(&host);
    host.remove_zone("intel-rapl:1");
    host.remove_zone("intel-rapl:1:0");
    for _ in 0..RESCAN_EVERY {
        assert_eq!(read(&mut meter)[..2], [Ok(1000), Ok(100)]);
    }
    let error = read(&mut meter)[2].clone().unwrap_err();
    assert!(error.contains("intel-rapl:1/name: No such file"), "{error}");
    assert_eq!(meter.domains().len(), 4);
    // The kernel gives the returning zone any free number, here the one that belonged to its own dram's parent.
    host.zone("intel-rapl:7", "package-1", 5000);
    host.zone("intel-rapl:7:0", "dram", 500);
    for _ in 0..RESCAN_EVERY {
        read(&mut meter);
    }
    assert_eq!(read(&mut meter), [Ok(1000), Ok(100), Ok(5000), Ok(500)]);
    assert_eq!(meter.domains().len(), 4);
    assert_eq!(meter.health(), Health::Healthy);
}

#[test]
fn a_zone_whose_number_goes_to_another_package_is_not_mistaken_for_it() {
    let host = two_sockets();
    let mut meter = open(&host);
    for zone in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0"] {
        host.remove_zone(zone);
    }
    for (number, package) in [(0, 1), (1, 0)] {
        host.zone(&format!("intel-rapl:{number}"), &format!("package-{package}"), 5000 + package);
        host.zone(&format!("intel-rapl:{number}:0"), "dram", 500 + package);
    }
    for counter in &mut meter.counters {
        counter.file = None;
    }
    let errors = read(&mut meter);
    assert!(errors[1].as_ref().is_err_and(|error| error.contains("was package-0, is now \"package-1\"")), "{errors:?}");
    for _ in 0..RESCAN_EVERY {
        read(&mut meter);
    }
    assert_eq!(read(&mut meter), [Ok(5000), Ok(500), Ok(5001), Ok(501)]);
}

#[test]
fn a_new_package_is_appended() {
    let host = FakeHost::new();
    host.cpus(2, 1, &ICE_LAKE_SERVER);
    host.zone("intel-rapl:1", "package-1", 1);
    let mut meter = open(&host);
    host.zone("intel-rapl:0", "package-0", 2);
    for _ in 0..RESCAN_EVERY {
        read(&mut meter);
    }
    assert_eq!(ids(&meter), ["rapl/package-1", "rapl/package-0"]);
    assert_eq!(read(&mut meter), [Ok(1), Ok(2)]);
}

#[test]
fn symlinks_as_in_the_kernel() {
    let host = FakeHost::new();
    host.write_sys("devices/virtual/powercap/intel-rapl/intel-rapl:0/name", "package-0\n");
    host.write_sys("devices/virtual/powercap/intel-rapl/intel-rapl:0/energy_uj", "42\n");
    std::fs::create_dir_all(host.sysfs().join("class/powercap")).unwrap();
    let target = "../../devices/virtual/powercap/intel-rapl/intel-rapl:0";
    std::os::unix::fs::symlink(target, host.zone_dir("intel-rapl:0")).unwrap();
    assert_eq!(read(&mut open(&host)), [Ok(42)]);
}
