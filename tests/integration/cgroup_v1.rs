//! Hosts with cgroup v1 alone, without eBPF: the work of processes that no look at /proc saw is charged to the
//! container and the unit that cpuacct says it was of. Needs no root.

use crate::common::known::{CONTAINER, NO_FLOOR};
use crate::common::{Page, World};
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

const CRON: &str = "/system.slice/cron.service";

/// The hierarchies of a host with v1 alone.
struct V1<'a> {
    world: &'a World,
    /// CPU time of the container, of the unit and of everything, in milliseconds.
    used: [Cell<u64>; 3],
}

impl<'a> V1<'a> {
    fn new(world: &'a World) -> Self {
        let v1 = Self { world, used: Default::default() };
        let mount = |name: &str, options: &str| {
            let point = v1.point(name);
            fs::create_dir_all(&point).unwrap();
            format!("30 25 0:30 / {} rw - cgroup cgroup {options}\n", point.display())
        };
        let mounts = [mount("systemd", "rw,xattr,name=systemd"), mount("cpu", "rw,cpu,cpuacct")].concat();
        world.host.write_proc("self/mountinfo", mounts);
        v1.work(0, 0, 0);
        v1
    }

    fn point(&self, name: &str) -> PathBuf {
        self.world.host.procfs().with_file_name("v1").join(name)
    }

    /// A process that sleeps.
    fn spawn(&self, pid: u32, comm: &str, cgroup: &str) {
        self.world.spawn(pid, u64::from(pid), comm, "/", 0);
        self.world
            .host
            .write_proc(&format!("{pid}/cgroup"), format!("4:cpu,cpuacct:{cgroup}\n1:name=systemd:{cgroup}\n"));
        fs::write(self.point("cpu").join(&cgroup[1..]).join("cgroup.procs"), format!("{pid}\n")).unwrap();
    }

    /// Processes that begin and end between two looks, in the container, in the unit and elsewhere: CPU time in
    /// milliseconds.
    fn work(&self, container: u64, unit: u64, elsewhere: u64) {
        for (used, more) in self.used.iter().zip([container, unit, container + unit + elsewhere]) {
            used.set(used.get() + more);
        }
        let docker = format!("docker/{CONTAINER}");
        for (used, path) in self.used.iter().zip([docker.as_str(), &CRON[1..], ""]) {
            let dir = self.point("cpu").join(path);
            fs::create_dir_all(&dir).unwrap();
            // One write of the same length, so that no read sees a part of it.
            let mut options = fs::OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).open(dir.join("cpuacct.usage")).unwrap();
            let text = format!("{:<20}\n", used.get() * 1_000_000);
            std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0).unwrap();
        }
    }
}

#[test]
fn short_lived_work_is_charged_to_its_container_and_unit() {
    let world = World::new();
    world.config(NO_FLOOR);
    let v1 = V1::new(&world);
    v1.spawn(101, "sh", &format!("/docker/{CONTAINER}"));
    v1.spawn(102, "cron", CRON);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let charged = |kind: &str, label: (&str, &str)| {
        let name = format!("kepler_{kind}_cpu_joules_total");
        let name = if kind == "unit" { "jouled_unit_joules_total".to_owned() } else { name };
        daemon.page().values(&name, &[label, ("zone", "package")]).sum::<f64>()
    };
    // Four parts of six for the container, one for the unit, one that nothing accounts for. A tick that reads between
    // two of the files sees a part of the work; the more ticks, the less these weigh.
    let parts = |page: &Page| {
        let total = page.microjoules("kepler_node_cpu_active_joules_total", &[("zone", "package")]) as f64 / 1e6;
        [charged("container", ("container_id", CONTAINER)), charged("unit", ("unit", "cron.service")), total]
    };
    let is_right = |[container, unit, total]: [f64; 3]| {
        (container / unit - 4.0).abs() < 1.0 && container > 0.5 * total && container + unit < 0.95 * total
    };
    let mut ticked = 0;
    loop {
        ticks.find("a tick", |snapshot| {
            v1.work(400, 100, 100);
            world.draw("intel-rapl:0", 6_000_000);
            snapshot.ticks > 0
        });
        let parts = parts(&daemon.page());
        if parts[0] >= 20.0 && is_right(parts) {
            break;
        }
        ticked += 1;
        assert!(ticked < 300, "container, unit, all: {parts:?} J");
    }
    daemon.page().adds_up();
    daemon.stop();
}
