//! Tests of the hwmon meter on fake trees: what each sensor is taken for, and chips that are added and removed.

use super::*;
use crate::model::source::PackageId;
use tempfile::TempDir;

/// Adds a chip, with its attributes at hwmonN or at its device; returns the folder that has them.
fn chip_at(root: &TempDir, number: u32, device: &str, at_device: bool, attributes: &[(&str, &str)]) -> PathBuf {
    let real = root.path().join("devices").join(device);
    let dir = root.path().join(format!("class/hwmon/hwmon{number}"));
    fs::create_dir_all(&real).unwrap();
    fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::symlink(&real, dir.join("device")).unwrap();
    let place = if at_device { real } else { dir };
    for (name, value) in attributes {
        fs::write(place.join(name), format!("{value}\n")).unwrap();
    }
    place
}

/// Opens the meter; `None` where it has no domain. `packages`: another meter measures the packages.
fn open(root: &TempDir, packages: bool) -> Option<Hwmon> {
    let measured = PackageMeters::default();
    measured.set(PackageMeter::RaplOrHost, packages);
    let meter = Hwmon::open(&root.path().join("class/hwmon"), measured);
    (!meter.domains.is_empty()).then_some(meter)
}

/// Writes a file of a device.
fn write(root: &TempDir, path: &str, text: &str) {
    let path = root.path().join("devices").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{text}\n")).unwrap();
}

fn read(meter: &mut Hwmon) -> Vec<(usize, Result<Reading, String>)> {
    let mut out = Vec::new();
    meter.read(Stamp::now(), &mut out);
    let index = |id| meter.domains.iter().position(|domain| domain.id == id).unwrap();
    out.into_iter().map(|one| (index(one.domain), one.reading)).collect()
}

fn counter(microjoules: u64) -> Result<Reading, String> {
    Ok(Reading::Counter { total: Microjoules(microjoules), wraps_at: None })
}

fn gauge(microwatts: u64) -> Result<Reading, String> {
    Ok(Reading::Gauge { power: Microwatts(microwatts) })
}

/// Why a meter without domains uses none of its sensors.
fn why_unused(root: &TempDir) -> String {
    let meter = Hwmon::open(&root.path().join("class/hwmon"), PackageMeters::default());
    assert!(meter.domains.is_empty(), "{:?}", meter.domains);
    let Health::Unsupported(why) = meter.health() else { panic!("{:?}", meter.health()) };
    why
}

fn ids(meter: &Hwmon) -> Vec<(&str, Zone)> {
    meter.domains.iter().map(|domain| (domain.id.as_str(), domain.zone)).collect()
}

fn watts(meter: &mut Hwmon) -> Vec<Result<f64, String>> {
    let mut out = Vec::new();
    meter.read(Stamp::now(), &mut out);
    out.into_iter()
        .map(|one| match one.reading? {
            Reading::Gauge { power } => Ok(power.watts()),
            _ => panic!("a power is no counter"),
        })
        .collect()
}

#[test]
fn an_acpi_power_meter_of_linux_6_12_has_no_name_and_its_files_at_the_device() {
    let root = TempDir::new().unwrap();
    chip_at(
        &root,
        3,
        "ACPI000D:00",
        true,
        &[("power1_average", "137000000"), ("power1_is_battery", "0"), ("power1_average_interval", "1000")],
    );
    let mut meter = open(&root, true).unwrap();
    assert_eq!(ids(&meter), [("hwmon/ACPI000D:00/platform", Zone::Platform)]);
    assert_eq!(watts(&mut meter), [Ok(137.0)]);
    assert_eq!(meter.health(), Health::Healthy);
}

