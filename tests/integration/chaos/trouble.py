"""The kinds of trouble, each a thread of its own that does something bad again and again. What it needs and this machine lacks is said, and left out."""

import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path


class Trouble:
    """A kind of trouble: `once` does it, `undo` ends it."""

    pause_s = 0.5

    def __init__(self, daemon, choose):
        self.daemon, self.choose = daemon, choose
        self.done, self.missing = 0, ""
        self.stopped, self.paused = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)

    def prepare(self):
        pass

    def start(self):
        if not self.missing:
            self.thread.start()

    def stop(self):
        self.stopped.set()
        if self.thread.is_alive():
            self.thread.join(20)

    def clean(self):
        pass

    def pause(self):
        """Lets go of what of the daemon is held, where this holds something of it."""

    def resume(self):
        self.paused.clear()

    def faults(self):
        """What was seen to be wrong."""
        return []

    def said(self):
        return f"skipped: {self.missing}" if self.missing else f"{self.done} times"

    def _loop(self):
        while not self.stopped.wait(self.choose.expovariate(1 / self.pause_s)):
            try:
                self.once()
            except OSError:
                pass
            self.done += 1

    def once(self):
        raise NotImplementedError


class Disk(Trouble):
    """The state folder is a small file system that is full or read-only now and then."""

    pause_s = 4

    def prepare(self):
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", self.daemon.state], capture_output=True).returncode:
            self.missing = "no file system can be mounted here"

    def once(self):
        state = self.daemon.state
        if self.choose.random() < 0.5:
            subprocess.run(["mount", "-o", "remount,ro", state], capture_output=True)
            self.stopped.wait(self.choose.uniform(0.5, 4))
            subprocess.run(["mount", "-o", "remount,rw", state], capture_output=True)
            return
        try:
            with open(state / "full", "wb") as full:
                while True:
                    full.write(bytes(1 << 20))
        except OSError:
            pass
        self.stopped.wait(self.choose.uniform(0.5, 4))
        (state / "full").unlink(missing_ok=True)

    def clean(self):
        subprocess.run(["umount", "-l", self.daemon.state], capture_output=True)


class Counters(Trouble):
    """RAPL zones of 60 W that go on, and vanish, lie and come back."""

    pause_s = 0.2
    ZONES = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "dram", "intel-rapl:1": "psys"}

    def prepare(self):
        self.energy = {zone: 1_000_000_000 for zone in self.ZONES}
        self.began = self.last = time.monotonic()
        for zone in self.ZONES:
            self.make(zone)
        cpu = self.daemon.sysfs / "devices/system/cpu"
        cpu.mkdir(parents=True)
        (cpu / "online").write_text(f"0-{os.cpu_count() - 1}\n")

    def folder(self, zone):
        return self.daemon.sysfs / "class/powercap" / zone

    def make(self, zone):
        self.folder(zone).mkdir(parents=True, exist_ok=True)
        (self.folder(zone) / "name").write_text(f"{self.ZONES[zone]}\n")
        (self.folder(zone) / "max_energy_range_uj").write_text("262143328850\n")
        (self.folder(zone) / "energy_uj").write_text(f"{self.energy[zone] % 262143328850:<20}\n")

    def once(self):
        now = time.monotonic()
        for zone in self.ZONES:
            self.energy[zone] += int((now - self.last) * 60_000_000)
        self.last = now
        zone = self.choose.choice(list(self.ZONES))
        what = self.choose.random()
        if what < 0.02:
            shutil.rmtree(self.folder(zone), ignore_errors=True)
            return
        if what < 0.06:
            lie = self.choose.choice(["garbage\n", "", "-5\n", "0\n", "18446744073709551615\n", f"{self.energy[zone] + 10**10}\n"])
            (self.folder(zone) / "energy_uj").write_text(lie)
            return
        if what < 0.07:
            self.energy[zone] = 1
        for zone in self.ZONES:
            self.make(zone)


class Sensors(Trouble):
    """A power meter of ACPI that vanishes, lies and hangs (a FIFO, which is read when it is replaced)."""

    pause_s = 1

    def prepare(self):
        self.chip = self.daemon.sysfs / "class/hwmon/hwmon0"
        self.make(100_000_000)

    def make(self, power):
        self.chip.mkdir(parents=True, exist_ok=True)
        (self.chip / "name").write_text("power_meter\n")
        self.replace(lambda path: path.write_text(f"{power}\n"))

    def replace(self, make):
        new, path = self.chip / "new", self.chip / "power1_average"
        new.unlink(missing_ok=True)
        make(new)
        old = os.open(path, os.O_RDWR | os.O_NONBLOCK) if path.is_fifo() else None
        new.rename(path)
        if old is not None:
            os.close(old)

    def once(self):
        what = self.choose.random()
        if what < 0.1:
            shutil.rmtree(self.chip, ignore_errors=True)
        elif what < 0.2:
            self.chip.mkdir(parents=True, exist_ok=True)
            self.replace(os.mkfifo)
        elif what < 0.4:
            self.make(self.choose.choice([4294967295000, -1, 0, 10**18, "garbage"]))
        else:
            self.make(self.choose.randrange(90_000_000, 140_000_000))

    def clean(self):
        if self.chip.is_dir():
            self.make(0)


