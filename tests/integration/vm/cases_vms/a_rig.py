"""Checks of the rig itself: VMs under KVM, by QEMU alone and by libvirt, that talk over vsock. No jouled."""

import os
import socket
import subprocess
import threading
from contextlib import closing
from pathlib import Path

from host import sh
from nested import VSK, Domain, Qemu, kept, need_kvm
from runner import note

LIMIT_S = 400
PORT = 5000


def listener():
    server = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    server.settimeout(30)
    server.bind((socket.VMADDR_CID_ANY, PORT))
    server.listen(4)
    return closing(server)


def peers(server, count):
    """Takes connections: the peers' (cid, port) and what they sent. Each gets its own CID as an answer."""
    found = []
    for _ in range(count):
        connection, peer = server.accept()
        with connection:
            text = connection.recv(100).decode()
            connection.sendall(f"you are {peer[0]}\n".encode())
        found.append((peer, text))
    return found


def case_kvm_and_vsock_are_there():
    need_kvm()
    assert os.path.exists("/dev/kvm") and os.path.exists("/dev/vhost-vsock")


def case_a_peer_on_this_machine_has_cid_1():
    need_kvm()
    sh("modprobe", "vsock_loopback")
    with listener() as server:
        child = subprocess.Popen([VSK, "1", str(PORT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdin.write(b"hello")
        child.stdin.close()
        [(peer, text)] = peers(server, 1)
        assert (peer[0], text) == (1, "hello"), (peer, text)
        assert child.stdout.read() == b"you are 1\n"
        child.wait(10)


def case_bare_qemu_runs_under_kvm_and_talks_over_vsock():
    vm = kept(Qemu, "bare")
    names = {name for name, _ in vm.threads().values()}
    assert "CPU 0/KVM" in names, names
    assert vm.sh("vsk cid") == str(vm.cid)
    with listener() as server:
        found = []
        thread = threading.Thread(target=lambda: found.extend(peers(server, 2)))
        thread.start()
        assert vm.sh(f"echo hello | vsk 2 {PORT}") == f"you are {vm.cid}"
        assert vm.sh(f"echo root | vsk 2 {PORT} 777") == f"you are {vm.cid}"
        thread.join(10)
    assert [(peer[0], text) for peer, text in found] == [(vm.cid, "hello\n"), (vm.cid, "root\n")], found
    assert found[1][0][1] == 777, found
    # The kernel's worker for the device: since 6.4 a thread of QEMU.
    assert f"vhost-{vm.pid}" in {name for name, _ in vm.threads().values()}, vm.threads()
    note(f"Linux {vm.sh('uname -r')} in the VM, {vm.sh('cut -d. -f1 /proc/uptime')} s old; threads {sorted(names)}")


def case_libvirt_domain_has_a_scope_and_a_cid():
    vm = kept(Domain, "tiny")
    assert vm.cid >= 3 and vm.sh("vsk cid") == str(vm.cid)
    assert vm.scope().startswith("/machine.slice/machine-qemu"), vm.scope()
    groups = {name: Path(cgroup).name for name, cgroup in vm.threads().values()}
    assert groups["CPU 0/KVM"] == "vcpu0", groups
    assert groups["IO iothread1"] == "iothread1", groups
    assert groups[f"vhost-{vm.pid}"] == "emulator", groups
    assert "qemu-1-tiny" in sh("machinectl", "list", "--no-legend"), "machined does not know it"
    note(f"CID {vm.cid}, {vm.scope()}, {groups}")


def case_a_vm_has_what_the_cases_want():
    vm = kept(Qemu, "bare")
    vm.sh("test -e /sys/fs/cgroup/cgroup.controllers && test -e /sys/kernel/btf/vmlinux")
    assert "node_exporter" in vm.sh("prometheus-node-exporter --version")
    with vm.burning():
        used_us = int(vm.sh("sleep 1; sed -n 's/^usage_usec //p' /sys/fs/cgroup/burn/cpu.stat"))
    assert used_us >= 200_000, f"the burner ran for {used_us} us"
