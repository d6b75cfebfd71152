//! A run with known energies: every process works once, then the host is at rest. The tests check how it is shown, to
//! the microjoule.

use super::client::{between, undisturbed};
use super::kubelet::Pod;
use super::world::ZONES;
use super::{Daemon, World};
use jouled::model::snapshot::Snapshot;

/// Id of the container.
pub const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// UUID of the VM.
pub const VM: &str = "5b0c2d4e-6f70-4182-93a4-b5c6d7e8f901";
/// UID of the pod.
pub const POD: &str = "8a5f4b3c_0d1e_4f5a_9b8c_7d6e5f4a3b2c";

/// No idle energy: what is drawn while processes run is theirs.
pub const NO_FLOOR: &str = "[attribution.idle_watts]\n\"rapl/package-0\" = 0\n\"rapl/package-0/dram\" = 0\n\"rapl/package-1\" = 0\n\"rapl/package-1/dram\" = 0\n";

/// Adds one process to each kind of entity: pid, name, cgroup, CPU. The last process never runs.
pub fn inhabit(world: &World) {
    let places = [
        (101, "nginx", "/system.slice/nginx.service".to_owned(), 0),
        (102, "postgres", "/system.slice/system-postgresql.slice/postgresql@16-main.service".to_owned(), 2),
        (103, "java", format!("/system.slice/docker-{CONTAINER}.scope"), 1),
        (104, "qemu-system-x86", "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope".to_owned(), 3),
        (105, "bash", "/user.slice/user-1000.slice/session-2.scope".to_owned(), 0),
        (106, "editor", "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service".to_owned(), 1),
        (
            107,
            "pause",
            format!("/kubepods.slice/kubepods-pod{POD}.slice/cri-containerd-{}.scope", CONTAINER.replace('0', "f")),
            2,
        ),
        (108, "kworker/0:1", "/".to_owned(), 0),
        (109, "sleeper", "/system.slice/sleeper.service".to_owned(), 0),
    ];
    for (pid, comm, cgroup, cpu) in places {
        world.spawn(pid, u64::from(pid), comm, &cgroup, cpu);
    }
    let id = CONTAINER.replace('0', "f");
    world.kubelet().started(Pod("shop", "web-7d9f4", &POD.replace('_', "-")), "nginx", &id, 0);
    let cmdline = format!("qemu\0-name\0guest=web,debug-threads=on\0-accel\0kvm\0-smp\x002\0-uuid\0{VM}\0");
    world.host.write_proc("104/cmdline", cmdline);
}

/// A run that ends at rest: packages draw 40 J and 20 J and memory 4 J and 2 J while all processes work, then 1 J while
/// none does.
pub fn known_run() -> (World, Daemon, Snapshot) {
    undisturbed(|| {
        let world = World::new();
        world.config(NO_FLOOR);
        inhabit(&world);
        let daemon = Daemon::start(world.jouled().env("JOULED_INTERVAL", "250ms"), &world.state);
        let mut ticks = daemon.ticks();
        between(&mut ticks, || {
            for (pid, used) in [(101, 4), (102, 12), (103, 3), (104, 3), (105, 1), (106, 1), (107, 5), (108, 1)] {
                world.run(pid, used);
            }
            for ((zone, _), joules) in ZONES.into_iter().zip([40, 4, 20, 2]) {
                world.draw(zone, joules * 1_000_000);
            }
        })?;
        between(&mut ticks, || {
            world.end(101);
            world.draw("intel-rapl:0", 1_000_000);
        })?;
        let rest = ticks.next();
        Some((world, daemon, rest))
    })
}
