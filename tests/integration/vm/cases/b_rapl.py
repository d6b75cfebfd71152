"""jouled's RAPL meters against the module's own account of the energy.

A measurement is a pulse: next to nothing is drawn before and after it, so that it does not matter when the daemon's ticks fall.
"""

import time
from functools import cache

from daemon import NOBODY, Jouled, node_energy, settle
from host import REST_MW, FakeRapl, Truth, assert_close
from runner import note

REST = {"pkg_mw": REST_MW, "core_mw": REST_MW, "dram_mw": REST_MW}
ZONES = ("package", "core", "dram")
# What is counted is to be RAPL's alone, also while that is away.
NO_ESTIMATE = '[meter.estimate]\nuse = "never"\n'


def pulse(rapl, *daemons, seconds=4, **power):
    """Draws this power for a while. Returns the true energy, and what each daemon counted: a Truth each."""
    settle()
    start, before = rapl.truth(), [daemon.metrics() for daemon in daemons]
    rapl.set(**power)
    time.sleep(seconds)
    rapl.set(**REST)
    settle()
    true, after = rapl.truth() - start, [daemon.metrics() for daemon in daemons]
    counted = []
    for old, new in zip(before, after):
        new.assert_not_below(old)
        counted.append(Truth(true.at, *(node_energy(new, zone) - node_energy(old, zone) for zone in ZONES), true.busy))
    return true, *counted


@cache
def one_pulse_by_both():
    """The same pulse, counted by two daemons: (true, by perf, by powercap)."""
    with FakeRapl(**REST) as rapl, Jouled(via="perf") as perf, Jouled(via="powercap", port=28283) as powercap:
        perf.wait_state("rapl-perf", "healthy")
        powercap.wait_state("rapl-powercap", "healthy")
        return pulse(rapl, perf, powercap, pkg_mw=45_000, core_mw=30_000, dram_mw=5_000)


def assert_all_zones(counted, true, tolerance):
    for zone in ZONES:
        off = assert_close(zone, getattr(counted, zone), getattr(true, zone), tolerance)
        note(f"{zone}: {getattr(counted, zone):.6f} J where {getattr(true, zone):.6f} J were drawn ({off:+.4%})")


def case_perf_counts_the_truth():
    true, perf, _ = one_pulse_by_both()
    assert_all_zones(perf, true, 0.01)


def case_powercap_counts_the_truth():
    true, _, powercap = one_pulse_by_both()
    assert_all_zones(powercap, true, 0.01)


def case_perf_and_powercap_agree():
    _, perf, powercap = one_pulse_by_both()
    assert_all_zones(perf, powercap, 0.001)


def case_auto_prefers_perf():
    with FakeRapl(), Jouled() as jouled:
        jouled.wait_state("rapl-perf", "healthy")
        assert jouled.metrics().state("rapl-powercap") != "healthy", "both ways are read"


def case_auto_without_a_pmu_takes_powercap():
    with FakeRapl(pmu=0), Jouled() as jouled:
        jouled.wait_state("rapl-powercap", "healthy")


def case_wraps_lose_nothing():
    range_j = 500
    with FakeRapl(range_uj=range_j * 1_000_000, **REST) as rapl, Jouled(via="powercap") as jouled:
        jouled.wait_state("rapl-powercap", "healthy")
        true, counted = pulse(rapl, jouled, seconds=6, pkg_mw=200_000)
        assert true.package > 2 * range_j
        off = assert_close("package", counted.package, true.package, 0.01)
        note(f"{counted.package:.3f} J counted over {true.package / range_j:.1f} ranges ({off:+.4%})")


def case_failing_source_says_so_and_recovers():
    with FakeRapl(**REST) as rapl, Jouled(via="powercap", config=NO_ESTIMATE) as jouled:
        jouled.wait_state("rapl-powercap", "healthy")
        start, begin = rapl.truth(), jouled.metrics()
        rapl.set(pkg_mw=45_000)
        time.sleep(1)
        settle()
        first = jouled.metrics()
        assert node_energy(first) - node_energy(begin) > 45, "not counted before"
        rapl.set(fail=1)
        jouled.wait_state("rapl-powercap", "failed")
        failed = jouled.metrics()
        failed.assert_not_below(first)
        rapl.set(fail=0)
        jouled.wait_state("rapl-powercap", "healthy")
        time.sleep(2)
        rapl.set(**REST)
        settle()
        true, last = rapl.truth() - start, jouled.metrics()
        last.assert_not_below(failed)
        counted = node_energy(last) - node_energy(begin)
        note(f"{counted:.1f} J counted of {true.package:.1f} J, {node_energy(failed) - node_energy(first):.1f} J while it failed")
        assert node_energy(last) - node_energy(failed) > 45, "what was drawn after the recovery is not counted"
        # 1 J: what was drawn at rest before the first scrape, in a tick that came after it.
        assert counted <= true.package + 1, "more is counted than was drawn"


def case_module_reloaded_while_running():
    with FakeRapl(**REST) as rapl, Jouled(via="powercap", config=NO_ESTIMATE) as jouled:
        jouled.wait_state("rapl-powercap", "healthy")
        rapl.set(pkg_mw=45_000)
        time.sleep(3)
        rapl.set(**REST)
        settle()
        before = jouled.metrics()
        assert node_energy(before) > 45, "not counted before"
        rapl.unload()
        jouled.wait_state("rapl-powercap", "failed", "unsupported")
        without = jouled.metrics()
        without.assert_not_below(before)
        # The counter starts again at zero: that is no wrap, and 262 kJ must not appear.
        rapl.load()
        jouled.wait_state("rapl-powercap", "healthy")
        settle()
        again = jouled.metrics()
        again.assert_not_below(without)
        assert node_energy(again) - node_energy(before) < 2, f"{node_energy(again) - node_energy(before)} J from a reload"
        true, counted = pulse(rapl, jouled, seconds=2, pkg_mw=45_000)
        off = assert_close("after", counted.package, true.package, 0.01)
        note(f"{counted.package:.3f} J of {true.package:.3f} J counted after the reload ({off:+.4%})")


def case_unprivileged_falls_to_the_estimate():
    with FakeRapl(), Jouled(user=NOBODY) as jouled:
        jouled.wait_state("estimate", "healthy", "degraded")
        metrics, log = jouled.metrics(), jouled.log.read_text(errors="replace")
        for source in ("rapl-perf", "rapl-powercap"):
            assert metrics.state(source) != "healthy", f"{source} is read by a user without permission"
        why = [line for line in log.splitlines() if "ermission" in line or "permitted" in line or "CAP_" in line]
        assert why, "the log does not say that it is for lack of permission"
        note(why[0])
