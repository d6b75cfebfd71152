"""Handles on the machine under test: the fake RAPL module and its truth, perf events, systemd units. Not jouled."""

import ctypes
import os
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

MODULE = Path("/payload/fakerapl.ko")
PARAMETERS = Path("/sys/module/fakerapl/parameters")
POWERCAP = Path("/sys/class/powercap")
PMU = Path("/sys/bus/event_source/devices/power")
# Almost no power, but not zero, because a constant counter looks stuck.
REST_MW = 10

SYS_PERF_EVENT_OPEN = 298
PERF_FORMAT_GROUP = 1 << 3


def sh(*command, timeout=30):
    """Runs a command and returns its output; an exception has its error messages."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass
class Truth:
    """The module's account at one moment. Energies in joules since it was loaded, `busy` in CPU seconds since boot."""

    at: float
    package: float
    core: float
    dram: float
    busy: float

    def __sub__(self, before):
        return Truth(*(getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__))


class FakeRapl:
    """The loaded module, during the `with` block."""

    def __init__(self, **parameters):
        self.parameters = parameters

    def __enter__(self):
        self.load()
        return self

    def __exit__(self, *_):
        # A case that failed between unload() and load() keeps its own error.
        if PARAMETERS.exists():
            self.unload()

    def load(self):
        sh("insmod", str(MODULE), *(f"{name}={value}" for name, value in self.parameters.items()))

    def unload(self):
        sh("rmmod", "fakerapl")

    def set(self, **parameters):
        for name, value in parameters.items():
            (PARAMETERS / name).write_text(str(value))

    def truth(self):
        at_ns, *energies_pj, busy_us = map(int, (PARAMETERS / "truth").read_text().split())
        return Truth(at_ns / 1e9, *(pj / 1e12 for pj in energies_pj), busy_us / 1e6)


def zone_energy(zone="intel-rapl:0"):
    """Energy of a powercap zone in joules."""
    return int((POWERCAP / zone / "energy_uj").read_text()) / 1e6


class PerfEnergy:
    """Events of the `power` PMU, opened on CPU 0 as one group and read in one call."""

    def __init__(self, *events):
        self.events = events
        self.scales = [float((PMU / "events" / f"{event}.scale").read_text()) for event in events]
        self.fds = []

    def __enter__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        kind = int((PMU / "type").read_text())
        cpu = int((PMU / "cpumask").read_text())
        for event in self.events:
            config = int((PMU / "events" / event).read_text().strip().removeprefix("event="), 0)
            # struct perf_event_attr up to read_format (40 bytes), the rest zero.
            attr = struct.pack("<IIQQQQ88x", kind, 128, config, 0, 0, PERF_FORMAT_GROUP)
            group = self.fds[0] if self.fds else -1
            fd = libc.syscall(SYS_PERF_EVENT_OPEN, attr, -1, cpu, group, 0)
            if fd < 0:
                error = ctypes.get_errno()
                self.__exit__()
                raise OSError(error, os.strerror(error), event)
            self.fds.append(fd)
        return self

    def __exit__(self, *_):
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()

    def read(self):
        """Energies in joules since the events were opened, in the order of the events."""
        count, *values = struct.unpack(f"<{1 + len(self.events)}Q", os.read(self.fds[0], 8 * (1 + len(self.events))))
        assert count == len(self.events), f"group of {count} events"
        return [value * scale for value, scale in zip(values, self.scales)]


class Unit:
    """A transient systemd service that runs `script` in a shell, during the `with` block."""

    def __init__(self, name, script):
        self.name = f"{name}.service"
        self.script = script

    def __enter__(self):
        sh("systemd-run", "--quiet", "--collect", f"--unit={self.name}", "busybox", "sh", "-c", self.script)
        return self

    def __exit__(self, *_):
        sh("systemctl", "stop", self.name)

    def cpu_seconds(self):
        """CPU time of the unit's cgroup."""
        stat = Path("/sys/fs/cgroup/system.slice", self.name, "cpu.stat").read_text()
        return int(dict(line.split() for line in stat.splitlines())["usage_usec"]) / 1e6


def burner():
    """A unit that keeps every CPU of this machine busy."""
    loop = "while :; do :; done"
    return Unit("burn", " & ".join([loop] * os.cpu_count()))


def assert_close(what, seen, true, tolerance):
    """`seen` is within `tolerance` (a fraction) of `true`."""
    assert true > 0, f"{what}: nothing to compare with (true value {true})"
    off = seen / true - 1
    assert abs(off) <= tolerance, f"{what}: {seen:.6f} where {true:.6f} is true ({off:+.4%}, allowed {tolerance:.4%})"
    return off


def watts(read, seconds):
    """Limits of the power in watts, as (lowest, highest), from two calls of `read()`, an energy in joules, and the times around them."""
    earliest = time.monotonic()
    first = read()
    start = time.monotonic()
    time.sleep(seconds)
    end = time.monotonic()
    drawn = read() - first
    return drawn / (time.monotonic() - earliest), drawn / (end - start)


def wait_for(what, check, limit_s=20, period_s=0.25):
    """Waits until `check()` returns a true value, and returns it."""
    end = time.monotonic() + limit_s
    while not (found := check()):
        assert time.monotonic() < end, f"waited {limit_s} s for {what}"
        time.sleep(period_s)
    return found
