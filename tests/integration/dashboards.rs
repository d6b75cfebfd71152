//! Kepler's own dashboards, today's and those of 0.9, on a host with containers, pods and a VM that have names: a real
//! Prometheus scrapes jouled, and every query that asks for what a host can know has data, also where one namespace,
//! pod or container is chosen. Where there is no `prometheus`, it prints that it is skipped.
//!
//! The queries are facts, with their origin, in prometheus/kepler_dashboards.toml.

use crate::common::client::get;
use crate::common::kubelet::Pod;
use crate::common::programs::Running;
use crate::common::world::ZONES;
use crate::common::{Daemon, World, until};
use crate::gpu::{ONE, build_stand_in};
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/integration/prometheus/kepler_dashboards.toml");
pub const UID: &str = "0b3c9d5e-1f2a-4b6c-8d7e-9fa0b1c2d3e4";
pub const VM: &str = "8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7";
/// Process ids: a container of a pod, one of Docker, a VM, a service, a kernel thread.
const PIDS: [u32; 5] = [101, 102, 43, 50, 2];
const CORE: &str = "intel-rapl:0:1";
/// Zones and what is drawn of each in a step, in microjoules. More than idle hosts of this kind are assumed to draw.
const STEP_UJ: u64 = 3_000_000;

#[derive(Deserialize)]
struct Fixture {
    dashboard: Vec<Dashboard>,
}

#[derive(Deserialize)]
struct Dashboard {
    name: String,
    dialect: String,
    /// Name, label, and what it is a label of.
    variables: Vec<(String, String, String)>,
    queries: Vec<String>,
}

/// A fake host with a meter of each kind, and a daemon that shows it in one dialect.
pub struct Host {
    pub world: World,
    pub daemon: Daemon,
    gpu: PathBuf,
    steps: u64,
    /// Processes beside [`PIDS`] that run.
    pub more: Vec<u32>,
    /// Connections of helpers, which are open as long as the host is.
    pub helpers: Vec<UnixStream>,
}

impl Host {
    /// `None`, with a message, where there is no C compiler for the stand-in of NVML.
    fn start(dialect: &str) -> Option<Self> {
        let other = if dialect == "kepler" { "legacy" } else { "kepler" };
        Self::with(World::new(), &format!("[export.prometheus]\ndialects = {{ {dialect} = true, {other} = false }}\n"))
    }

