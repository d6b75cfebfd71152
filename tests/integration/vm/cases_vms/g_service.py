"""The installed services on a host of VMs, under their sandboxes: who the VMs are, what libvirt says, what a guest is told."""

import json

from host import FakeRapl, sh, wait_for
from nested import Domain, kept, need_libvirt
from runner import Skip, note
from service import TREE, Service, show

LIMIT_S = 240


def case_service_sees_vms_and_tells_them():
    if not (TREE / "usr/bin/jouled-libvirt").exists():
        raise Skip("no jouled-libvirt binary was given")
    need_libvirt()
    vm = kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=2_000, busy_mw=20_000), Service() as jouled:
        # As shipped: [export.guest] vsock is "auto".
        sh("systemctl", "start", "jouled-libvirt.service", timeout=60)
        try:
            jouled.wait_state("rapl-powercap", "healthy")
            jouled.wait_state("libvirt", "healthy")
            jouled.wait_vms(vm)
            [info] = wait_for("libvirt's word", lambda: jouled.metrics().labels("jouled_vm_info", vm_id=vm.uuid, manager="libvirt"))
            # By the program of its process and the vsock device that it holds, which takes CAP_SYS_PTRACE.
            assert info["vmm"] == "qemu", info

            def told():
                status, _, body = vm.get("/v1/energy")
                return status == 200 and json.loads(body)

            said = wait_for("the VM to be told its energy", told, limit_s=40, period_s=1)
            assert said["vm"]["id"] == vm.uuid, said
            note(f"{info}; told {said['zones']}; {show('StatusText')}")
        finally:
            sh("systemctl", "stop", "jouled-libvirt.service", timeout=60)
