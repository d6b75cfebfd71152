"""The host's page: a VM is all of it, and nothing but it. libvirt's domains and QEMU alone."""

import os
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from daemon import Jouled, settle
from host import FakeRapl, wait_for
from nested import Domain, Qemu, kept
from runner import note

LIMIT_S = 400
IDLE_MW, BUSY_MW = 2_000, 20_000
PORT = 5000


def energy(metrics, vm):
    return metrics.uj("kepler_vm_cpu_joules_total", vm_id=vm.uuid, zone="package")


def seconds(metrics, vm):
    return metrics.sum("jouled_vm_cpu_seconds_total", vm_id=vm.uuid)


def vm_info(jouled, vm):
    [labels] = jouled.metrics().labels("jouled_vm_info", vm_id=vm.uuid)
    return labels


def group_seconds(path):
    stat = Path("/sys/fs/cgroup" + path, "cpu.stat").read_text()
    return int(dict(line.split() for line in stat.splitlines())["usage_usec"]) / 1e6


def whole_group(vm):
    """The cgroup with all that belongs to the VM: its service, or the scope above libvirt's own groups."""
    return vm.scope().partition(".scope/")[0] + ".scope" if ".scope" in vm.scope() else vm.scope()


@contextmanager
def vsock_sink():
    """Takes whatever VMs send, and drops it."""
    server = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    server.bind((socket.VMADDR_CID_ANY, PORT))
    server.listen(4)
    server.settimeout(20)

    def drain():
        with server, server.accept()[0] as connection:
            while connection.recv(1 << 16):
                pass

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    yield
    # The sender is gone by now.
    thread.join(10)


def case_vms_have_their_names():
    bare, tiny = kept(Qemu, "bare"), kept(Domain, "tiny")
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW), Jouled() as jouled:
        page = jouled.wait_vms(bare, tiny)
        for vm in (bare, tiny):
            [labels] = [labels for labels in page.labels("kepler_vm_cpu_joules_total", vm_id=vm.uuid, zone="package")]
            assert (labels["vm_name"], labels["hypervisor"], labels["state"]) == (vm.name, "kvm", "running"), labels
            info = vm_info(jouled, vm)
            assert info["uuid"] == vm.uuid and info["vmm"] == "qemu", info
        assert len(page.values("kepler_vm_cpu_joules_total", "vm_id")) == 2, page.values("kepler_vm_cpu_joules_total", "vm_id")
        for vm in (bare, tiny):
            # Every thread of the process is the VM's, vhost's worker among them; nothing else is in its group here.
            [process] = page.labels("kepler_process_cpu_joules_total", vm_id=vm.uuid, zone="package")
            assert (process["pid"], process["type"]) == (str(vm.pid), "vm"), process
        # Without jouled-libvirt, systemd-machined names the manager of a domain; QEMU alone has no manager.
        wait_for("word from machined", lambda: vm_info(jouled, tiny)["manager"] == "machined")
        assert vm_info(jouled, bare)["manager"] == "", vm_info(jouled, bare)
        note(vm_info(jouled, tiny))


def next_page(jouled):
    """The page of the next tick: any other is up to a tick old, which is more than a CPU may be off."""
    def later():
        page = jouled.metrics()
        return page if page.sum("jouled_ticks_total") > ticks else None

    ticks = jouled.metrics().sum("jouled_ticks_total")
    return wait_for("a tick", later, period_s=0.02)


def charged(vm, load):
    """What the VM was charged for a load, against the kernel's own account of its cgroup."""
    with FakeRapl(pmu=0, pkg_mw=IDLE_MW, busy_mw=BUSY_MW) as rapl, Jouled() as jouled:
        jouled.wait_vms(vm)
        settle()
        group = whole_group(vm)
        with load():
            time.sleep(0.5)
            before, cpu, truth = next_page(jouled), group_seconds(group), rapl.truth()
            time.sleep(6)
            after, cpu, truth = next_page(jouled), group_seconds(group) - cpu, rapl.truth() - truth
        after.assert_not_below(before)
        charged_s = seconds(after, vm) - seconds(before, vm)
        active = after.uj("kepler_node_cpu_active_joules_total", zone="package") - before.uj("kepler_node_cpu_active_joules_total", zone="package")
        share = (energy(after, vm) - energy(before, vm)) / active
        note(f"the VM's cgroup had {cpu:.2f} s of {truth.busy:.2f} s CPU time, jouled says {charged_s:.2f} s; {share:.1%} of the dynamic energy")
        # What the kernel's account is read later than the tick.
        assert abs(charged_s - cpu) <= 0.1 * cpu + 0.2, f"{charged_s:.2f} s of CPU time by jouled, {cpu:.2f} s by its cgroup"
        assert abs(share - cpu / truth.busy) <= 0.08, f"charged {share:.1%} of the dynamic energy for {cpu / truth.busy:.1%} of the CPU time"
        vms = after.labels("kepler_vm_cpu_joules_total", zone="package")
        for labels in vms:
            id = labels["vm_id"]
            of_vm = after.uj("kepler_vm_cpu_joules_total", vm_id=id, zone="package") - before.uj("kepler_vm_cpu_joules_total", vm_id=id, zone="package")
            of_processes = after.uj("kepler_process_cpu_joules_total", vm_id=id, zone="package") - before.uj("kepler_process_cpu_joules_total", vm_id=id, zone="package")
            assert of_vm == of_processes, f"{labels['vm_name']}: {of_vm} uJ, but its processes {of_processes} uJ"
        return before, after


def case_vcpus_of_qemu_alone():
    vm = kept(Qemu, "bare")
    charged(vm, vm.burning)


def case_vcpus_of_a_domain():
    vm = kept(Domain, "tiny")
    charged(vm, vm.burning)


def vhost_seconds(vm):
    [thread] = [id for id, (name, _) in vm.threads().items() if name == f"vhost-{vm.pid}"]
    fields = Path(f"/proc/{vm.pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def case_vhost_workers_belong_to_the_domain():
    vm = kept(Domain, "tiny")

    @contextmanager
    def sending():
        with vsock_sink():
            vm.sh(f"vsk 2 {PORT} </dev/zero >/dev/null 2>&1 & echo $! >/run/sender")
            before = vhost_seconds(vm)
            try:
                yield
                worked = vhost_seconds(vm) - before
            finally:
                vm.sh("kill $(cat /run/sender)")
        note(f"vhost's worker ran for {worked:.2f} s")
        assert worked >= 0.3, f"vhost's worker ran for {worked:.2f} s only"

    charged(vm, sending)


def case_helpers_in_the_scope_belong_to_the_domain():
    vm = kept(Domain, "tiny")
    helper = None

    @contextmanager
    def helping():
        nonlocal helper
        helper = subprocess.Popen(["busybox", "sh", "-c", "while :; do :; done"])
        # Where libvirt puts swtpm.
        Path("/sys/fs/cgroup" + vm.scope(), "cgroup.procs").write_text(str(helper.pid))
        try:
            yield
        finally:
            helper.kill()
            helper.wait()

    _, after = charged(vm, helping)
    [labels] = after.labels("kepler_process_cpu_joules_total", pid=str(helper.pid), vm_id=vm.uuid, zone="package")
    assert labels["comm"] == "busybox", labels
