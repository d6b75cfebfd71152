"""Attribution to systemd units on this kernel, by both paths of the eBPF program."""

import os
import time

from daemon import Jouled, node_energy, settle
from host import FakeRapl, burner, sh
from runner import note

IDLE_MW, BUSY_MW = 2_000, 20_000


def unit_energy(metrics, unit):
    return metrics.sum("jouled_unit_joules_total", unit=unit, mode="dynamic", zone="package")


def active_energy(metrics):
    return metrics.sum("kepler_node_cpu_active_joules_total", zone="package")


def attribution(path):
    with FakeRapl(pkg_mw=IDLE_MW, busy_mw=BUSY_MW) as rapl, Jouled(path=path) as jouled:
        jouled.wait_state("rapl-perf", "healthy")
        # Degraded: this machine counts no cycles.
        jouled.wait_state("bpf", "healthy", "degraded")
        with burner() as burn:
            settle()
            before, cpu, start = jouled.metrics(), burn.cpu_seconds(), rapl.truth()
            time.sleep(5)
            after, cpu, true = jouled.metrics(), burn.cpu_seconds() - cpu, rapl.truth() - start
        after.assert_not_below(before)
        unit = unit_energy(after, burn.name) - unit_energy(before, burn.name)
        active = active_energy(after) - active_energy(before)
        total = node_energy(after) - node_energy(before)
        assert active > 0, "nothing was active"
        charged, had = unit / active, cpu / true.busy
        note(f"the burner had {had:.2%} of the CPU time and was charged {charged:.2%} of the dynamic energy")
        note(f"dynamic {active:.2f} J of {total:.2f} J by jouled, {BUSY_MW * true.busy / 1000:.2f} J of {true.package:.2f} J in truth")
        # On a machine that is busy with other things the burner itself has less.
        assert charged >= min(0.95, had - 0.03), f"burn.service was charged {charged:.1%} of the dynamic energy and had {had:.1%} of the CPUs"
        assert charged <= min(1, had + 0.03), f"burn.service was charged {charged:.1%} of the dynamic energy and had {had:.1%} of the CPUs"


def short_unit(path):
    with FakeRapl(pkg_mw=IDLE_MW, busy_mw=BUSY_MW), Jouled(path=path) as jouled:
        jouled.wait_state("rapl-perf", "healthy")
        jouled.wait_state("bpf", "healthy", "degraded")
        settle()
        sh("systemd-run", "--quiet", "--wait", "--collect", "--unit=shorty", "true")
        settle()
        units = jouled.metrics().values("jouled_unit_joules_total", "unit")
        assert "shorty.service" in units, f"units are {' '.join(sorted(units))}"
        note(f"{unit_energy(jouled.metrics(), 'shorty.service') * 1000:.1f} mJ")


def case_btf_path_charges_units():
    assert os.path.exists("/sys/kernel/btf/vmlinux"), "this kernel has no BTF"
    attribution("btf")


def case_helpers_path_charges_units():
    attribution("helpers")


def case_btf_path_short_unit_keeps_its_name():
    short_unit("btf")


def case_helpers_path_says_what_it_cannot():
    # Without BTF a cgroup that is gone has an id and no name, which is reported.
    with FakeRapl(pkg_mw=IDLE_MW, busy_mw=BUSY_MW), Jouled(path="helpers") as jouled:
        jouled.wait_state("bpf", "degraded")
        sh("systemd-run", "--quiet", "--wait", "--collect", "--unit=shorty", "true")
        settle()
        reasons = jouled.metrics().values("jouled_source_info", "reason")
        assert any("shorter than a tick" in reason for reason in reasons), f"reasons are {reasons}"
