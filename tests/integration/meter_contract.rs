//! The contract of `meter::Meter` for every section `[meter.NAME]` that `open_all` knows, each with a stand-in for its
//! hardware: ids, scopes, zones, kinds of platform meters, units, times, and that no read delays a tick while the
//! source hangs. A section without a case here fails the test. Not whether the numbers are right: that is in each
//! meter's own tests.

use crate::common::plug_sim::{self, Plug};
use crate::common::redfish_sim::{self, Fault};
use crate::common::redfish_trees::{self, UUID};
use crate::common::sysfs::{FakeHost, ICE_LAKE_SERVER};
use crate::common::{ProtocolHost, until};
use crate::ipmi_sim;
use figment::Figment;
use figment::providers::{Format, Toml};
use jouled::meter::{Meter, MeterConfig, Roots, Topology, open_all};
use jouled::model::domain::{Domain, DomainId, DomainReading, Quality, Reading, Scope, Zone};
use jouled::model::source::Stamp;
use jouled::model::units::{Microwatts, Nanos};
use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// No read may take longer. Only a read that waits for its source does, as a source that hangs never answers.
const LONGEST_READ: Duration = Duration::from_secs(4);
/// Reads go on for this long while the source hangs.
const HANGING: Duration = Duration::from_secs(3);
/// Variants of sections that have another case: RAPL has two interfaces.
const VARIANTS: [&str; 1] = ["rapl by perf"];

/// A section, and a machine that has what it reads.
struct Case {
    host: FakeHost,
    /// `[meter]` with this section.
    config: String,
    /// Sources that must have domains with readings.
    sources: &'static [&'static str],
    /// Makes the source hang. `None`: counters of the kernel, which do not hang, and are read in the tick itself.
    hang: Option<Box<dyn FnOnce()>>,
    /// The stand-in, for as long as the case is needed.
    stand_in: Box<dyn Any>,
}

impl Case {
    fn new(host: FakeHost, config: &str, sources: &'static [&'static str]) -> Self {
        Self { host, config: config.to_owned(), sources, hang: None, stand_in: Box::new(()) }
    }

    fn hangs(self, hang: impl FnOnce() + 'static, stand_in: impl Any) -> Self {
        Self { hang: Some(Box::new(hang)), stand_in: Box::new(stand_in), ..self }
    }

    /// Opens the section's meters, as jouled does.
    fn open(&self) -> Vec<Box<dyn Meter>> {
        let config: MeterConfig = Figment::from(Toml::string(&self.config)).extract().unwrap();
        let roots = Roots { sysfs: self.host.sysfs(), procfs: self.host.procfs() };
        let (meters, _) = open_all(&config, &roots, &Topology::read(&roots));
        meters.into_iter().filter(|meter| self.sources.contains(&meter.source())).collect()
    }
}