#[test]
fn renumbered_chips_are_the_same_domains() {
    let root = TempDir::new().unwrap();
    let place = chip_at(&root, 3, "ACPI000D:00", false, &[("name", "power_meter"), ("power1_average", "1000000")]);
    let mut meter = open(&root, true).unwrap();
    let before = meter.domains.clone();
    assert_eq!(watts(&mut meter), [Ok(1.0)]);
    // The driver is reloaded, and a disk gets its old number.
    fs::rename(&place, root.path().join("class/hwmon/hwmon7")).unwrap();
    fs::write(root.path().join("class/hwmon/hwmon7/power1_average"), "2000000").unwrap();
    chip_at(&root, 3, "nvme0", true, &[("name", "nvme"), ("power1_input", "9000000")]);
    let seen: Vec<_> = (0..3).flat_map(|_| watts(&mut meter)).collect();
    assert!(seen.iter().all(|one| one.as_ref().map_or(true, |watts| *watts == 2.0)), "{seen:?}");
    assert_eq!(seen.last(), Some(&Ok(2.0)));
    assert_eq!((meter.domains.clone(), meter.health()), (before.clone(), Health::Healthy));
    assert_eq!(open(&root, true).unwrap().domains[0].id, before[0].id);
}

#[test]
fn a_gpu_or_a_disk_is_never_a_processor() {
    let root = TempDir::new().unwrap();
    for (number, name) in [(0, "amdgpu"), (1, "nvme"), (2, "i915"), (3, "xe"), (4, "ina226"), (5, "coretemp")] {
        chip_at(
            &root,
            number,
            &format!("d{number}"),
            false,
            &[("name", name), ("power1_average", "90000000"), ("energy1_input", "1")],
        );
    }
    let why = why_unused(&root);
    assert!(why.starts_with("no power sensor whose meaning is known in "), "{why}");
    for text in [
        "amdgpu at d0: it is of no PCI device: which GPU it is of is not known",
        "nvme at d1: what it measures is not known",
        "ina226 at d4: what it measures is not known",
    ] {
        assert!(why.contains(text), "{text:?} is not in {why}");
    }
    let mut meter = Hwmon::open(&root.path().join("class/hwmon"), PackageMeters::default());
    assert_eq!(read(&mut meter), []);
}

#[test]
fn one_level_of_grace_is_billed() {
    let root = TempDir::new().unwrap();
    for (number, oem) in ["Module Power Socket 0", "Grace Power Socket 0", "CPU Power Socket 0", "SysIO Power Socket 0"]
        .iter()
        .enumerate()
    {
        let power = ["600000000", "300000000", "200000000", "50000000"][number];
        let attributes = [("name", "power_meter"), ("power1_average", power), ("power1_oem_info", oem)];
        chip_at(&root, number as u32, &format!("ACPI000D:0{number}"), true, &attributes);
    }
    let meter = open(&root, false).unwrap();
    let billed: Vec<&Domain> = meter.domains.iter().filter(|domain| domain.billed).collect();
    assert_eq!((billed.len(), billed[0].zone, billed[0].scope), (1, Zone::Package, Scope::Package(PackageId(0))));
    assert_eq!(meter.domains.len(), 4);
}

#[test]
fn altra_adds_its_regulators_up_unless_packages_are_measured() {
    let root = TempDir::new().unwrap();
    let attributes: Vec<(String, String)> =
        (1..=5).map(|n| (format!("power{n}_input"), format!("{}000000", n * 10))).collect();
    let mut attributes: Vec<(&str, &str)> =
        attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    attributes.push(("name", "smpro"));
    chip_at(&root, 0, "smpro-hwmon", false, &attributes);
    let mut meter = open(&root, false).unwrap();
    assert_eq!(watts(&mut meter), [Ok(30.0), Ok(70.0)]);
    assert!(open(&root, true).is_none());
}

#[test]
fn no_reading_is_no_number() {
    let root = TempDir::new().unwrap();
    let place = chip_at(&root, 0, "ACPI000D:00", true, &[("name", "power_meter"), ("power1_average", "0")]);
    let mut meter = open(&root, true).unwrap();
    for bad in ["0", "", "-5", "abc"] {
        fs::write(place.join("power1_average"), bad).unwrap();
        assert!(watts(&mut meter)[0].as_ref().is_err_and(|why| why.contains("power1_average")), "{bad}");
        assert!(matches!(meter.health(), Health::Failed(_)));
    }
    fs::remove_file(place.join("power1_average")).unwrap();
    assert!(watts(&mut meter)[0].is_err());
}

