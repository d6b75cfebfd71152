"""Power that is no straight line of CPU time: jouled learns it from the meter, and stands in when the meter is taken away."""

import os
import time

from daemon import Jouled, node_energy
from host import FakeRapl, Unit, assert_close, wait_for
from runner import note

# Four minutes of lessons, and the same loads once more without the meter; an emulated machine is slow at all else, too.
LIMIT_S = 700
POWER = {"pkg_mw": 20_000, "busy_mw": 15_000, "wake_mw": 20_000, "turbo_mw": 10_000, "dram_mw": 4_000, "dram_busy_mw": 6_000}
# Parts of all CPUs. The machine itself is busy, too, so these are what is asked for and not what is compared.
LOADS = [0, 0.75, 0.15, 0.5, 0.3, 0.65]
STEP_S = 20
ZONES = ["package", "dram"]


def load(part):
    """A unit that keeps each CPU busy for a part of the time, in steps of 100 ms."""
    script = (f"import time\nwhile True:\n end = time.monotonic() + 0.1\n while time.monotonic() < end - {0.1 * (1 - part):.3f}: pass\n"
              " time.sleep(max(0, end - time.monotonic()))")
    one = f"python3 -c '{script}'"
    return Unit("load", " & ".join([one] * os.cpu_count()) if part else "sleep 1000")


def gauge(page, name, zone):
    """The gauge of a zone; None where it has none."""
    values = [value for (series, labels), value in page.series.items() if series == name and ("zone", zone) in labels]
    return values[0] if values else None


def true_watts(drawn):
    return {"package": drawn.package / drawn.at, "dram": drawn.dram / drawn.at}


def steady(rapl, jouled, part):
    """A load for a while. Returns what was drawn in its last part, and the last page."""
    with load(part):
        time.sleep(STEP_S / 2)
        before, start = jouled.metrics(), rapl.truth()
        time.sleep(STEP_S / 2)
        after, drawn = jouled.metrics(), rapl.truth() - start
    after.assert_not_below(before)
    return drawn, after


def case_power_that_is_no_straight_line_is_learned_and_stands_in():
    with FakeRapl(pmu=0, **POWER) as rapl, Jouled(via="powercap") as jouled:
        jouled.wait_state("rapl-powercap", "healthy")
        jouled.wait_state("bpf", "healthy", "degraded")
        # A straight line through rest and full load, as what the power is compared with.
        ends = {}
        for _ in range(2):
            for part in LOADS:
                drawn, _ = steady(rapl, jouled, part)
                ends[round(drawn.busy / drawn.at / os.cpu_count(), 2)] = true_watts(drawn)["package"]
        low, high = min(ends), max(ends)
        middle = min(ends, key=lambda u: abs(u - (low + high) / 3))
        line = ends[low] + (ends[high] - ends[low]) * (middle - low) / (high - low)
        note(f"package at {low:.0%} {ends[low]:.1f} W, at {middle:.0%} {ends[middle]:.1f} W (a straight line {line:.1f} W), "
             f"at {high:.0%} {ends[high]:.1f} W")
        assert ends[middle] > 1.05 * line, "the power is a straight line"
        # Predict, then update: what the model says of a load beside what the meter says.
        drawn, page = steady(rapl, jouled, 0.4)
        for zone in ZONES:
            said, true = gauge(page, "jouled_model_predicted_watts", zone), true_watts(drawn)[zone]
            assert said, f"no prediction of {zone}"
            note(f"{zone}: predicted {said:.2f} W, true {true:.2f} W")
            assert_close(f"predicted {zone}", said, true, 0.25)

        rapl.set(fail=1)
        wait_for("the learned model", lambda: gauge(jouled.metrics(), "jouled_estimate_low_watts", "package"), 60)
        status = jouled.ctl("status")
        assert "taught by" in status, status
        inside, all = 0, 0
        first, start = jouled.metrics(), rapl.truth()
        for part in LOADS:
            drawn, page = steady(rapl, jouled, part)
            for zone in ZONES:
                low, high = (gauge(page, f"jouled_estimate_{end}_watts", zone) for end in ("low", "high"))
                assert low is not None, f"{zone} is not estimated"
                true = true_watts(drawn)[zone]
                note(f"{zone} at {drawn.busy / drawn.at / os.cpu_count():.0%}: {low:.2f} to {high:.2f} W, true {true:.2f} W")
                # The interval is of one tick, the truth of ten seconds.
                inside += low <= true <= high
                all += 1
        # Over all loads at once: a busy emulated machine is late with a tick by some seconds.
        last, drawn = jouled.metrics(), rapl.truth() - start
        for zone, true in (("package", drawn.package), ("dram", drawn.dram)):
            off = assert_close(f"{zone} without its meter", node_energy(last, zone) - node_energy(first, zone), true, 0.15)
            note(f"{zone}: {off:+.1%} in {drawn.at:.0f} s without its meter")
        note(f"{inside} of {all} inside of the 90 % interval")
        assert inside >= 0.6 * all, f"only {inside} of {all} are inside of the interval"

        # The meter returns, and measures again.
        rapl.set(fail=0)
        wait_for("the meter", lambda: gauge(jouled.metrics(), "jouled_estimate_low_watts", "package") is None, 60)
        jouled.wait_state("rapl-powercap", "healthy")
        _, page = steady(rapl, jouled, 0.5)
        assert node_energy(page) > node_energy(last), "nothing is measured"
