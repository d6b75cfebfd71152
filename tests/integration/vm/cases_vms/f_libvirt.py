"""jouled-libvirt: what libvirt knows of a VM reaches the host's page, before and after libvirt is restarted."""

import subprocess
import tempfile
from contextlib import contextmanager

from daemon import Jouled
from host import FakeRapl, sh, wait_for
from nested import PAYLOAD, Domain, need_libvirt, virsh
from runner import Skip, note

LIMIT_S = 400
BINARY = PAYLOAD / "bin/jouled-libvirt"


@contextmanager
def helper(jouled):
    """jouled-libvirt as the user nobody: all users may use the read-only socket."""
    if not BINARY.exists():
        raise Skip("no jouled-libvirt binary was given")
    need_libvirt()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([BINARY, "--socket", jouled.dir / "state/inventory.sock"], stdout=log, stderr=log)
        try:
            yield
        except BaseException:
            log.seek(0)
            note(log.read().decode(errors="replace")[-2000:])
            raise
        finally:
            process.terminate()
            process.wait(10)


def info(jouled, vm):
    found = jouled.metrics().labels("jouled_vm_info", vm_id=vm.uuid)
    assert len(found) <= 1, found
    return found[0] if found else {}


def case_libvirt_says_more_of_a_domain():
    with FakeRapl(pmu=0), Jouled() as jouled, helper(jouled), Domain("titled", title="A title &amp; more") as vm:
        jouled.wait_vms(vm)
        wait_for("the title", lambda: info(jouled, vm).get("title") == "A title & more")
        note(info(jouled, vm))
        assert info(jouled, vm)["state"] == "running"
        virsh("suspend", vm.name)
        wait_for("state paused", lambda: info(jouled, vm)["state"] == "paused")
        virsh("resume", vm.name)
        wait_for("state running", lambda: info(jouled, vm)["state"] == "running")
        sh("systemctl", "restart", "libvirtd.service", timeout=60)
        virsh("suspend", vm.name)
        wait_for("state paused after a restart of libvirtd", lambda: info(jouled, vm).get("state") == "paused", limit_s=40)
        virsh("resume", vm.name)