/// The case of a section. `Err`: why this machine cannot run it.
fn case(section: &str) -> Result<Case, String> {
    let host = FakeHost::new();
    host.cpus(1, 2, &ICE_LAKE_SERVER);
    host.stat(&[100, 100], &[900, 900]);
    let dir = host.sysfs().parent().unwrap().to_owned();
    Ok(match section {
        "rapl" => {
            for (zone, name) in [("", "package-0"), (":0", "core"), (":1", "dram")] {
                host.zone(&format!("intel-rapl:0{zone}"), name, 1_000_000);
            }
            host.zone("intel-rapl:1", "psys", 1_000_000);
            Case::new(host, "[rapl]\nvia = \"powercap\"", &["rapl-powercap"])
        }
        "rapl by perf" => {
            // The software clock of this kernel stands for an energy event.
            host.power_pmu(1, "0", &[("energy-pkg", 0)]);
            let case = Case::new(host, "[rapl]\nvia = \"perf\"", &["rapl-perf"]);
            match case.open()[0].health() {
                health if health.answers() => case,
                health => return Err(health.why().to_owned()),
            }
        }
        "vsock" => {
            let path = dir.join("host.sock");
            let config = format!("[vsock]\nconnect = \"unix:{}\"", path.display());
            let channel = Arc::new(Mutex::new(ProtocolHost::new(&path)));
            let (sending, closing) = (Arc::downgrade(&channel), channel.clone());
            thread::spawn(move || {
                while let Some(channel) = sending.upgrade() {
                    channel.lock().unwrap().send_epoch();
                    drop(channel);
                    thread::sleep(Duration::from_millis(100));
                }
            });
            // The kernel accepts connections, and nothing is ever answered.
            let hang = move || {
                closing.lock().unwrap().close();
                std::mem::forget(UnixListener::bind(&path).unwrap());
            };
            Case::new(host, &config, &["vsock"]).hangs(hang, channel)
        }
        "nvml" => {
            let (library, answers) = (dir.join("libnvidia-ml.so.1"), dir.join("nvml.txt"));
            fs::write(&answers, format!("{}energy 0 1000\n", crate::gpu::ONE)).unwrap();
            if !crate::gpu::build_stand_in(&library, &answers) {
                return Err("no C compiler for the stand-in of NVML".to_owned());
            }
            let config = format!("[nvml]\nlibrary = \"{}\"", library.display());
            Case::new(host, &config, &["nvml"]).hangs(move || fs::write(&answers, "hang 3600\n").unwrap(), ())
        }
        "hwmon" => {
            let device = "devices/LNXSYSTM:00/ACPI000D:00";
            let power = host.sysfs().join(device).join("power1_average");
            host.write_sys(&format!("{device}/power1_average"), "137000000\n");
            host.write_sys(&format!("{device}/power1_is_battery"), "0\n");
            fs::create_dir_all(host.sysfs().join("class/hwmon/hwmon4")).unwrap();
            symlink(host.sysfs().join(device), host.sysfs().join("class/hwmon/hwmon4/device")).unwrap();
            // Opening a FIFO waits for a writer.
            let hang = move || {
                fs::remove_file(&power).unwrap();
                assert!(Command::new("mkfifo").arg(&power).status().unwrap().success());
            };
            Case::new(host, "", &["hwmon"]).hangs(hang, ())
        }
        "ipmi" => {
            let sim = ipmi_sim::Sim::start().ok_or("no ipmi_sim")?;
            let (port, password) = (sim.port, dir.join("password"));
            fs::write(&password, format!("{}\n", ipmi_sim::PASSWORD)).unwrap();
            let config = format!(
                "[ipmi]\nperiod = \"1s\"\n[[ipmi.lan]]\nname = \"bmc\"\naddress = \"127.0.0.1:{port}\"\nusername = \"{}\"\n\
                 password_file = {password:?}\nprivilege = \"administrator\"\ntimeout = \"3s\"",
                ipmi_sim::USER
            );
            let sim = Arc::new(Mutex::new(sim));
            let killed = sim.clone();
            // The port stays open, and nothing is ever answered.
            let hang = move || {
                killed.lock().unwrap().kill();
                std::mem::forget(UdpSocket::bind(("127.0.0.1", port)).unwrap());
            };
            Case::new(host, &config, &["ipmi:bmc"]).hangs(hang, sim)
        }
        "redfish" => {
            let sim = Arc::new(redfish_sim::Sim::start(redfish_trees::modern()));
            host.write_sys("class/dmi/id/product_uuid", format!("{UUID}\n"));
            let (password, ca) = (dir.join("bmc.password"), dir.join("ca.pem"));
            fs::write(&password, format!("{}\n", redfish_sim::PASSWORD)).unwrap();
            fs::write(&ca, &sim.ca).unwrap();
            let config = format!(
                "[[redfish.bmc]]\nurl = {:?}\nusername = {:?}\npassword_file = {password:?}\nca_file = {ca:?}\n\
                 period = \"1s\"\ntimeout = \"8s\"",
                sim.url(),
                redfish_sim::USER
            );
            let hanging = sim.clone();
            Case::new(host, &config, &["redfish"]).hangs(move || hanging.fail("GET", usize::MAX, Fault::Hang), sim)
        }
        "http" => {
            let plug = Plug::start();
            let page = |tick: u64| {
                let (watts, wh) = (83.0 + tick as f64 % 3.0, 1234.0 + tick as f64 / 50.0);
                format!(r#"{{"switch:0": {{"apower": {watts}, "aenergy": {{"total": {wh:.3}}}}}}}"#)
            };
            plug.page("/shelly", r#"{"gen": 2}"#);
            plug.page("/rpc/Shelly.GetStatus", page(0));
            changes(plug.clone(), "/rpc/Shelly.GetStatus", page);
            let config = format!(
                "[[http]]\nname = \"plug\"\nurl = {:?}\npreset = \"shelly\"\nmeasures = \"this machine\"\n\
                 period = \"1s\"\ntimeout = \"8s\"",
                plug.url()
            );
            let hanging = plug.clone();
            Case::new(host, &config, &["http:plug"]).hangs(move || hanging.fault(Some(plug_sim::Fault::Hang)), plug)
        }
        "prometheus" => {
            let exporter = Plug::start();
            let page = |tick: u64| format!("pdu_watts {}\npdu_joules_total {}\n", 83 + tick % 3, 5000 + tick * 8);
            exporter.page("/metrics", page(0));
            changes(exporter.clone(), "/metrics", page);
            let config = format!(
                "[[prometheus]]\nname = \"pdu\"\nurl = \"{}/metrics\"\nfrom = \"page\"\nmeasures = \"this machine\"\n\
                 power = \"pdu_watts\"\nenergy = \"pdu_joules_total\"\nperiod = \"1s\"\ntimeout = \"8s\"",
                exporter.url()
            );
            let hanging = exporter.clone();
            let hang = move || hanging.fault(Some(plug_sim::Fault::Hang));
            Case::new(host, &config, &["prometheus:pdu"]).hangs(hang, exporter)
        }
        "snmp" => {
            let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = agent.local_addr().unwrap();
            let silent = Arc::new(AtomicBool::new(false));
            let hangs = silent.clone();
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                for tick in 0u8.. {
                    let Ok((length, peer)) = agent.recv_from(&mut buffer) else { return };
                    // The same message as an answer: a response, and in place of the NULL an INTEGER.
                    let mut answer = buffer[..length].to_vec();
                    let get = answer.iter().position(|byte| *byte == 0xa0).unwrap();
                    answer[get] = 0xa2;
                    answer.truncate(length - 2);
                    answer.extend([0x02, 0x01, 83 + tick % 3]);
                    let bindings = answer.windows(2).rposition(|pair| pair[0] == 0x30).unwrap();
                    let outer = answer[..bindings].iter().rposition(|byte| *byte == 0x30).unwrap();
                    for at in [1, get + 1, outer + 1, bindings + 1] {
                        answer[at] += 1;
                    }
                    if !silent.load(Ordering::Relaxed) && agent.send_to(&answer, peer).is_err() {
                        return;
                    }
                }
            });
            let config = format!(
                "[[snmp]]\nname = \"pdu\"\naddress = \"{address}\"\npower = \"1.3.6.1.4.1.99.1\"\n\
                 measures = \"this machine\"\nperiod = \"1s\"\ntimeout = \"4s\""
            );
            Case::new(host, &config, &["snmp:pdu"]).hangs(move || hangs.store(true, Ordering::Relaxed), ())
        }
        "mqtt" => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let silent = Arc::new(AtomicBool::new(false));
            let hangs = silent.clone();
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let silent = silent.clone();
                    thread::spawn(move || {
                        // CONNACK, SUBACK, and a PUBLISH of "t" ten times a second, whatever it asks.
                        let _ = stream.write_all(&[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0]);
                        for tick in 0u8.. {
                            thread::sleep(Duration::from_millis(100));
                            let publish = [0x30, 5, 0, 1, b't', b'8', b'0' + tick % 10];
                            if !silent.load(Ordering::Relaxed) && stream.write_all(&publish).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
            let config = format!(
                "[[mqtt]]\nname = \"plug\"\nbroker = \"mqtt://{address}\"\ntopic = \"t\"\npower = \"\"\n\
                 measures = \"this machine\"\nperiod = \"1s\"\ntimeout = \"4s\""
            );
            Case::new(host, &config, &["mqtt:plug"]).hangs(move || hangs.store(true, Ordering::Relaxed), ())
        }
        "nut" => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let silent = Arc::new(AtomicBool::new(false));
            let hangs = silent.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let silent = silent.clone();
                    thread::spawn(move || {
                        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                        for (tick, _) in lines.map_while(Result::ok).enumerate() {
                            while silent.load(Ordering::Relaxed) {
                                thread::sleep(Duration::from_millis(100));
                            }
                            let answer = format!("VAR rack ups.realpower \"{}\"\n", 137 + tick % 3);
                            if (&stream).write_all(answer.as_bytes()).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
            let config = format!(
                "[[nut]]\nname = \"ups\"\naddress = \"{address}\"\nups = \"rack\"\nmeasures = \"this machine\"\n\
                 period = \"1s\"\ntimeout = \"4s\""
            );
            Case::new(host, &config, &["nut:ups"]).hangs(move || hangs.store(true, Ordering::Relaxed), ())
        }
        "estimate" => Case::new(host, "[estimate]\nuse = \"always\"", &["estimate"]),
        other => panic!("[meter.{other}] has no case: every meter keeps the contract, so add one"),
    })
}

/// Changes a page ten times a second, as long as the test runs.
fn changes(plug: Plug, path: &'static str, page: impl Fn(u64) -> String + Send + 'static) {
    thread::spawn(move || {
        for tick in 1.. {
            thread::sleep(Duration::from_millis(100));
            plug.page(path, page(tick));
        }
    });
}

/// The sections of `[meter]` that this build knows, as it lists them where one is misspelt.
fn sections() -> Vec<String> {
    let error = Figment::from(Toml::string("no_such_section = 1")).extract::<MeterConfig>().unwrap_err();
    let figment::error::Kind::UnknownField(_, known) = error.kind else { panic!("{error}") };
    known.iter().map(|section| (*section).to_owned()).collect()
}

/// Reads once. It must not take long.
fn read(meter: &mut dyn Meter) -> Vec<DomainReading> {
    let (before, mut readings) = (Instant::now(), Vec::new());
    meter.read(Stamp::now(), &mut readings);
    assert!(before.elapsed() < LONGEST_READ, "{}: a read took {:?}", meter.source(), before.elapsed());
    readings
}

/// Reads until each domain has been read twice, or has had the time for it. The good readings of each domain, in order.
fn read_twice(meter: &mut dyn Meter) -> BTreeMap<DomainId, Vec<DomainReading>> {
    let mut all: BTreeMap<DomainId, Vec<DomainReading>> = BTreeMap::new();
    let mut enough = None;
    until(&format!("readings by {}", meter.source()), || {
        let readings = read(meter);
        for (number, reading) in readings.iter().enumerate() {
            check_reading(meter, reading);
            let again = readings[..number].iter().any(|earlier| earlier.domain == reading.domain);
            assert!(!again, "{}: two readings of {} at one tick", meter.source(), reading.domain);
        }
        for reading in readings.into_iter().filter(|reading| reading.reading.is_ok()) {
            all.entry(reading.domain.clone()).or_default().push(reading);
        }
        let domains = meter.domains();
        if !domains.is_empty() && domains.iter().all(|domain| all.contains_key(&domain.id)) {
            // A meter that has nothing new says nothing: two seconds are enough for one that has.
            let end = *enough.get_or_insert_with(|| Instant::now() + Duration::from_secs(2));
            return (all.values().all(|readings| readings.len() > 1) || Instant::now() > end).then_some(());
        }
        None
    });
    all
}

fn check_reading(meter: &dyn Meter, reading: &DomainReading) {
    let DomainReading { domain: id, at, reading, .. } = reading;
    let domain = meter.domains().iter().find(|domain| domain.id == *id);
    let domain = domain.unwrap_or_else(|| panic!("{}: a reading of {id}, which is no domain of it", meter.source()));
    let now = Stamp::now().monotonic;
    assert!(*at <= now && now - *at < Nanos(60 * Nanos::SECOND.0), "{id}: a reading of {at:?}, now is {now:?}");
    match reading {
        Ok(Reading::Gauge { power }) => assert!(*power <= domain.max_power, "{id}: {power:?}, {domain:?}"),
        Ok(Reading::Counter { total, wraps_at }) => {
            assert!(wraps_at.is_none_or(|range| *total <= range), "{id}: {total:?} of {wraps_at:?}");
        }
        Ok(Reading::Total { .. } | Reading::Standby) => {}
        Err(why) => assert!(!why.is_empty() && !why.contains('\n'), "{id}: one line says why: {why:?}"),
    }
}

/// The rules are listed at `Meter::domains`.
fn check_domain(meter: &dyn Meter, domain: &Domain) {
    let Domain { id, zone, scope, .. } = domain;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.:".contains(c);
    assert!(id.contains('/') && id.chars().all(plain), "{id:?}: letters, digits and /-_.:");
    assert_eq!(domain.source, meter.source(), "{id}");
    assert!(!domain.path.is_empty(), "{id}: where it is read");
    assert!(
        match (zone, scope) {
            // The host of a VM reports the whole VM's part.
            _ if domain.by_host => *scope == Scope::Machine,
            (Zone::Package | Zone::Core | Zone::Uncore | Zone::Dram, Scope::Package(_)) => true,
            // amd_energy does not say of which package a core is.
            (Zone::Core, Scope::Machine) => true,
            (Zone::Psys | Zone::Platform, Scope::Machine) => true,
            (Zone::Gpu, Scope::Gpu(_)) => true,
            _ => false,
        },
        "{id}: {zone:?} of {scope:?}"
    );
    assert_eq!(domain.gpu.is_some(), *zone == Zone::Gpu, "{id}: which GPU it is");
    let whole = matches!(zone, Zone::Psys | Zone::Platform) && !domain.by_host && domain.quality != Quality::Estimated;
    assert_eq!(domain.platform.is_some(), whole, "{id}: a meter of the whole machine says of which kind it is");
    if let Some(kind) = &domain.platform {
        assert!(MeterConfig::platform_kinds().contains(kind), "{id}: {kind} is in its section's platform_kinds");
        assert!(!domain.billed, "{id}: what it measures beyond the components is billed, as zone other");
    }
    assert!(!(domain.billed && matches!(zone, Zone::Core | Zone::Uncore)), "{id}: it is a part of the package");
    let watts = |watts: u64| Microwatts(watts * 1_000_000);
    assert!((watts(1)..=watts(1_000_000)).contains(&domain.max_power), "{id}: {:?}", domain.max_power);
    assert!(domain.at_rest.is_none_or(|power| power <= domain.max_power), "{id}: {:?}", domain.at_rest);
    assert!(domain.accuracy_ppm.is_none_or(|ppm| ppm < 1_000_000), "{id}: {:?}", domain.accuracy_ppm);
    assert!(domain.refresh.is_none_or(|time| time <= Nanos(3600 * Nanos::SECOND.0)), "{id}: {:?}", domain.refresh);
}

/// The readings of a domain are of one kind, in the order of time, and a counter does not fall.
fn check_sequence(readings: &[DomainReading]) {
    for pair in readings.windows(2) {
        let [before, after] = pair else { continue };
        let id = &before.domain;
        assert!(after.at >= before.at, "{id}: {after:?} after {before:?}");
        match (before.reading.as_ref().unwrap(), after.reading.as_ref().unwrap()) {
            (Reading::Standby, _) | (_, Reading::Standby) | (Reading::Gauge { .. }, Reading::Gauge { .. }) => {}
            (Reading::Counter { total: a, .. }, Reading::Counter { total: b, .. })
            | (Reading::Total { total: a, .. }, Reading::Total { total: b, .. }) => {
                assert!(b >= a, "{id}: {after:?} after {before:?}");
            }
            kinds => panic!("{id}: two kinds of reading: {kinds:?}"),
        }
    }
}

/// The parts of a domain that have to be the same when jouled starts again.
fn identity(domain: &Domain) -> impl PartialEq + std::fmt::Debug + use<> {
    let Domain { id, source, zone, scope, path, platform, .. } = domain.clone();
    (id, source, zone, scope, path, platform)
}

fn keeps_the_contract(section: &str) {
    let mut case = match case(section) {
        Ok(case) => case,
        Err(why) => return println!("skipped: [meter.{section}]: {why}"),
    };
    let mut known = Vec::new();
    for round in ["first", "second"] {
        let mut meters = case.open();
        let sources: Vec<String> = meters.iter().map(|meter| meter.source().to_owned()).collect();
        assert_eq!(sources, case.sources, "{section}");
        let mut domains = Vec::new();
        for meter in &mut meters {
            let meter = &mut **meter;
            read_twice(meter).values().for_each(|readings| check_sequence(readings));
            meter.domains().iter().for_each(|domain| check_domain(meter, domain));
            domains.extend(meter.domains().iter().map(identity));
            assert!(meter.health().answers(), "{section}: {:?}", meter.health());
        }
        for (number, domain) in domains.iter().enumerate() {
            assert!(!domains[..number].contains(domain), "{section}: {domain:?} is there twice");
        }
        if round == "first" {
            known = domains;
        } else {
            assert_eq!(domains, known, "{section}: the same domains after a restart");
        }
        if round == "second"
            && let Some(hang) = case.hang.take()
        {
            hang();
            let end = Instant::now() + HANGING;
            while Instant::now() < end {
                meters.iter_mut().for_each(|meter| drop(read(&mut **meter)));
                thread::sleep(Duration::from_millis(50));
            }
        }
        meters.iter_mut().for_each(|meter| meter.stop());
    }
    drop(case.stand_in);
}

#[test]
fn every_meter_keeps_the_contract() {
    let sections = sections();
    assert!(sections.len() >= 10, "{sections:?}");
    thread::scope(|scope| {
        let cases = sections.iter().map(String::as_str).chain(VARIANTS);
        let threads: Vec<_> = cases.map(|section| (section, scope.spawn(|| keeps_the_contract(section)))).collect();
        let broken: Vec<&str> =
            threads.into_iter().filter_map(|(section, thread)| thread.join().is_err().then_some(section)).collect();
        assert!(broken.is_empty(), "the contract is broken by {broken:?}: see above");
    });
}