    /// In `world`, with more configuration. `None`, with a message, where there is no C compiler.
    pub fn with(world: World, more: &str) -> Option<Self> {
        let dir = world.state.parent().unwrap().to_owned();
        let (library, gpu) = (dir.join("libnvidia-ml.so.1"), dir.join("nvml.txt"));
        fs::write(&gpu, format!("{ONE}energy 0 1000000\n")).unwrap();
        if !build_stand_in(&library, &gpu) {
            return None;
        }
        world.host.zone(CORE, "core", 1_000_000);
        meter_of_the_machine(&world);
        world.config(&format!(
            "[meter.nvml]\nlibrary = \"{}\"\n[attribution]\nidle = \"by-use\"\n[attribution.idle_watts]\npackage = 10\n{more}",
            library.display()
        ));
        let docker = format!("{:064x}", 102);
        let pod = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        let of_pod = format!("/kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{:064x}.scope", 101);
        world.kubelet().started(Pod("blue", "web-7d9f4", UID), "nginx", &format!("{:064x}", 101), 0);
        world.spawn(101, 101, "nginx", &of_pod, 0);
        world.spawn(102, 102, "app", &format!("/system.slice/docker-{docker}.scope"), 0);
        world.spawn(43, 43, "qemu-system-x86_64", r"/machine.slice/machine-qemu\x2d1\x2dfoo.scope", 0);
        let command_line = ["qemu", "-name", "foo", "-uuid", VM].map(|word| format!("{word}\0")).concat();
        world.host.write_proc("43/cmdline", command_line);
        world.spawn(50, 50, "sshd", "/system.slice/ssh.service", 0);
        kernel_thread(&world, 2);
        let daemon = world.start();
        let mut helper = UnixStream::connect(daemon.state.join("inventory.sock")).unwrap();
        let head = r#"{"v":2,"source":"containers","uri":"unix:///run/docker.sock","health":"ok""#;
        let of_compose = r#""compose_project":"shop","compose_service":"web""#;
        writeln!(helper, r#"{head},"begin":true}}"#).unwrap();
        writeln!(helper, r#"{head},"containers":[{{"id":"{docker}","name":"shop-web",{of_compose}}}]}}"#).unwrap();
        Some(Self { world, daemon, gpu, steps: 0, more: Vec::new(), helpers: vec![helper] })
    }

    /// Everything runs for a moment, and every meter goes on.
    pub fn work(&mut self) {
        self.steps += 1;
        PIDS.iter().chain(&self.more).for_each(|pid| self.world.run(*pid, 2));
        ZONES.iter().for_each(|(zone, _)| self.world.draw(zone, STEP_UJ));
        self.world.host.set_energy(CORE, 1_000_000 + self.steps * STEP_UJ / 2);
        let new = self.gpu.with_extension("new");
        fs::write(&new, format!("{ONE}energy 0 {}\nprocess 0 101 40\nbusy 0 60\n", 1_000_000 + self.steps * 5_000))
            .unwrap();
        fs::rename(new, &self.gpu).unwrap();
    }
}

/// Another helper connects and says this line.
pub fn tell(daemon: &Daemon, line: &str) -> UnixStream {
    let mut helper = UnixStream::connect(daemon.state.join("inventory.sock")).unwrap();
    writeln!(helper, "{line}").unwrap();
    helper
}

/// An ACPI power meter. It states more than the components of this host draw.
fn meter_of_the_machine(world: &World) {
    let device = world.host.sysfs().join("devices/LNXSYSTM:00/ACPI000D:00");
    world.host.write_sys("devices/LNXSYSTM:00/ACPI000D:00/power1_average", "2000000000\n");
    world.host.write_sys("devices/LNXSYSTM:00/ACPI000D:00/power1_is_battery", "0\n");
    fs::create_dir_all(world.host.sysfs().join("class/hwmon/hwmon4")).unwrap();
    symlink(device, world.host.sysfs().join("class/hwmon/hwmon4/device")).unwrap();
}

/// A process without a program in the root cgroup.
fn kernel_thread(world: &World, pid: u32) {
    world.spawn(pid, 1, "kworker/0:0", "/", 0);
    fs::remove_file(world.host.procfs().join(pid.to_string()).join("exe")).unwrap();
}

/// Prometheus, which scrapes these jobs every second; `None`, with a message, where there is none.
pub fn prometheus(folder: &Path, jobs: &[(&str, SocketAddr)]) -> Option<(Running, SocketAddr)> {
    let mut config = String::from("global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n");
    for (name, address) in jobs {
        config += &format!("- job_name: {name}\n  static_configs:\n  - targets: ['{address}']\n");
    }
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn");
    let Ok(child) = command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
        println!("skipped: no prometheus (packaging/dev/deps.sh test)");
        return None;
    };
    let running = Running(child);
    until("prometheus to listen", || TcpStream::connect(address).ok());
    Some((running, address))
}

fn node_exporter(sysfs: &Path) -> Option<(Running, SocketAddr)> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("prometheus-node-exporter");
    command.args(["--collector.disable-defaults", "--collector.rapl"]);
    command.arg(format!("--path.sysfs={}", sysfs.display())).arg(format!("--web.listen-address={address}"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    Some((Running(child), address))
}

/// The samples that a query gives: labels and value.
pub fn ask(prometheus: SocketAddr, query: &str) -> Vec<(BTreeMap<String, String>, f64)> {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02X}") };
    let query: String = query.bytes().map(byte).collect();
    let answer = get(prometheus, &format!("/api/v1/query?query={query}"), &[]);
    if answer.status == 503 {
        // It has just started.
        return Vec::new();
    }
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer["status"], "success", "{answer}");
    let samples = answer["data"]["result"].as_array().unwrap().iter();
    let sample = |one: &Value| {
        let labels = one["metric"].as_object().unwrap().iter();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        (labels, one["value"][1].as_str().unwrap().parse().unwrap())
    };
    samples.map(sample).collect()
}