#[test]
fn of_several_undescribed_power_meters_the_first_is_read() {
    let root = TempDir::new().unwrap();
    for number in 0..3 {
        chip_at(
            &root,
            number,
            &format!("ACPI000D:0{number}"),
            true,
            &[("name", "power_meter"), ("power1_average", "5000000")],
        );
    }
    let mut meter = open(&root, true).unwrap();
    assert_eq!(watts(&mut meter), [Ok(5.0)]);
    assert!(matches!(meter.health(), Health::Degraded(why) if why.starts_with("2 more power meter(s)")));
}

const INTEL_CARD: &str = "pci0000:00/0000:00:01.0/0000:03:00.0";

#[test]
fn an_intel_card_has_an_energy_counter_and_is_billed() {
    let root = TempDir::new().unwrap();
    write(&root, &format!("{INTEL_CARD}/vendor"), "0x8086");
    write(&root, &format!("{INTEL_CARD}/device"), "0x56c0");
    chip_at(&root, 2, INTEL_CARD, false, &[("name", "i915"), ("energy1_input", "123456")]);
    chip_at(&root, 3, INTEL_CARD, false, &[("name", "i915_gt0"), ("energy1_input", "99")]);
    let mut meter = open(&root, true).unwrap();
    let pci = "0000:03:00.0";
    assert_eq!(ids(&meter), [("gpu/0000:03:00.0", Zone::Gpu)]);
    let domain = &meter.domains[0];
    assert_eq!((domain.scope, domain.billed, domain.continuous), (Scope::Gpu(pci.parse().unwrap()), true, false));
    let info = GpuInfo { index: 0, uuid: pci.into(), name: "8086:56c0".into(), vendor: "intel".into() };
    assert_eq!(domain.gpu, Some(info));
    assert_eq!(read(&mut meter), [(0, counter(123_456))]);
    assert!(meter.detail().contains("i915_gt0 at 0000:03:00.0: a tile of a GPU"), "{}", meter.detail());
    assert_eq!(meter.health(), Health::Healthy);
}

#[test]
fn xe_counts_the_card_and_not_the_package_on_it() {
    let root = TempDir::new().unwrap();
    let attributes = [
        ("name", "xe"),
        ("energy1_input", "500"),
        ("energy1_label", "card"),
        ("energy2_input", "300"),
        ("energy2_label", "pkg"),
    ];
    chip_at(&root, 2, INTEL_CARD, false, &attributes);
    let mut meter = open(&root, true).unwrap();
    assert_eq!(read(&mut meter), [(0, counter(500))]);
    let package_alone = TempDir::new().unwrap();
    chip_at(
        &package_alone,
        2,
        INTEL_CARD,
        false,
        &[("name", "xe"), ("energy2_input", "300"), ("energy2_label", "pkg")],
    );
    assert_eq!(read(&mut open(&package_alone, true).unwrap()), [(0, counter(300))]);
}

#[test]
fn intel_graphics_in_a_processor_are_not_counted_twice() {
    let root = TempDir::new().unwrap();
    chip_at(&root, 2, "pci0000:00/0000:00:02.0", false, &[("name", "i915"), ("energy1_input", "1")]);
    // All GPUs are one zone, which is part of the sum that counts everything once.
    let why = why_unused(&root);
    assert!(why.contains("i915 at 0000:00:02.0: it measures graphics that are part of a processor"), "{why}");
}

