"""The installed services on a host of VMs, in their sandboxes: identity of the VMs, libvirt, the guest channel."""

import json
import time
from contextlib import contextmanager
from pathlib import Path

from daemon import START_S
from host import FakeRapl, sh, wait_for
from nested import Domain, kept, need_libvirt
from runner import note
from service import TREE, UNIT, Service, show

LIMIT_S = 400


def case_service_sees_vms_and_tells_them():
    need_libvirt()
    vm = kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=2_000, busy_mw=20_000), Service() as jouled, libvirt() as manager:
        jouled.wait_state("rapl-powercap", "healthy")
        jouled.wait_vms(vm)
        [info] = wait_for(f"{manager}'s word", lambda: jouled.metrics().labels("jouled_vm_info", vm_id=vm.uuid, manager=manager))
        # By the program of its process, and the vsock device that it holds: both take CAP_SYS_PTRACE.
        assert info["vmm"] == "qemu", info

        # As shipped, [export.guest] vsock is "auto".
        said = wait_for("the energy on the guest channel", lambda: told(vm), limit_s=40, period_s=1)
        assert said["vm"]["id"] == vm.uuid, said
        note(f"{info}; told {said['zones']}; {show('StatusText')}")
        if manager == "libvirt":
            jouled.wait_state("libvirt", "healthy")


def case_service_upgrade_costs_a_guest_one_epoch_at_most():
    need_libvirt()
    vm = kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=2_000, busy_mw=20_000), Service('[export.guest]\nvsock = "on"\n') as jouled, vm.burning():
        jouled.wait_vms(vm)
        first = wait_for("the energy on the guest channel", lambda: told(vm), limit_s=40, period_s=1)
        before = wait_for("the next epoch", lambda: newer(vm, first), limit_s=40, period_s=1)
        pid = jouled.pid()
        # What an upgrade does: another file of that name, then a restart.
        sh("cp", "-a", "/usr/bin/jouled", "/usr/bin/jouled.new")
        Path("/usr/bin/jouled.new").rename("/usr/bin/jouled")
        begun = time.monotonic()
        sh("systemctl", "restart", UNIT, timeout=START_S + 45)
        # Under emulation a start takes many seconds.
        restart_s = time.monotonic() - begun
        assert jouled.pid() != pid
        after = wait_for("an epoch after the upgrade", lambda: newer(vm, before), limit_s=60, period_s=1)
        period_s = before["period_ns"] / 1e9
        note(f"epochs of {period_s:.0f} s: {first['epoch']}, {before['epoch']}, restart of {restart_s:.1f} s, {after['epoch']}")
        assert after["epoch"] - before["epoch"] <= 2 * period_s + restart_s, (before, after)
        assert (after["source"], after["generation"]) == (before["source"], before["generation"]), (before, after)
        was, now = ({zone["zone"]: zone["energy_uj"] for zone in one["zones"]} for one in (before, after))
        assert now["package"] > was["package"] and all(now[zone] >= energy for zone, energy in was.items()), (was, now)


def told(vm):
    """The answer of the guest channel to the VM; None where there is none."""
    status, _, body = vm.get("/v1/energy")
    return json.loads(body) if status == 200 else None


def newer(vm, than):
    """The answer to the VM, where it is of a later epoch."""
    said = told(vm)
    return said if said and said["epoch"] > than["epoch"] else None


@contextmanager
def libvirt():
    """The service of jouled-libvirt, where its binary was given. Without it systemd-machined reports the VMs."""
    if not (TREE / "usr/bin/jouled-libvirt").exists():
        note("no jouled-libvirt binary was given")
        yield "machined"
        return
    sh("systemctl", "start", "jouled-libvirt.service", timeout=60)
    try:
        yield "libvirt"
    finally:
        sh("systemctl", "stop", "jouled-libvirt.service", timeout=60)
