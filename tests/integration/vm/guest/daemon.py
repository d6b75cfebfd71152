"""jouled as a process under test, and its /metrics. Not the energy: that is in host.py and machine.py."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from host import sh, wait_for
from runner import Skip, note

BINARY = Path("/payload/bin/jouled")
JOULECTL = Path("/payload/bin/joulectl")
NOBODY = 65534
# Time of an emulated machine on a busy host to load the eBPF programs with a debug build.
START_S = 45
# Two ticks of a second and the delay of emulation: after this, the numbers have all energy from before.
SETTLE_S = 2.5

SERIES = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """One scrape."""

    def __init__(self, text):
        self.series = {}
        for line in text.splitlines():
            if found := SERIES.match(line):
                name, labels, value = found.groups()
                self.series[name, frozenset(LABEL.findall(labels or ""))] = float(value)

    def sum(self, name, **labels):
        """Sum of the series of this name that have these labels. At least one must be there."""
        wanted = set(labels.items())
        values = [value for (series, has), value in self.series.items() if series == name and wanted <= has]
        assert values, f"/metrics has no {name}{labels or ''}"
        return sum(values)

    def uj(self, name, **labels):
        """The same sum of energies in whole microjoules."""
        return round(self.sum(name, **labels) * 1e6)

    def labels(self, name, **labels):
        """All labels of the series of this name that have these."""
        wanted = set(labels.items())
        return [dict(has) for series, has in self.series if series == name and wanted <= has]

    def values(self, name, label):
        """The values that a label has among the series of this name."""
        return {dict(labels).get(label) for series, labels in self.series if series == name}

    def without(self, label):
        """The same metrics without a label: series that differ in this label only are added up."""
        sums = Metrics("")
        for (name, labels), value in self.series.items():
            key = name, frozenset((has, value) for has, value in labels if has != label)
            sums.series[key] = sums.series.get(key, 0) + value
        return sums

    def state(self, source):
        """The state of a source; None where there is no such source."""
        for (name, labels), value in self.series.items():
            labels = dict(labels)
            if name == "jouled_source_state" and labels.get("source") == source and value == 1:
                return labels["state"]
        return None

    def assert_not_below(self, before):
        """Fails where a counter is below its value in an earlier scrape, or one of the node is missing."""
        for (name, labels), old in before.series.items():
            if name.endswith("_total"):
                new = self.series.get((name, labels))
                assert new is not None or not name.startswith("kepler_node_"), f"{name}{dict(labels)} is gone"
                assert new is None or new >= old, f"{name}{dict(labels)} fell from {old} to {new}"


class Jouled:
    """A running jouled with its own state folder, during the `with` block."""

    def __init__(self, via="auto", path=None, port=28282, user=None, config="", known=None):
        if not BINARY.exists():
            raise Skip("no jouled binary was given")
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.user = user
        self.dir = Path(tempfile.mkdtemp(prefix="jouled."))
        self.log = self.dir / "log"
        for name in ("state", "run"):
            (self.dir / name).mkdir()
        keys = f'[meter.rapl]\nvia = "{via}"\n'
        if path:
            keys += f'[usage]\npath = "{path}"\n'
        if "[series]" not in config:
            # Processes that use little have a series, too.
            keys += "[series]\nmin_joules = 0\n"
        (self.dir / "jouled.toml").write_text(keys + config)
        if known and not knows(known):
            raise Skip(f"this jouled has no [{known}]")
        self.command = [BINARY, "--config", self.dir / "jouled.toml", "--listen", f"127.0.0.1:{port}",
                        "--state-dir", self.dir / "state"]

    def __enter__(self):
        if self.user is not None:
            for path in (self.dir, *self.dir.iterdir()):
                os.chown(path, self.user, self.user)
            self.command[:0] = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        try:
            self.start()
        except BaseException:
            self.end(failed=True)
            raise
        return self

    def __exit__(self, kind, *_):
        status = self.end(failed=kind is not None)
        assert kind is not None or status == 0, f"jouled ended with status {status} after SIGTERM"

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log,
                                            env=os.environ | {"RUNTIME_DIRECTORY": str(self.dir / "run")})
        wait_for("/metrics", self.answers, START_S)

    def stop(self):
        """Ends it and keeps its folders; start() goes on."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def end(self, failed):
        status = self.stop()
        if failed:
            note("\n".join(self.log.read_text(errors="replace").splitlines()[-15:]))
        shutil.rmtree(self.dir)
        return status

    def ctl(self, *arguments):
        """Output of joulectl."""
        return sh(str(JOULECTL), "--socket", str(self.dir / "state/jouled.sock"), *arguments)

    def answers(self):
        assert self.process.poll() is None, f"jouled ended with status {self.process.returncode}"
        try:
            return self.metrics()
        except OSError:
            return None

    def metrics(self):
        with urllib.request.urlopen(self.url, timeout=10) as answer:
            return Metrics(answer.read().decode())

    def wait_vms(self, *vms):
        """Waits until the page has series of these virtual machines, and returns it."""
        wanted = {vm.uuid for vm in vms}

        def check():
            page = self.metrics()
            return wanted <= page.values("kepler_vm_cpu_joules_total", "vm_id") and page

        return wait_for("the VMs on /metrics", check)

    def wait_state(self, source, *states):
        """Waits until the source is in one of the states."""
        seen = {}

        def check():
            seen["state"] = self.metrics().state(source)
            return seen["state"] in states

        try:
            wait_for(f"{source} to be {' or '.join(states)}", check)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen['state']}") from None


def knows(section):
    """Whether jouled has this section of the configuration."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(f"[{section}]\n")
        file.flush()
        return subprocess.run([BINARY, "--config", file.name, "--check-config"], capture_output=True, timeout=30).returncode == 0


def node_energy(metrics, zone="package"):
    """All energy of a zone in joules."""
    return metrics.sum("kepler_node_cpu_joules_total", zone=zone)


def settle():
    """Waits until the numbers have the energy of the last seconds."""
    time.sleep(SETTLE_S)