#[test]
fn an_amd_card_is_billed_by_the_power_of_its_board() {
    let root = TempDir::new().unwrap();
    for (number, bus) in [(5, "03"), (4, "83")] {
        let device = format!("pci0000:00/0000:{bus}:00.0");
        write(&root, &format!("{device}/vendor"), "0x1002");
        write(&root, &format!("{device}/product_name"), "AMD Instinct\u{1b}[31m MI210");
        write(&root, &format!("pci0000:00/0000:{bus}:00.1/vendor"), "0x1002");
        let value = if bus == "03" { "power1_average" } else { "power1_input" };
        chip_at(&root, number, &device, false, &[("name", "amdgpu"), (value, "90000000"), ("power1_label", "PPT")]);
    }
    let mut meter = open(&root, true).unwrap();
    assert_eq!(ids(&meter), [("gpu/0000:03:00.0", Zone::Gpu), ("gpu/0000:83:00.0", Zone::Gpu)]);
    assert_eq!(read(&mut meter), [(0, gauge(90_000_000)), (1, gauge(90_000_000))]);
    let gpu = meter.domains[1].gpu.as_ref().unwrap();
    assert_eq!((gpu.index, gpu.vendor.as_str(), gpu.name.as_str()), (1, "amd", "AMD Instinct\\u{1b}[31m MI210"));
    assert!(meter.domains.iter().all(|domain| domain.billed && domain.max_power == PART_MAX));
}

#[test]
fn amd_graphics_in_a_processor_are_not_counted_twice() {
    let apu = |attributes: &[(&str, &str)], sibling: &str, device: &str| {
        let root = TempDir::new().unwrap();
        let at = "pci0000:00/0000:04:00.0";
        write(&root, &format!("{at}/vendor"), "0x1002");
        write(&root, &format!("{at}/device"), device);
        write(&root, "pci0000:00/0000:04:00.2/vendor", sibling);
        let mut all = vec![("name", "amdgpu"), ("power1_average", "15000000")];
        all.extend_from_slice(attributes);
        chip_at(&root, 1, at, false, &all);
        why_unused(&root)
    };
    for why in [
        apu(&[("power1_label", "slowPPT"), ("power2_average", "1"), ("power2_label", "fastPPT")], "0x1002", "0x163f"),
        apu(&[("power1_label", "PPT")], "0x1022", "0x15bf"),
        apu(&[("power1_label", "PPT")], "0x1002", "0x74a0"),
    ] {
        assert!(
            why.contains("amdgpu at 0000:04:00.0: it measures the processor that the graphics are part of"),
            "{why}"
        );
    }
}

#[test]
fn a_suspended_gpu_is_not_woken() {
    let root = TempDir::new().unwrap();
    let place = chip_at(&root, 2, INTEL_CARD, false, &[("name", "xe"), ("energy1_input", "500")]);
    write(&root, &format!("{INTEL_CARD}/power/runtime_status"), "active");
    let mut meter = open(&root, true).unwrap();
    assert_eq!(read(&mut meter), [(0, counter(500))]);
    write(&root, &format!("{INTEL_CARD}/power/runtime_status"), "suspended");
    fs::remove_file(place.join("energy1_input")).unwrap();
    assert_eq!(read(&mut meter), [(0, Ok(Reading::Standby))]);
    assert_eq!(read(&mut meter), []);
    assert_eq!(meter.health(), Health::Healthy);
    assert!(meter.detail().ends_with("(asleep)"), "{}", meter.detail());
    fs::write(place.join("energy1_input"), "7").unwrap();
    write(&root, &format!("{INTEL_CARD}/power/runtime_status"), "active");
    assert_eq!(read(&mut meter), [(0, counter(7))]);
}

#[test]
fn nvidia_and_scmi_sensors_are_not_used_for_a_reason() {
    let root = TempDir::new().unwrap();
    chip_at(&root, 0, "pci0000:00/0000:01:00.0", false, &[("name", "nouveau"), ("power1_input", "90000000")]);
    chip_at(
        &root,
        1,
        "firmware:scmi",
        false,
        &[("name", "scmi_sensors"), ("energy1_input", "5"), ("power1_input", "6")],
    );
    let why = why_unused(&root);
    assert!(why.contains("nouveau at 0000:01:00.0: NVIDIA's GPUs are read by NVML"), "{why}");
    assert!(why.contains("scmi_sensors at firmware:scmi: its firmware does not say what its sensors cover"), "{why}");
}

