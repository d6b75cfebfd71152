"""The installed services on a host of VMs, under their sandboxes: who the VMs are, what libvirt says, what a guest is told."""

import json
from contextlib import contextmanager

from host import FakeRapl, sh, wait_for
from nested import Domain, kept, need_libvirt
from runner import note
from service import TREE, Service, show

LIMIT_S = 240


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
        def told():
            status, _, body = vm.get("/v1/energy")
            return status == 200 and json.loads(body)

        said = wait_for("the VM to be told its energy", told, limit_s=40, period_s=1)
        assert said["vm"]["id"] == vm.uuid, said
        note(f"{info}; told {said['zones']}; {show('StatusText')}")
        if manager == "libvirt":
            jouled.wait_state("libvirt", "healthy")


@contextmanager
def libvirt():
    """jouled-libvirt's own service, where its binary was given. Without it systemd-machined is who says something."""
    if not (TREE / "usr/bin/jouled-libvirt").exists():
        note("no jouled-libvirt binary was given")
        yield "machined"
        return
    sh("systemctl", "start", "jouled-libvirt.service", timeout=60)
    try:
        yield "libvirt"
    finally:
        sh("systemctl", "stop", "jouled-libvirt.service", timeout=60)
