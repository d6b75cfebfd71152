"""The daemon under test, and what is asserted of it while everything else goes on."""

import http.client
import os
import re
import socket
import statistics
import subprocess
import threading
import time
import urllib.request

SAMPLE = re.compile(r"^([a-z_]+)(\{.*\})? (\S+)$")
# A start includes the recovery of the totals; everything else here competes for the processors.
START_LIMIT = 60
# A tick is due each second. Snapshots are this old at most, beyond what a process that only sleeps is late.
LATE_LIMIT = 2.0


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Daemon:
    """jouled in a folder of its own: a state folder that fills, a runtime folder that does not, a /sys that is made up."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.state, self.runtime, self.sysfs = folder / "state", folder / "run", folder / "sys"
        for one in (self.state, self.runtime, self.sysfs):
            one.mkdir()
        self.port, self.socket, self.log = free_port(), folder / "run/jouled.sock", folder / "log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.bus = None
        # More of the daemon's environment, by kinds of trouble.
        self.extra = {}
        self.process = None
        self.kills, self.longest_start = 0, 0.0

    def environment(self):
        own = {key: value for key, value in os.environ.items() if not key.startswith("JOULED_")}
        own |= {"JOULED_METER__VSOCK__CONNECT": "off", "JOULED_EXPORT__GUEST__VSOCK": "off", "JOULED_METER__IPMI__USE": "never",
                "JOULED_EXPORT__DBUS__USE": "auto" if self.bus else "off", "JOULED_CONTROL__SOCKET": str(self.socket),
                "JOULED_STATE_DIR": str(self.state), "JOULED_RUNTIME_DIR": str(self.runtime)}
        return own | self.extra | ({"DBUS_SYSTEM_BUS_ADDRESS": self.bus} if self.bus else {})

    def start(self):
        """Starts it: also with a state folder that is full or read-only it gives numbers."""
        began = time.monotonic()
        self._spawn()
        while True:
            try:
                self.page()
                break
            except OSError:
                assert time.monotonic() < began + START_LIMIT, f"no page {START_LIMIT} s after the start: {self.log_end()}"
            time.sleep(0.1)
            assert self.alive(), f"the daemon ended by itself: {self.log_end()}"
        self.longest_start = max(self.longest_start, time.monotonic() - began)

    def _spawn(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([self.program, "--listen", f"127.0.0.1:{self.port}", "--sysfs", self.sysfs], env=self.environment(),
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def end(self):
        if self.process and self.alive():
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def alive(self):
        return self.process.poll() is None

    def page(self):
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=20) as answer:
            return answer.read().decode()

    def log_end(self):
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-5:])


class Watch:
    """Reads the page all the time and compares it with the one before."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.faults, self.pages, self.counters, self.came_back = [], 0, 0, 0
        self.oldest, self.latest = 0.0, 0.0
        self.last, self.ended, self.pid = {}, {}, 0
        self.sizes, self.resident, self.descriptors = [], "", ""
        self.lateness = [0.0]
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=one, daemon=True) for one in (self._sleep, self._read)]

    def start(self):
        for one in self.threads:
            one.start()

    def stop(self):
        self.stopped.set()

    def fault(self, text):
        self.faults.append(text)
        print(f"chaos: FAULT: {text}", flush=True)

    def _sleep(self):
        """How late a process is that only sleeps: what the load of the machine explains."""
        while not self.stopped.is_set():
            due = time.monotonic() + 0.1
            time.sleep(0.1)
            self.lateness = (self.lateness + [time.monotonic() - due])[-100:]

    def _read(self):
        while not self.stopped.wait(0.3):
            pid = self.daemon.process.pid
            try:
                began = time.monotonic()
                page = self.daemon.page()
                took = time.monotonic() - began
            except (OSError, http.client.HTTPException):
                continue
            # A page of a daemon that was replaced meanwhile belongs to neither.
            if pid == self.daemon.process.pid:
                self._compare(page, pid, took)

    def _compare(self, page, pid, took):
        counters, series, gauges = set(), {}, {}
        for line in page.splitlines():
            if line.startswith("# TYPE ") and line.endswith(" counter"):
                counters.add(line.split()[2])
            match = SAMPLE.match(line)
            if match and match[1] in counters:
                series[match[1], match[2] or ""] = float(match[3])
            elif match:
                gauges[match[1]] = float(match[3])
        self.pages += 1
        again = pid == self.pid
        for key, value in series.items():
            before = self.last.get(key)
            # Counters of the daemon itself begin with its process.
            if before is not None and (again or "joules" in key[0]):
                self.counters += 1
                if value < before:
                    self.fault(f"{key[0]}{key[1]} fell from {before} to {value}, {'in one life' if again else 'over a restart'}")
            elif before is None and value < self.ended.get(key, 0):
                self.came_back += 1
        for key in self.last.keys() - series.keys():
            if key[0].startswith(("kepler_node", "jouled_node")):
                self.fault(f"{key[0]}{key[1]} is gone, {'in one life' if again else 'over a restart'}")
            self.ended[key] = self.last[key]
        self.last, self.pid = series, pid
        self._lateness(gauges.get("jouled_tick_age_seconds", 0.0), took)

    def _lateness(self, age, took):
        beyond = age - 1 - 2 * max(self.lateness) - took
        self.oldest, self.latest = max(self.oldest, age), max(self.latest, beyond)
        if beyond > LATE_LIMIT:
            self.fault(f"the snapshot is {age:.1f} s old; a process that sleeps was {max(self.lateness):.2f} s late")

    def measure(self, seconds):
        """Resident memory in MiB and the number of descriptors, medians over a time."""
        sizes, pid, end = [], self.daemon.process.pid, time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.2)
            try:
                with open(f"/proc/{pid}/status") as status:
                    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
                sizes.append((resident / 1024, len(os.listdir(f"/proc/{pid}/fd"))))
            except (OSError, StopIteration):
                return
        self.sizes.append([statistics.median(size[index] for size in sizes) for index in (0, 1)])

    def compare_life(self):
        if len(self.sizes) != 2:
            self.fault("the last life could not be measured twice")
            return
        for index, name, slack in ((0, "resident", 6), (1, "descriptors", 40)):
            early, late = (size[index] for size in self.sizes)
            setattr(self, name, f"{early:.0f} then {late:.0f}" + (" MB" if index == 0 else ""))
            if late > early * 1.25 + slack:
                self.fault(f"{name} grew from {early:.0f} to {late:.0f}")