#[test]
fn a_name_from_firmware_is_made_printable_and_a_long_list_is_cut() {
    let root = TempDir::new().unwrap();
    for number in 0..12 {
        chip_at(
            &root,
            number,
            &format!("d{number:02}"),
            false,
            &[("name", "evil\u{1b}[2J\"name"), ("power1_input", "1")],
        );
    }
    let why = why_unused(&root);
    assert!(!why.chars().any(char::is_control), "{why:?}");
    assert!(why.ends_with("; and 4 more"), "{why}");
}

#[test]
fn an_acpi_meter_states_its_error_and_its_refresh() {
    let root = TempDir::new().unwrap();
    let attributes = [
        ("name", "power_meter"),
        ("power1_average", "137000000"),
        ("power1_accuracy", "95.0%"),
        ("power1_average_interval", "30000"),
        ("measures/LNXSYBUS:00", ""),
    ];
    fs::create_dir_all(root.path().join("devices/ACPI000D:00/measures")).unwrap();
    chip_at(&root, 0, "ACPI000D:00", true, &attributes);
    let meter = open(&root, true).unwrap();
    let domain = &meter.domains[0];
    assert_eq!((domain.accuracy_ppm, domain.refresh), (Some(50_000), Some(Nanos(30 * Nanos::SECOND.0))));
    assert_eq!((domain.zone, domain.scope, domain.billed), (Zone::Platform, Scope::Machine, false));
}

#[test]
fn an_acpi_meter_of_a_battery_or_of_some_devices_does_not_measure_the_machine() {
    let battery = TempDir::new().unwrap();
    let attributes = [("name", "power_meter"), ("power1_average", "5000000"), ("power1_is_battery", "1")];
    chip_at(&battery, 0, "ACPI000D:00", true, &attributes);
    assert!(why_unused(&battery).contains("it meters a battery"));
    let some = TempDir::new().unwrap();
    fs::create_dir_all(some.path().join("devices/ACPI000D:00/measures")).unwrap();
    let attributes = [
        ("name", "power_meter"),
        ("power1_average", "5000000"),
        ("measures/LNXCPU:00", ""),
        ("measures/LNXCPU:01", ""),
    ];
    chip_at(&some, 0, "ACPI000D:00", true, &attributes);
    let why = why_unused(&some);
    assert!(why.contains("it measures LNXCPU:00, LNXCPU:01 and not the machine"), "{why}");
}

#[test]
fn amd_energy_counts_sockets_and_no_cores() {
    let root = TempDir::new().unwrap();
    let attributes = [
        ("name", "amd_energy"),
        ("energy1_input", "11"),
        ("energy1_label", "Ecore000"),
        ("energy2_input", "22"),
        ("energy2_label", "Esocket0"),
        ("energy3_input", "33"),
        ("energy3_label", "Esocket1"),
        ("energy4_input", "4"),
        ("energy4_label", "Ecore001"),
    ];
    chip_at(&root, 0, "amd_energy.0", false, &attributes);
    let mut meter = open(&root, false).unwrap();
    assert_eq!(
        ids(&meter),
        [
            ("hwmon/amd_energy.0/package-0", Zone::Package),
            ("hwmon/amd_energy.0/package-1", Zone::Package),
            ("hwmon/amd_energy.0/core", Zone::Core)
        ]
    );
    assert_eq!(read(&mut meter), [(0, counter(22)), (1, counter(33)), (2, counter(15))]);
    assert!(meter.domains.iter().all(|domain| domain.billed == (domain.zone == Zone::Package)));
    assert!(meter.detail().contains("and those of all 2 cores, added up"), "{}", meter.detail());
    assert_eq!(meter.domains[1].scope, Scope::Package(PackageId(1)));
    assert!(open(&root, true).is_none());
}

