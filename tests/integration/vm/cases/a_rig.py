"""Checks of the rig itself: all interfaces of the fake RAPL show the configured energy. No jouled."""

import errno
import os
import time

from host import PMU, POWERCAP, FakeRapl, PerfEnergy, assert_close, burner, sh, watts, zone_energy
from runner import note


def case_sysfs_looks_like_rapl():
    assert not PMU.exists(), "a PMU named power is there without the module"
    with FakeRapl():
        for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram")):
            assert (POWERCAP / zone / "name").read_text() == f"{name}\n"
            assert (POWERCAP / zone / "energy_uj").stat().st_mode & 0o777 == 0o400
            assert (POWERCAP / zone / "max_energy_range_uj").read_text() == "262143328850\n"
        assert (PMU / "cpumask").read_text() == "0\n"
        assert (PMU / "format/event").read_text() == "config:0-7\n"
        for event, config in (("cores", 1), ("pkg", 2), ("ram", 3)):
            assert (PMU / f"events/energy-{event}").read_text().strip() == f"event=0x{config:02x}"
            assert (PMU / f"events/energy-{event}.unit").read_text().strip() == "Joules"
            assert (PMU / f"events/energy-{event}.scale").read_text().strip() == "2.3283064365386962890625e-10"
    assert not PMU.exists() and not (POWERCAP / "intel-rapl").exists(), "something stays after the module is gone"


def assert_watts(what, read, true):
    """The energy grows with the wall clock: the true power is what the reads can mean. 1e-5: the unit of an energy."""
    low, high = watts(read, 1)
    assert low * (1 - 1e-5) <= true <= high * (1 + 1e-5), f"{what}: between {low:.4f} and {high:.4f} W where {true} W is true"
    note(f"{what}: between {low:.4f} and {high:.4f} W read for {true} W")


def case_watts_by_powercap():
    with FakeRapl() as rapl:
        for true in (45, 120):
            rapl.set(pkg_mw=true * 1000)
            assert_watts("package", zone_energy, true)


def case_watts_by_perf():
    with FakeRapl(pkg_mw=120_000, core_mw=80_000, dram_mw=9_000), PerfEnergy("energy-pkg", "energy-cores", "energy-ram") as perf:
        for index, (zone, true) in enumerate((("package", 120), ("core", 80), ("dram", 9))):
            assert_watts(zone, lambda: perf.read()[index], true)


def case_perf_and_powercap_agree_with_the_truth():
    with FakeRapl(pkg_mw=0, core_mw=0, dram_mw=0) as rapl, PerfEnergy("energy-pkg") as perf:
        # Nothing is drawn while the three are read, so they must be the same to the unit.
        powercap0, perf0, truth0 = zone_energy(), perf.read()[0], rapl.truth().package
        rapl.set(pkg_mw=100_000)
        time.sleep(1)
        rapl.set(pkg_mw=0)
        true = rapl.truth().package - truth0
        by_powercap, by_perf = zone_energy() - powercap0, perf.read()[0] - perf0
        assert_close("powercap", by_powercap, true, 1e-6)
        assert_close("perf", by_perf, true, 1e-6)
        note(f"true {true:.9f} J, powercap {by_powercap:.6f} J, perf {by_perf:.9f} J")


def case_counter_wraps_at_its_range():
    with FakeRapl(pkg_mw=100_000, range_uj=20_000_000) as rapl:
        values = []
        end = time.monotonic() + 1
        while time.monotonic() < end:
            values.append(zone_energy())
        assert max(values) <= 20
        falls = sum(now < before for before, now in zip(values, values[1:]))
        assert falls == int(rapl.truth().package / 20), f"{falls} wraps in {rapl.truth().package} J"
        note(f"{len(values)} reads, {falls} wraps")


def case_failing_reads():
    with FakeRapl() as rapl:
        rapl.set(fail=1)
        for read in (zone_energy, lambda: PerfEnergy("energy-pkg").__enter__()):
            try:
                read()
            except OSError as error:
                assert error.errno in (errno.EINVAL, errno.EIO), error
            else:
                raise AssertionError("a read succeeded")
        rapl.set(fail=0)
        zone_energy()


def case_energy_follows_cpu_time():
    with FakeRapl(pkg_mw=10_000, busy_mw=20_000) as rapl:
        before = rapl.truth()
        time.sleep(1)
        rest = rapl.truth() - before
        with burner() as unit:
            time.sleep(0.5)
            cpu, before = unit.cpu_seconds(), rapl.truth()
            time.sleep(4)
            cpu, drawn = unit.cpu_seconds() - cpu, rapl.truth() - before
        dynamic = drawn.package - 10 * drawn.at
        assert_close("busy CPUs", drawn.busy / drawn.at, os.cpu_count(), 0.03)
        assert_close("dynamic energy", dynamic, 20 * drawn.busy, 0.001)
        assert cpu / drawn.busy >= 0.9, f"the unit had only {cpu / drawn.busy:.1%} of the busy time"
        note(f"at rest {rest.busy / rest.at:.3f} CPUs busy, {rest.package / rest.at:.2f} W")
        note(f"burning {drawn.busy / drawn.at:.3f} CPUs busy, {drawn.package / drawn.at:.2f} W; "
             f"the unit had {cpu / drawn.busy:.2%} of the busy time")


def case_unload_while_a_file_is_open():
    with FakeRapl() as rapl, open(POWERCAP / "intel-rapl:0/energy_uj", "rb", buffering=0) as file:
        assert file.read()
        rapl.unload()
        try:
            os.pread(file.fileno(), 32, 0)
        except OSError as error:
            assert error.errno == errno.ENODEV, error
        else:
            raise AssertionError("read from a zone that is gone")
        rapl.load()


def case_loaded_module_in_use_by_perf_stays():
    with FakeRapl(), PerfEnergy("energy-pkg"):
        try:
            sh("rmmod", "fakerapl")
        except RuntimeError:
            pass
        else:
            raise AssertionError("unloaded under an open event")