class Cgroups(Trouble):
    """Cgroups in which a process runs for a moment."""

    pause_s = 0.05

    def prepare(self):
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        mounts = sorted((kind, point) for _, point, kind, *_ in mounts if kind in ("cgroup", "cgroup2"))
        if not mounts:
            self.missing = "no cgroups are mounted"
            return
        # With hybrid hierarchies that of v2 has no controllers, and processes are in it too.
        self.root = Path(mounts[-1][1], f"jouled-chaos-{os.getpid()}.slice")
        try:
            self.root.mkdir()
        except OSError as error:
            self.missing = str(error)

    def once(self):
        own = self.root / f"churn{self.done}.service"
        own.mkdir()
        try:
            subprocess.run(["sh", "-c", f"echo 0 >{own}/cgroup.procs; exec true"], capture_output=True, timeout=10)
        finally:
            for _ in range(50):
                try:
                    own.rmdir()
                    break
                except OSError:
                    time.sleep(0.02)

    def clean(self):
        for one in [] if self.missing else [*self.root.glob("*.service"), self.root]:
            try:
                one.rmdir()
            except OSError:
                pass


class Forks(Trouble):
    """Shells that fork all the time, at the lowest priority."""

    pause_s = 10

    def prepare(self):
        self.shells = []

    def once(self):
        while len(self.shells) < 2:
            self.shells.append(subprocess.Popen(["nice", "-n", "19", "sh", "-c", "while :; do (:); done"]))
        self.stopped.wait(self.choose.uniform(5, 15))
        self.clean()

    def clean(self):
        for one in self.shells:
            one.kill()
            one.wait()
        self.shells = []


class Clients(Trouble):
    """Clients of the page, of the control socket and of the inventory socket that send garbage, stop in the middle, and read nothing."""

    pause_s = 0.05
    TEXTS = [b"", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 8, b"\x16\x03\x01\x02\x00", b"GET /v1/stream HTTP/1.1\r\nHost: a\r\n\r\n",
             b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nx", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /%00 HTTP/1.1\r\n\r\n", b"\0" * 5000,
             b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=1e99\r\n\r\n", b"GET /v1/guests HTTP/1.1\r\nHost: a\r\n\r\n" * 50,
             b'{"protocol":1,"source":"x","vms":[]}\n' * 100, b'{"protocol":99}\n', b"[" * 100_000]

    def prepare(self):
        self.open = []

    def pause(self):
        self.paused.set()
        # What is under way ends within its time.
        time.sleep(1)
        self.clean()
        self.open = []

    def once(self):
        if self.paused.is_set():
            return
        which = self.choose.random()
        if which < 0.1:
            one, address = socket.socket(socket.AF_UNIX), str(self.daemon.runtime / "inventory.sock")
        elif which < 0.7:
            one, address = socket.socket(), ("127.0.0.1", self.daemon.port)
        else:
            one, address = socket.socket(socket.AF_UNIX), str(self.daemon.socket)
        one.settimeout(0.5)
        try:
            one.connect(address)
            one.sendall(self.choose.choice(self.TEXTS))
        except OSError:
            one.close()
            return
        self.open.append(one)
        while len(self.open) > 60:
            self.open.pop(self.choose.randrange(len(self.open))).close()

    def clean(self):
        for one in self.open:
            one.close()


class Bus(Trouble):
    """A private bus, and calls with odd arguments."""

    pause_s = 0.1
    CALLS = [["GetUnit", "s", "x" * 5000], ["GetUnitByPID", "u", "0"], ["ListUnits"], ["GetProcess", "u", "4294967295"], ["GetUnit", "u", "1"], ["NoSuch"],
             ["GetMachine", "s", "\x1b[31m"], ["ListUserUnits", "u", "1000"]]

    def prepare(self):
        if not shutil.which("dbus-daemon") or not shutil.which("busctl"):
            self.missing = "dbus-daemon and busctl are needed"
            return
        address = f"unix:path={self.daemon.folder}/bus"
        config = self.daemon.folder / "bus.conf"
        config.write_text(f'<busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth><policy context="default"><allow send_destination="*"/>'
                          '<allow own="*"/><allow receive_sender="*"/><allow user="*"/></policy></busconfig>')
        self.bus = subprocess.Popen(["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={config}"], stderr=subprocess.DEVNULL)
        for _ in range(100):
            if (self.daemon.folder / "bus").exists():
                self.daemon.bus = address
                return
            time.sleep(0.1)
        self.missing = "the private bus did not start"

    def once(self):
        command = ["busctl", f"--address={self.daemon.bus}", "--timeout=5", "call", "org.jouled1", "/org/jouled1", "org.jouled1.Manager"]
        subprocess.run(command + self.choose.choice(self.CALLS), capture_output=True, timeout=30)

    def clean(self):
        if hasattr(self, "bus"):
            self.bus.kill()
            self.bus.wait()


KINDS = [Disk, Counters, Sensors, Cgroups, Forks, Clients, Bus]