#[test]
fn package_sensors_are_on_standby_while_rapl_measures() {
    let root = TempDir::new().unwrap();
    let place = chip_at(&root, 0, "APMC0D29:00", false, &[("name", "apm_xgene"), ("power0_input", "20000000")]);
    let packages = PackageMeters::default();
    let mut meter = Hwmon::open(&root.path().join("class/hwmon"), packages.clone());
    assert_eq!(read(&mut meter), [(0, gauge(20_000_000))]);
    assert!(packages.has(PackageMeter::Hwmon));
    packages.set(PackageMeter::RaplOrHost, true);
    assert_eq!(read(&mut meter), [(0, Ok(Reading::Standby))]);
    assert_eq!(read(&mut meter), []);
    assert!(!packages.has(PackageMeter::Hwmon));
    assert_eq!(meter.health(), Health::Unsupported("standing by: the packages are measured already".into()));
    packages.set(PackageMeter::RaplOrHost, false);
    assert_eq!(read(&mut meter), [(0, gauge(20_000_000))]);
    // The time without the sensor is the estimate's, so no energy is integrated over it.
    fs::remove_file(place.join("power0_input")).unwrap();
    assert_eq!(read(&mut meter), [(0, Ok(Reading::Standby))]);
    assert!(!packages.any() && matches!(meter.health(), Health::Failed(why) if why.contains("power0_input")));
    drop(meter);
    assert!(!packages.any());
}

#[test]
fn a_chip_that_is_added_later_is_found_while_another_is_read() {
    let root = TempDir::new().unwrap();
    chip_at(&root, 0, "ACPI000D:00", true, &[("name", "power_meter"), ("power1_average", "5000000")]);
    let mut meter = open(&root, true).unwrap();
    assert_eq!(watts(&mut meter), [Ok(5.0)]);
    chip_at(&root, 1, INTEL_CARD, false, &[("name", "xe"), ("energy1_input", "500")]);
    let last = (0..RESCAN_EVERY).map(|_| read(&mut meter)).last().unwrap();
    assert_eq!(last, [(0, gauge(5_000_000)), (1, counter(500))]);
}

#[test]
fn x_gene_has_the_names_of_its_driver_or_of_its_documentation() {
    let labels = [("power1_label", "CPU power"), ("power2_label", "IO power")];
    let driver = [("name", "apm_xgene"), ("power1_input", "31000000"), ("power2_input", "9000000")];
    let labelled: Vec<_> = driver.into_iter().chain(labels).collect();
    let documented = vec![("name", "apm_xgene"), ("power0_input", "31000000"), ("power1_input", "9000000")];
    for attributes in [labelled, driver.to_vec(), documented] {
        let root = TempDir::new().unwrap();
        chip_at(&root, 0, "APMC0D29:00", false, &attributes);
        let mut meter = open(&root, false).unwrap();
        assert_eq!(read(&mut meter), [(0, gauge(31_000_000))], "{attributes:?}");
        // Were it in another unit, 31 kW, it would be above this.
        assert_eq!(meter.domains[0].max_power, PART_MAX);
    }
    let root = TempDir::new().unwrap();
    chip_at(&root, 0, "APMC0D29:00", false, &[("name", "apm_xgene"), ("power2_input", "9000000")]);
    let meter = Hwmon::open(&root.path().join("class/hwmon"), PackageMeters::default());
    assert!(meter.health().why().contains("it has no sensor of the processor"), "{:?}", meter.health());
}

#[test]
fn where_the_average_cannot_be_read_the_momentary_power_is() {
    let root = TempDir::new().unwrap();
    let place = chip_at(&root, 0, "0000:03:00.0", false, &[("name", "amdgpu"), ("power1_input", "87000000")]);
    // A folder can be found and not be read, as a file that answers EOPNOTSUPP.
    fs::create_dir(place.join("power1_average")).unwrap();
    let mut meter = open(&root, false).unwrap();
    assert_eq!(read(&mut meter), [(0, gauge(87_000_000))]);
    assert_eq!(meter.health(), Health::Healthy);
    fs::remove_file(place.join("power1_input")).unwrap();
    let wrong = read(&mut meter);
    assert!(matches!(&wrong[..], [(0, Err(why))] if why.contains("power1_average")), "{wrong:?}");
}
