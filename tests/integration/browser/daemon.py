"""The built jouled on a made-up machine, and what its metrics page says."""

import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request

# Guards against hangs only: this machine may be busy.
PATIENCE = 60
SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')
ESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def until(what, seen, patience=PATIENCE):
    """Calls `seen` until it gives something."""
    end = time.monotonic() + patience
    while True:
        value = seen()
        if value:
            return value
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.05)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Metrics:
    """A metrics page: samples as (name, labels, value)."""

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            match = None if line.startswith("#") else SAMPLE.match(line)
            if match:
                labels = {key: re.sub(r'\\[\\"n]', lambda one: ESCAPED[one[0]], value) for key, value in LABEL.findall(match[2] or "")}
                self.samples.append((match[1], labels, float(match[3])))

    def all(self, name, **labels):
        """The samples of this name that have these labels."""
        return [(own, value) for key, own, value in self.samples if key == name and labels.items() <= own.items()]

    def one(self, name, **labels):
        """The sum of these samples; there must be at least one."""
        found = self.all(name, **labels)
        assert found, f"/metrics has no {name} {labels}"
        return sum(value for _, value in found)


class Daemon:
    """jouled on `host`, at a free port, with its files in a folder. `config` is the text of its configuration file."""

    def __init__(self, program, host, folder, config="", interval="500ms", environment=None):
        self.program, self.host, self.folder, self.interval = program, host, folder, interval
        self.port, self.scheme, self.headers, self.context = free_port(), "http", {}, None
        self.extra, self.process = environment or {}, None
        (folder / "run").mkdir(parents=True)
        (folder / "state").mkdir()
        self.config_file, self.log = folder / "jouled.toml", folder / "log"
        self.config = config
        self.write_config()

    def write_config(self):
        """The file, with the port of the moment."""
        new = self.config_file.with_suffix(".new")
        new.write_text(f'listen = ["127.0.0.1:{self.port}"]\n{self.config}')
        new.rename(self.config_file)

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def environment(self):
        own = {"JOULED_METER__VSOCK__CONNECT": "off", "JOULED_EXPORT__GUEST__VSOCK": "off", "JOULED_METER__IPMI__USE": "never",
               "JOULED_EXPORT__DBUS__USE": "off", "JOULED_INVENTORY__MACHINED": "false", "JOULED_USAGE__SOURCE": "procfs",
               "JOULED_SERIES__MIN_JOULES": "0", "JOULED_NODE_NAME": "node-1", "JOULED_INTERVAL": self.interval,
               "JOULED_NAMES__KUBERNETES": str(self.host.log), "PATH": os.environ.get("PATH", "")}
        return own | self.extra

    def start(self):
        """Starts it and waits for its first page."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--config", self.config_file, "--state-dir", self.folder / "state",
                 "--sysfs", self.host.sys, "--procfs", self.host.proc],
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("the daemon serves /metrics", self._serves)
        return self

    def _serves(self):
        assert self.process.poll() is None, f"the daemon ended by itself: {self.log_end()}"
        try:
            return self.get("/metrics")
        except (OSError, http.client.HTTPException):
            return None

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        assert "panicked" not in text, text[text.index("panicked"):][:2000]

    def reload(self):
        self.write_config()
        self.process.send_signal(signal.SIGHUP)

    def get(self, path):
        """The body of an answer."""
        request = urllib.request.Request(self.url + path, headers=self.headers)
        with urllib.request.urlopen(request, timeout=20, context=self.context) as answer:
            return answer.read().decode()

    def metrics(self):
        return Metrics(self.get("/metrics"))

    def tick(self):
        return int(self.metrics().one("jouled_ticks_total"))

    def ticks(self, more):
        """Waits for this many more ticks."""
        wanted = self.tick() + more
        until(f"{more} more ticks", lambda: self.tick() >= wanted)

    def memory(self):
        """Resident memory in MiB and the number of open descriptors."""
        with open(f"/proc/{self.process.pid}/status") as status:
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
        return resident / 1024, len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu(self):
        """CPU time so far in seconds."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_end(self):
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-5:])


class Recorder(threading.Thread):
    """Keeps the metrics page of each tick, so that what a browser showed can be compared with the page of the same tick."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.source, self.pages, self.stopped = daemon, [], threading.Event()

    def run(self):
        while not self.stopped.wait(0.05):
            asked = time.time()
            try:
                page = self.source.metrics()
            except (OSError, http.client.HTTPException):
                continue
            # The page says how old its snapshot was when it was written: at some time since it was asked for.
            begin = asked - page.one("jouled_tick_age_seconds")
            self.pages.append((begin, begin + time.time() - asked, page))

    def at(self, when):
        """The page of the snapshot of this time, in seconds since 1970."""
        def found():
            near = [(abs((begin + end) / 2 - when), page) for begin, end, page in self.pages if begin - 0.05 <= when <= end + 0.05]
            return min(near, key=lambda one: one[0])[1] if near else None
        return until(f"/metrics of the tick at {when:.2f}; the last one is of {self.pages[-1][0] if self.pages else 0:.2f}", found)

    def stop(self):
        self.stopped.set()
        self.join()
