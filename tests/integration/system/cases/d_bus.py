"""org.jouled1 on the system bus, as the README shows it."""

import re
import subprocess

from host import sh, wait_for
from install import ensure_running
from runner import Skip, note
from system import UNIT, Burning, assert_goes_on, scrape, wait_running

LIMIT_S = 90
NAME = "org.jouled1"
UNKNOWN = (1 << 64) - 1


def busctl(*arguments, user=None):
    command = ["busctl", "--no-pager", *arguments]
    return sh(*(["runuser", "-u", user, "--", *command] if user else command))


def need_bus():
    ensure_running()
    if NAME not in busctl("list", "--acquired", "--no-legend"):
        raise Skip(f"jouled is not on the bus as {NAME}")


def path_of(unit):
    return "/org/jouled1/unit/" + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", unit)


def energy(unit, user=None):
    kind, value = busctl("get-property", NAME, path_of(unit), f"{NAME}.Unit", "EnergyMicrojoules", user=user).split()
    assert kind == "t", kind
    return int(value)


def case_bus_says_a_units_energy():
    need_bus()
    with Burning("burn-bus") as unit:
        wait_for("the unit's energy", lambda: path_of(unit.name) in busctl("tree", "--list", NAME) and 0 < energy(unit.name) < UNKNOWN)
        page = scrape().uj("jouled_unit_joules_total", unit=unit.name, zone="package")
        said = energy(unit.name)
        note(f"{said} uJ on the bus, {page} uJ of package on the page before")
        assert said >= page
        # Other users get whole joules and a new unit later than root.
        def told():
            try:
                joules = energy(unit.name, "nobody")
            except RuntimeError:
                return None
            return 0 < joules < UNKNOWN and joules

        strangers = wait_for("a joule for other users", told, 60)
        assert strangers % 1_000_000 == 0 and strangers <= energy(unit.name), strangers


def case_bus_manager_and_introspection():
    need_bus()
    for name, kind in (("Version", "s"), ("NodeName", "s"), ("EnergyMicrojoules", "t"), ("PowerMicrowatts", "t"), ("Estimated", "b")):
        said = busctl("get-property", NAME, "/org/jouled1", f"{NAME}.Manager", name)
        assert said.startswith(f"{kind} "), (name, said)
    assert "jouled.service" in busctl("call", NAME, "/org/jouled1", f"{NAME}.Manager", "ListUnits")
    assert "ListUnits" in busctl("introspect", NAME, "/org/jouled1")


def case_bus_name_is_jouleds_alone():
    need_bus()
    done = subprocess.run(["runuser", "-u", "nobody", "--", "busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus",
                           "org.freedesktop.DBus", "RequestName", "su", NAME, "0"], capture_output=True, text=True, timeout=30)
    assert done.returncode and "ccess denied" in done.stderr, done.stdout + done.stderr


def case_bus_call_starts_jouled_where_it_is_enabled():
    need_bus()
    before = scrape()
    sh("systemctl", "stop", UNIT)
    busctl("get-property", NAME, "/org/jouled1", f"{NAME}.Manager", "Version")
    assert_goes_on(wait_running(), before)