/// A query with the values of variables in it, as Grafana asks it. No minute has passed here, so the steps of a day are
/// of a second.
fn filled(query: &str, values: &BTreeMap<String, String>) -> String {
    let mut query = query.replace("[24h:1m]", "[24h:1s]");
    for (name, value) in values {
        query = query.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    assert!(!query.contains('$'), "{query}");
    query
}

impl Dashboard {
    /// Asks for the values of its variables, in order, and returns them all.
    fn values(&self, prometheus: SocketAddr) -> (BTreeMap<String, String>, BTreeMap<String, BTreeSet<String>>) {
        // Constants of the dashboards; Grafana's own interval is at least four times that of scrapes.
        let constants = [("coal", "2.23"), ("natural_gas", "0.91"), ("petroleum", "2.13"), ("__rate_interval", "20s")];
        let mut chosen: BTreeMap<String, String> =
            constants.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        chosen.insert("watt_per_second_to_kWh".into(), "0.000000277777777777778".into());
        let mut all = BTreeMap::new();
        for (name, label, of) in &self.variables {
            let found = ask(prometheus, &filled(of, &chosen));
            let found: BTreeSet<String> = found.into_iter().filter_map(|(mut has, _)| has.remove(label)).collect();
            let first = match name.as_str() {
                // All, as these dashboards begin.
                "namespace" | "pod" | "container" | "vm" => ".*".into(),
                "process" => PIDS[1].to_string(),
                "zone" if self.dialect == "kepler" && self.name.ends_with("default") => ".*".into(),
                "zone" | "zone_name" => found.get("package").cloned().unwrap_or_default(),
                _ => found.first().cloned().unwrap_or_default(),
            };
            // `pid` is what the development dashboard takes out of `process`.
            if name == "process" {
                chosen.insert("pid".into(), first.clone());
            }
            chosen.insert(name.clone(), first);
            all.insert(name.clone(), found);
        }
        (chosen, all)
    }

    /// The variables offer the names of this host, and nothing else. Docker's container is in no namespace and no pod.
    fn names_are_in_the_variables(&self, prometheus: SocketAddr) {
        let (_, offered) = self.values(prometheus);
        for (name, values) in &offered {
            assert!(!values.is_empty(), "{}: {name} has no values", self.name);
            let expected: &[&str] = match (self.dialect.as_str(), name.as_str()) {
                ("legacy", "namespace") => &["blue", "kernel", "system"],
                ("legacy", "pod") => &["kernel_processes", "system_processes", "web-7d9f4"],
                ("kepler", "namespace") => &["blue"],
                ("kepler", "pod") => &["web-7d9f4"],
                ("kepler", "container") => &["nginx", "shop-web"],
                ("kepler", "vm") => &["foo"],
                ("kepler", "zone") => &["core", "dram", "package"],
                _ => continue,
            };
            assert_eq!(values.iter().collect::<Vec<_>>(), expected, "{}: {name}", self.name);
        }
    }

    /// The queries that give nothing, or a value that is no number, with these choices of a user.
    fn empty(&self, prometheus: SocketAddr, chosen: &BTreeMap<String, String>) -> Vec<&str> {
        let (mut values, _) = self.values(prometheus);
        values.extend(chosen.clone());
        let has_data =
            |query: &str| ask(prometheus, &filled(query, &values)).iter().any(|(_, value)| value.is_finite());
        self.queries.iter().map(String::as_str).filter(|query| !has_data(query)).collect()
    }
}

/// Why a query of the dashboards has nothing on this host, in the words of its metric.
fn beyond_this_host(query: &str, node_exporter: bool) -> bool {
    // Scaphandre's own metric. Counters of processors, which a fake host has not: see below.
    let counters = ["cpu_instructions_total", "cpu_cycles_total", "cache_miss_total"];
    query.contains("scaph_")
        || counters.iter().any(|name| query.contains(name))
        || !node_exporter && (query.contains("node_rapl_") || query.contains("node_exporter_"))
}

#[test]
fn keplers_dashboards_show_data_in_every_panel_that_a_host_can_answer() {
    let Fixture { dashboard: dashboards } = Figment::from(Toml::file_exact(FIXTURE)).extract().unwrap();
    let [(Some(mut today), Some(mut old))] = [(Host::start("kepler"), Host::start("legacy"))] else { return };
    let exporter = node_exporter(&today.world.host.sysfs());
    let mut jobs = vec![("kepler-dev", today.daemon.address), ("kepler-latest", today.daemon.address)];
    jobs.extend([("dev", old.daemon.address), ("latest", old.daemon.address)]);
    jobs.extend(exporter.iter().map(|(_, address)| ("node", *address)));
    let folder = tempfile::tempdir().unwrap();
    let Some((_running, prometheus)) = prometheus(folder.path(), &jobs) else { return };

    for dashboard in &dashboards {
        let all = dashboard.queries.iter().map(String::as_str);
        let beyond: Vec<&str> = all.filter(|query| beyond_this_host(query, exporter.is_some())).collect();
        let mut empty = Vec::new();
        until(&format!("data in {}", dashboard.name), || {
            today.work();
            old.work();
            empty = dashboard.empty(prometheus, &BTreeMap::new());
            (empty.len() <= beyond.len()).then_some(())
        });
        assert_eq!(empty, beyond, "{}", dashboard.name);
        let all = dashboard.queries.len();
        println!("{}: data in {} of {all} queries", dashboard.name, all - empty.len());
        dashboard.names_are_in_the_variables(prometheus);
    }
    // What a user sees who chooses a namespace, a pod, a container or a VM. A host without containers has `system` and
    // `kernel`, as with that Kepler.
    let chosen = |choices: &[(&str, &str)]| choices.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
    for (namespace, pod) in [
        ("blue", "web-7d9f4"),
        ("system", "system_processes"),
        ("kernel", "kernel_processes"),
        (".*", "system_processes"),
    ] {
        let empty = dashboards[2].empty(prometheus, &chosen(&[("namespace", namespace), ("pod", pod)]));
        assert!(empty.is_empty(), "{namespace}/{pod}: {empty:#?}");
    }
    for container in ["nginx", "shop-web"] {
        let choices =
            [("namespace", "blue"), ("pod", "web-7d9f4"), ("container", container), ("vm", "foo"), ("zone", "package")];
        let empty = dashboards[0].empty(prometheus, &chosen(&choices));
        assert!(empty.is_empty(), "{container}: {empty:#?}");
    }
}
