"""Another version, removal, purge: what goes on and what is left."""

import subprocess
import threading
import time
from pathlib import Path

from host import sh, wait_for
from install import BEFORE, apt, ensure_running, need_package
from runner import PAYLOAD, Skip, note
from system import (
    CONFIG, RUNTIME, STATE, UNIT, Burning, DropIn, active, assert_goes_on, files, journal, main_pid, now, restart, scrape, try_scrape, wait_running,
)


LIMIT_S = 120


class Scraper(threading.Thread):
    """Somebody who scrapes all the time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.end, self.gaps, self.last, self.pages = False, [], time.monotonic(), 0

    def run(self):
        while not self.end:
            if try_scrape():
                self.gaps.append(time.monotonic() - self.last)
                self.last = time.monotonic()
                self.pages += 1
            time.sleep(0.05)


class Caller(threading.Thread):
    """Somebody who asks over the bus all the time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.end, self.calls, self.answers = False, 0, 0

    def run(self):
        while not self.end:
            asked = subprocess.run(["busctl", "get-property", "org.jouled1", "/org/jouled1", "org.jouled1.Manager", "Version"],
                                   capture_output=True)
            self.calls += 1
            self.answers += asked.returncode == 0


def previous():
    """The package of the release before."""
    found = sorted((PAYLOAD / "previous").glob("jouled_*.deb"))
    if not found:
        raise Skip((PAYLOAD / "previous/why").read_text().strip())
    return found[-1]


def change_version(package, configuration="confold"):
    """As unattended-upgrades does it: a configuration that the operator edited stays."""
    apt("install", "-o", f"Dpkg::Options::=--force-{configuration}", "--allow-downgrades", str(package))
    version = sh("dpkg-deb", "--field", str(package), "Version")
    assert sh("dpkg-query", "-W", "-f", "${Version}", "jouled") == version
    return version


def unit_energy(page, unit):
    return sum(value for (name, labels), value in page.series.items() if name == "jouled_unit_joules_total" and ("unit", unit) in labels)


def case_upgrade_from_the_release_before():
    package, earlier = need_package(), previous()
    ensure_running()
    # An earlier version cannot read the totals of this one, and does not know all sections of its configuration.
    sh("systemctl", "stop", UNIT)
    for folder in (STATE, RUNTIME):
        for file in folder.glob("ledger*"):
            file.unlink()
    older = change_version(earlier, "confnew")
    CONFIG.write_text(CONFIG.read_text() + "\n# The operator was here.\n")
    wait_running()
    with Burning("upgraded") as burning:
        wait_for("energy of a unit", lambda: unit_energy(scrape(), burning.name) > 0)
    before, pid, since = scrape(), main_pid(), now()
    energy = unit_energy(before, burning.name)
    scraper = Scraper()
    scraper.start()
    newer = change_version(package)
    wait_for("the new one", lambda: main_pid() not in (0, pid))
    after = wait_running()
    assert_goes_on(after, before)
    assert energy > 0 and unit_energy(after, burning.name) >= energy, (energy, unit_energy(after, burning.name))
    scraper.end = True
    scraper.join(10)
    note(f"{older} to {newer}: the unit had {energy:.3f} J; {scraper.pages} scrapes, the longest time between two {max(scraper.gaps):.2f} s")
    for word in ("set aside", "cut short", "not known"):
        assert word not in journal(since), journal(since)
    assert (STATE / "ledger").read_bytes().startswith(b"jouled ledger 3\n")
    assert "The operator was here." in CONFIG.read_text(), "the configuration was overwritten"


class Asleep:
    """A scope that worked once and sleeps now, for as long as the `with` block."""

    NAME = "asleep.scope"

    def __enter__(self):
        script = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\ntime.sleep(600)"
        self.process = subprocess.Popen(["systemd-run", "--scope", "--quiet", f"--unit={self.NAME}", "python3", "-c", script])
        wait_for("energy of the scope", lambda: self.energy(scrape()) > 0)
        wait_for("it to sleep", self.at_rest)
        return self

    def energy(self, page):
        """Of the scope alone: eBPF tells numbers of processes that this container's /proc does not have."""
        wanted = ("unit", self.NAME)
        return sum(value for (name, labels), value in page.series.items() if name == "jouled_unit_joules_total" and wanted in labels)

    def at_rest(self):
        before = self.energy(scrape())
        time.sleep(2)
        return before == self.energy(scrape())

    def __exit__(self, *_):
        # It ends with its process.
        self.process.kill()
        self.process.wait()


def case_upgrade_who_sleeps_goes_on():
    ensure_running()
    with Asleep() as asleep, DropIn(config='[series]\nretention = "1s"\n'):
        before = asleep.energy(scrape())
        assert before > 0
        for _ in range(2):
            restart()
            time.sleep(3)
            after = asleep.energy(scrape())
            assert after == before, (before, after)
        asleep.process.kill()
        wait_for("the scope to end", lambda: asleep.energy(scrape()) == 0)


def case_upgrade_remove_leaves_the_configuration():
    need_package()
    ensure_running()
    caller = Caller()
    caller.start()
    apt("remove", "jouled")
    caller.end = True
    caller.join(10)
    note(f"{caller.calls} calls over the bus, {caller.answers} answered")
    assert caller.answers > 0
    assert not active() and not Path("/usr/bin/jouled").exists()
    assert subprocess.run(["pgrep", "-x", "jouled"], capture_output=True).returncode == 1, "jouled runs"
    assert CONFIG.exists()
    assert "not-found" in subprocess.run(["systemctl", "show", "-p", "LoadState", UNIT], capture_output=True, text=True).stdout
    left = sorted(path for path in files() - set(BEFORE.read_text().splitlines()) if "jouled" in path)
    note(f"left: {' '.join(left)}")
    allowed = ("/etc/jouled", "/etc/systemd/system", str(STATE), str(RUNTIME))
    assert all(path.startswith(allowed) for path in left), left


def case_upgrade_purge_leaves_nothing():
    need_package()
    # As an operator would who made them.
    for path in (Path("/etc/jouled/jouled.toml.d/00-test.toml"), Path("/etc/systemd/system/jouled.service.d/00-test.conf")):
        path.unlink(missing_ok=True)
    apt("purge", "jouled")
    left = sorted(path for path in files() - set(BEFORE.read_text().splitlines()) if "jouled" in path)
    assert not left, left
    # The user stays, as Debian's policy has it (9.2): its number must not become somebody else's.
    note(sh("getent", "passwd", "jouled"))
