"""Handles on the installed jouled and on systemd. Not its installation: that is in install.py."""

import os
import subprocess
import time
import urllib.request
from pathlib import Path

from daemon import Metrics
from host import sh, wait_for

UNIT = "jouled.service"
BINARY = Path("/usr/bin/jouled")
CONFIG = Path("/etc/jouled/jouled.toml")
CONFIG_DROP_INS = Path("/etc/jouled/jouled.toml.d")
UNIT_DROP_INS = Path("/etc/systemd/system/jouled.service.d")
STATE, RUNTIME = Path("/var/lib/jouled"), Path("/run/jouled")
URL = "http://127.0.0.1:28282/metrics"
NODE = "kepler_node_cpu_joules_total"
START_S = 30


def show(*properties, unit=UNIT):
    """Properties of a unit, as texts."""
    said = sh("systemctl", "show", unit, *(f"--property={name}" for name in properties))
    found = dict(line.partition("=")[::2] for line in said.splitlines())
    return [found[name] for name in properties] if len(properties) > 1 else found[properties[0]]


def main_pid():
    return int(show("MainPID"))


def status_text():
    return show("StatusText")


def active():
    return show("ActiveState") == "active"


def scrape():
    with urllib.request.urlopen(URL, timeout=5) as answer:
        return Metrics(answer.read().decode())


def try_scrape():
    try:
        return scrape()
    except OSError:
        return None


def assert_goes_on(after, before):
    """Fails where an energy counter is below its value on an earlier page, or one of the node is missing. Counters of jouled itself begin with its process."""
    energies = Metrics("")
    energies.series = {key: value for key, value in before.series.items() if key[0].endswith("joules_total")}
    assert energies.series, "a page without energy"
    after.assert_not_below(energies)


def wait_running(limit_s=START_S):
    """Waits until jouled runs and its page has energy, and returns it."""
    def check():
        page = active() and try_scrape()
        return page and any(name == NODE for name, _ in page.series) and page

    return wait_for("jouled to run", check, limit_s, 0.1)


def restart():
    sh("systemctl", "restart", UNIT, timeout=60)
    return wait_running()


def reason(source):
    """The reason in /metrics why a source is not healthy; empty where /metrics does not have the source yet."""
    return " ".join(found["reason"] for found in scrape().labels("jouled_source_info", source=source))


def journal(since=None, *arguments):
    """The log of jouled, and of systemd about it."""
    command = ["journalctl", "--no-pager", "-o", "cat", "-u", UNIT, *arguments]
    return sh(*command, *(["--since", since] if since else []))


def journal_end(since=None):
    """The end of the log, for a case that failed."""
    return " / ".join(journal(since).splitlines()[-6:])


def now():
    return time.strftime("%Y-%m-%d %H:%M:%S")


class DropIn:
    """A drop-in of jouled's unit or of its configuration during the `with` block. jouled is restarted at both ends."""

    def __init__(self, unit="", config="", name="50-case", start=True):
        self.files = [(UNIT_DROP_INS / f"{name}.conf", unit), (CONFIG_DROP_INS / f"{name}.toml", config)]
        self.files = [(path, text) for path, text in self.files if text]
        self.start = start

    def __enter__(self):
        for path, text in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        sh("systemctl", "daemon-reload")
        if self.start:
            self.page = restart()
        return self

    def __exit__(self, *_):
        for path, _ in self.files:
            path.unlink(missing_ok=True)
        sh("systemctl", "daemon-reload")
        if self.start:
            subprocess.run(["systemctl", "reset-failed", UNIT], capture_output=True)
            restart()


class Burning:
    """A unit that keeps one CPU busy during the `with` block."""

    def __init__(self, name):
        self.name = f"{name}.service"

    def __enter__(self):
        sh("systemd-run", "--quiet", "--collect", f"--unit={self.name}", "sh", "-c", "while :; do :; done")
        return self

    def __exit__(self, *_):
        sh("systemctl", "stop", self.name)


def mode(path):
    """Permissions and owner: "0640 root jouled"."""
    return sh("stat", "-c", "0%a %U %G", str(path))


def files():
    """All files of this system, without caches, logs and the data of the package manager."""
    skipped = {"/proc", "/sys", "/dev", "/payload", "/tmp", "/var/tmp", "/run/systemd", "/run/udev", "/run/log", "/run/user", "/var/log",
               "/var/cache", "/var/lib/dpkg", "/var/lib/apt", "/var/lib/systemd", "/root", "/etc/systemd/system/jouled.service.d"}
    found = set()
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in skipped]
        found.update(os.path.join(folder, name) for name in names + folders)
    return found


