"""End to end: the host's jouled measures, the VM's jouled holds the same number, shares it out there, and gives it to Debian's node exporter."""

import json
import time

from c_channel import BUSY_MW, IDLE_MW, host, quiet, told, wait_told, zone
from daemon import Metrics
from host import FakeRapl, wait_for
from inside import MIRROR, GuestJouled
from nested import Domain, Qemu, kept
from runner import note

LIMIT_S = 400


def total(metrics, name="package"):
    """What the VM's jouled holds of the host's zone, in microjoules."""
    return metrics.uj("jouled_domain_joules_total", domain=f"guest/{name}")


def case_totals_are_the_hosts_to_the_microjoule():
    tiny = kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW) as rapl, host("trusted") as jouled:
        jouled.wait_vms(tiny)
        wait_told(tiny)
        with GuestJouled(tiny) as inside, NodeExporter(tiny) as exporter:
            inside.wait_state("vsock", "healthy")
            quiet(rapl)
            start, page = told(tiny), inside.metrics()
            with tiny.burning() as burner:
                rapl.set(pkg_mw=IDLE_MW, busy_mw=BUSY_MW)
                time.sleep(8)
                quiet(rapl)
                end, after, by_host = told(tiny), inside.metrics(), jouled.metrics()
                # By powercap, for tools that know nothing of jouled.
                mirrored, mirrored_by = exporter.page().uj("node_rapl_package_joules_total"), total(inside.metrics())
            rapl.set(pkg_mw=IDLE_MW)
            after.assert_not_below(page)
            true, held = zone(end)["energy_uj"] - zone(start)["energy_uj"], total(after) - total(page)
            note(f"the channel says {true} uJ, the VM's jouled says {held} uJ")
            assert true > 1_000_000, f"the VM drew {true} uJ only"
            assert held == true, f"{held} uJ in the VM where the channel says {true} uJ"
            host_says = by_host.uj("kepler_vm_cpu_joules_total", vm_id=tiny.uuid, zone="package")
            assert 0 <= host_says - zone(end)["energy_uj"] < end["quantum_uj"], f"the host says {host_says} uJ, the channel {zone(end)['energy_uj']} uJ"
            # In the VM: the burner is charged with it.
            charged = after.uj("kepler_process_cpu_joules_total", pid=burner, zone="package")
            active = after.uj("kepler_node_cpu_active_joules_total", zone="package") - page.uj("kepler_node_cpu_active_joules_total", zone="package")
            note(f"the burner in the VM was charged {charged / active:.1%} of {active} uJ")
            assert charged / active >= 0.8, f"the burner in the VM was charged {charged} uJ of {active} uJ"
            note(f"node exporter reads {mirrored} uJ from the mirror")
            assert mirrored == mirrored_by, f"node exporter reads {mirrored} uJ, the VM's jouled holds {mirrored_by} uJ"
            show(jouled, inside, tiny)


class NodeExporter:
    """Debian's, unmodified, in the VM, during the `with` block."""

    ADDRESS = "127.0.0.1:9100"

    def __init__(self, vm):
        self.vm = vm

    def __enter__(self):
        self.vm.sh(f"prometheus-node-exporter --web.listen-address={self.ADDRESS} --path.sysfs={MIRROR} --collector.disable-defaults --collector.rapl "
                   ">/run/exporter.log 2>&1 & echo $! >/run/exporter.pid")
        wait_for("node exporter", self.page, period_s=1)
        return self

    def __exit__(self, *_):
        self.vm.sh("kill $(cat /run/exporter.pid)")

    def page(self):
        """One scrape; nothing before it listens and the mirror is there."""
        # Errors of wget before it listens are no page.
        text = "\n" + self.vm.sh(f"wget -q -O - http://{self.ADDRESS}/metrics | grep '^node_' || true")
        return "\nnode_rapl" in text and Metrics(text)


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
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW) as rapl, host("trusted") as jouled:
        jouled.wait_vms(bare, tiny)
        with GuestJouled(bare) as in_bare, GuestJouled(tiny) as in_tiny:
            for inside in (in_bare, in_tiny):
                inside.wait_state("vsock", "healthy")
            quiet(rapl)
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
