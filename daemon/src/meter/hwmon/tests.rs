use super::*;
use tempfile::TempDir;

/// A chip of hwmon: its attributes are at hwmonN or at its device.
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

fn open(root: &TempDir, packages: bool) -> Option<Hwmon> {
    Hwmon::open(&root.path().join("class/hwmon"), packages)
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
    let before = open(&root, true).unwrap().domains;
    fs::rename(&place, root.path().join("class/hwmon/hwmon7")).unwrap();
    let after = open(&root, true).unwrap().domains;
    assert_eq!(before[0].id, after[0].id);
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
    assert!(open(&root, false).is_none());
}

#[test]
fn one_level_of_grace_is_billed() {
    let root = TempDir::new().unwrap();
    for (number, oem) in
        ["Module Power Socket 0", "Grace Power Socket 0", "CPU Power Socket 0", "SysIO Power Socket 0"].iter().enumerate()
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
    let attributes: Vec<(String, String)> = (1..=5).map(|n| (format!("power{n}_input"), format!("{}000000", n * 10))).collect();
    let mut attributes: Vec<(&str, &str)> = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
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
fn of_meters_that_do_not_say_what_they_measure_the_first_is_read_and_the_others_are_told_of() {
    let root = TempDir::new().unwrap();
    for number in 0..3 {
        chip_at(&root, number, &format!("ACPI000D:0{number}"), true, &[("name", "power_meter"), ("power1_average", "5000000")]);
    }
    let mut meter = open(&root, true).unwrap();
    assert_eq!(watts(&mut meter), [Ok(5.0)]);
    assert!(matches!(meter.health(), Health::Degraded(why) if why.starts_with("2 more power meter(s)")));
}
