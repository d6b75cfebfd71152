"""A made-up machine: folders in place of /sys and /proc, with two sockets, meters and processes in cgroups."""

import threading
import time

RANGE = 262_143_328_850
ZONES = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "dram", "intel-rapl:1": "package-1", "intel-rapl:1:0": "dram"}
MODEL = "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"


class Host:
    """Numbers change only when a test changes them. `cpus` are those of both sockets together."""

    def __init__(self, folder, cpus=4, boot="11111111-2222-3333-4444-555555555555"):
        self.folder, self.cpus = folder, cpus
        self.sys, self.proc, self.cgroups, self.log = (folder / name for name in ("sys", "proc", "cgroup", "log"))
        self.energy, self.used, self.template, self.busy = {}, {}, {}, [0] * cpus
        self.began = time.monotonic()
        for one in (self.sys, self.proc, self.cgroups, self.log):
            one.mkdir(parents=True)
        self._processors()
        for zone, name in ZONES.items():
            self.zone(zone, name)
        self.write(self.proc / "sys/kernel/random/boot_id", f"{boot}\n")
        self.write(self.proc / "self/mountinfo", f"30 20 0:26 / {self.cgroups} rw shared:4 - cgroup2 cgroup2 rw\n")
        self.stat()

    @staticmethod
    def write(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _processors(self):
        cpuinfo = ""
        for cpu in range(self.cpus):
            package, core = divmod(cpu, self.cpus // 2)
            topology = self.sys / f"devices/system/cpu/cpu{cpu}/topology"
            self.write(topology / "physical_package_id", f"{package}\n")
            self.write(topology / "core_id", f"{core}\n")
            cpuinfo += (f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 106\nmodel name\t: {MODEL}\n"
                        f"stepping\t: 6\nphysical id\t: {package}\ncore id\t\t: {core}\nflags\t\t: fpu vme de\n\n")
        self.write(self.sys / "devices/system/cpu/online", f"0-{self.cpus - 1}\n")
        self.write(self.proc / "cpuinfo", cpuinfo)

    def zone(self, zone, name, energy=1_000_000):
        """A powercap zone, whose counter begins at 1 J or at `energy` µJ."""
        folder = self.sys / "class/powercap" / zone
        self.write(folder / "name", f"{name}\n")
        self.write(folder / "max_energy_range_uj", f"{RANGE}\n")
        self.energy[zone] = energy
        self.draw(zone, 0)

    def draw(self, zone, microjoules):
        """Adds energy to a counter, by a write of the same length, so that no reader sees a part of it."""
        self.energy[zone] += int(microjoules)
        path = self.sys / "class/powercap" / zone / "energy_uj"
        if not path.parent.is_dir():
            return
        text = f"{self.energy[zone] % RANGE:<20}\n"
        if path.exists() and path.stat().st_size == len(text):
            with open(path, "r+") as file:
                file.write(text)
        else:
            path.write_text(text)

    def spawn(self, pid, comm, cgroup, cpu=0, exe=None, cmdline=None):
        """A process in a cgroup, which is made."""
        (self.cgroups / cgroup.lstrip("/")).mkdir(parents=True, exist_ok=True)
        folder = self.proc / str(pid)
        folder.mkdir(parents=True)
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        (folder / "exe").symlink_to(exe or f"/usr/bin/{comm.replace('/', '_')[:200]}")
        if cmdline:
            (folder / "cmdline").write_text(cmdline)
        self.template[pid] = (f"{pid} ({comm}) S 1 1 1 0 -1 4194560 1 1 1 1 ", f" 0 0 0 20 0 1 0 {pid} 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 17 {cpu} 0 0\n", cpu)
        self.used[pid] = 0
        self.run(pid, 0)

    def run(self, pid, ticks):
        """Adds ticks of 10 ms to the CPU time of a process; its file is replaced at once."""
        self.used[pid] += ticks
        head, tail, cpu = self.template[pid]
        self.busy[cpu] += ticks
        self._replace(self.proc / str(pid) / "stat", f"{head}{self.used[pid]}{tail}")

    def end(self, pid):
        """Ends a process."""
        folder = self.proc / str(pid)
        for one in list(folder.iterdir()):
            one.unlink()
        folder.rmdir()
        del self.used[pid], self.template[pid]

    def stat(self):
        """/proc/stat by the CPU time so far."""
        passed = int((time.monotonic() - self.began) * 100)
        rest = [max(0, passed - busy) for busy in self.busy]
        lines = [f"cpu  {sum(self.busy)} 0 0 {sum(rest)} 0 0 0 0 0 0"]
        lines += [f"cpu{cpu} {busy} 0 0 {idle} 0 0 0 0 0 0" for cpu, (busy, idle) in enumerate(zip(self.busy, rest))]
        self._replace(self.proc / "stat", "\n".join(lines) + "\nintr 12345 0 0\nctxt 99\nbtime 1700000000\n")

    def pod(self, namespace, pod, uid, container, container_id):
        """What the kubelet keeps of a container in its folder of logs."""
        log = self.log / f"pods/{namespace}_{pod}_{uid}/{container}/0.log"
        self.write(log, "")
        link = self.log / f"containers/{pod}_{namespace}_{container}-{container_id}.log"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(log)

    def platform(self, watts):
        """The ACPI meter of the whole machine."""
        chip = self.sys / "class/hwmon/hwmon0"
        if not chip.is_dir():
            chip.mkdir(parents=True)
            (chip / "name").write_text("power_meter\n")
        self._replace(chip / "power1_average", f"{int(watts * 1e6)}\n")

    @staticmethod
    def _replace(path, text):
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        new.rename(path)


class Load(threading.Thread):
    """Lets a host work: each process uses its CPU for the `share` of time that `shares(seconds)` gives, and meters follow."""

    STEP = 0.1
    IDLE_W, CORE_W, DRAM_IDLE_W, DRAM_CORE_W, OTHER_W = 21.0, 9.5, 2.2, 0.9, 48.0

    def __init__(self, host, shares):
        super().__init__(daemon=True)
        self.host, self.shares, self.carry, self.stopped = host, shares, {}, threading.Event()

    def run(self):
        began = last = time.monotonic()
        while not self.stopped.wait(self.STEP):
            now = time.monotonic()
            passed, last = now - last, now
            self.step(now - began, passed)

    def step(self, at, passed):
        """One step of `passed` seconds."""
        cores = [0.0, 0.0]
        for pid, share in self.shares(at).items():
            if pid not in self.host.used:
                continue
            self.carry[pid] = self.carry.get(pid, 0.0) + share * passed * 100
            whole, self.carry[pid] = divmod(self.carry[pid], 1)
            self.host.run(pid, int(whole))
            cores[self.host.template[pid][2] // (self.host.cpus // 2)] += share
        for package in (0, 1):
            self.host.draw(f"intel-rapl:{package}", (self.IDLE_W + self.CORE_W * cores[package]) * passed * 1e6)
            self.host.draw(f"intel-rapl:{package}:0", (self.DRAM_IDLE_W + self.DRAM_CORE_W * cores[package]) * passed * 1e6)
        if (self.host.sys / "class/hwmon/hwmon0").is_dir():
            busy = sum(cores)
            self.host.platform(2 * (self.IDLE_W + self.DRAM_IDLE_W) + self.OTHER_W + (self.CORE_W + self.DRAM_CORE_W) * 1.12 * busy)
        self.host.stat()

    def stop(self):
        self.stopped.set()
        self.join()
