"""End to end: the host's jouled measures, the VM's jouled holds the same number, shares it out there, and gives it to Debian's node exporter."""

import json
import time

from c_channel import BUSY_MW, IDLE_MW, QUIET_S, host, told, wait_told, zone
from daemon import Metrics
from host import FakeRapl, wait_for
from inside import MIRROR, GuestJouled
from nested import Domain, Qemu, kept
from runner import note

LIMIT_S = 240


def total(metrics, name="package"):
    """What the VM's jouled holds of the host's zone, in microjoules."""
    return metrics.uj("jouled_domain_joules_total", domain=f"guest/{name}")


def quiet(rapl):
    """Nothing is drawn from here on, and what was drawn has arrived everywhere."""
    rapl.set(pkg_mw=0, core_mw=0, dram_mw=0, busy_mw=0)
    time.sleep(QUIET_S)


def case_totals_are_the_hosts_to_the_microjoule():
    tiny = kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=0, core_mw=0, dram_mw=0) as rapl, host("trusted") as jouled:
        jouled.wait_vms(tiny)
        wait_told(tiny)
        time.sleep(QUIET_S)
        start = told(tiny)
        with GuestJouled(tiny) as inside:
            inside.wait_state("vsock", "healthy")
            page, by_host = inside.metrics(), jouled.metrics()
            with tiny.burning() as burner:
                rapl.set(pkg_mw=IDLE_MW, busy_mw=BUSY_MW)
                time.sleep(8)
                quiet(rapl)
                end, after, by_host_after = told(tiny), inside.metrics(), jouled.metrics()
            after.assert_not_below(page)
            for name in ("package",):
                true = zone(end, name)["energy_uj"] - zone(start, name)["energy_uj"]
                held = total(after, name)
                note(f"{name}: the channel says {true} uJ, the VM's jouled holds {held} uJ")
                assert true > 1_000_000, f"the VM drew {true} uJ only"
                assert held == true, f"{name}: {held} uJ in the VM where the channel says {true} uJ"
            host_says = by_host_after.uj("kepler_vm_cpu_joules_total", vm_id=tiny.uuid, zone="package")
            assert 0 <= host_says - zone(end)["energy_uj"] < end["quantum_uj"], f"the host says {host_says} uJ, the channel {zone(end)['energy_uj']} uJ"
            # In the VM: the burner is charged with it.
            charged = after.uj("kepler_process_cpu_joules_total", pid=burner, zone="package")
            active = after.uj("kepler_node_cpu_active_joules_total", zone="package") - page.uj("kepler_node_cpu_active_joules_total", zone="package")
            note(f"the burner in the VM was charged {charged / active:.1%} of {active} uJ")
            assert charged / active >= 0.8, f"the burner in the VM was charged {charged} uJ of {active} uJ"
            # By powercap, for tools that know nothing of jouled.
            read = node_exporter(tiny)
            mirrored = read.uj("node_rapl_package_joules_total")
            note(f"node exporter reads {mirrored} uJ from the mirror")
            assert mirrored == total(inside.metrics()), f"node exporter reads {mirrored} uJ, the VM's jouled holds {held} uJ"
            show(jouled, inside, tiny)


def node_exporter(vm):
    """Debian's, unmodified, in the VM: one scrape."""
    address = "127.0.0.1:9100"
    vm.sh(f"prometheus-node-exporter --web.listen-address={address} --path.sysfs={MIRROR} --collector.disable-defaults --collector.rapl "
          ">/run/exporter.log 2>&1 & echo $! >/run/exporter.pid")
    try:
        # Errors of wget before jouled listens are no page.
        page = f"wget -q -O - http://{address}/metrics | grep '^node_' || true"
        return Metrics(wait_for("node exporter", lambda: "\nnode_rapl" in (text := "\n" + vm.sh(page)) and text, period_s=1))
    finally:
        vm.sh("kill $(cat /run/exporter.pid)")


def show(jouled, inside, vm):
    """joulectl on both sides."""
    table = jouled.ctl("list", "vm")
    note(table)
    [line] = [line for line in table.splitlines() if line.startswith(vm.name)]
    assert "vsock" in line and "ago" in line, f"nothing of the channel in {line!r}"
    assert json.loads(jouled.ctl("list", "vm", "--json"))
    status = inside.ctl("status")
    note(status)
    assert "vsock:2:28282" in status, "status in the VM does not name the way to its host"


def case_two_vms_hold_different_totals():
    bare, tiny = kept(Qemu, "bare"), kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=0, core_mw=0, dram_mw=0) as rapl, host("trusted") as jouled:
        jouled.wait_vms(bare, tiny)
        with GuestJouled(bare) as in_bare, GuestJouled(tiny) as in_tiny:
            for inside in (in_bare, in_tiny):
                inside.wait_state("vsock", "healthy")
            time.sleep(QUIET_S)
            before = jouled.metrics()
            start = {inside: total(inside.metrics()) for inside in (in_bare, in_tiny)}
            with tiny.burning():
                rapl.set(pkg_mw=IDLE_MW, busy_mw=BUSY_MW)
                time.sleep(5)
                quiet(rapl)
            after = jouled.metrics()
            held = {inside: total(inside.metrics()) - start[inside] for inside in (in_bare, in_tiny)}
            by_host = [sum(page.uj("kepler_vm_cpu_joules_total", vm_id=vm.uuid, zone="package") for vm in (bare, tiny)) for page in (before, after)]
            note(f"{held[in_bare]} uJ in one and {held[in_tiny]} uJ in the other, {by_host[1] - by_host[0]} uJ by the host")
            assert held[in_tiny] > 2 * held[in_bare] > 0, held
            assert abs(sum(held.values()) - (by_host[1] - by_host[0])) < 2 * 1000, (held, by_host)


def case_the_host_restarts_and_goes_away():
    tiny = kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW), host("trusted") as jouled, GuestJouled(tiny) as inside:
        inside.wait_state("vsock", "healthy")
        before, page = wait_told(tiny), inside.metrics()
        jouled.stop()
        inside.wait_state("vsock", "failed", "degraded")
        inside.wait_state("estimate", "healthy", "degraded")
        alone = inside.metrics()
        # Kepler's label `path` names the current meter.
        alone.without("path").assert_not_below(page.without("path"))
        qualities = {(labels["source"], labels["quality"]) for labels in alone.labels("jouled_domain_info")}
        assert ("estimate", "estimated") in qualities, qualities
        note(f"without its host: {sorted(qualities)}")
        held = total(alone)
        time.sleep(4)
        assert total(inside.metrics()) == held, "the host's number grows without the host"
        jouled.start()
        inside.wait_state("vsock", "healthy", limit_s=80)
        after = wait_told(tiny)
        assert after["source"] == before["source"], (before, after)
        if after["generation"] == before["generation"]:
            assert zone(after)["energy_uj"] >= zone(before)["energy_uj"], (before, after)
        again = inside.metrics()
        again.without("path").assert_not_below(alone.without("path"))
        wait_for("the host's number to grow", lambda: total(inside.metrics()) > held)
        drawn = total(inside.metrics()) - held
        # What a VM can draw in these seconds, not the whole total once more.
        assert drawn < 100 * 22_000_000, f"a jump of {drawn} uJ"
        inside.metrics().assert_not_below(again)
