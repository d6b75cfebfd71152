"""Other transports of the guest channel: hybrid vsock, whose device is a separate program, and a virtio-serial port."""

import json
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from c_channel import wait_told
from daemon import Jouled
from host import FakeRapl, wait_for
from inside import GuestJouled
from nested import MEMORY_MB, PAYLOAD, Qemu, kept
from runner import Skip

LIMIT_S = 400
DEVICE = PAYLOAD / "bin/vhost-device-vsock"


@contextmanager
def folder():
    path = Path(tempfile.mkdtemp(prefix="doors.", dir="/run"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def hybrid_vsock(path, cid):
    """A vsock device for one VM, whose sockets are PATH and PATH_PORT."""
    if not DEVICE.exists():
        raise Skip("no vhost-device-vsock: cargo could not install it")
    socket = path.with_suffix(".vhost")
    device = subprocess.Popen([DEVICE, "--vm", f"guest-cid={cid},socket={socket},uds-path={path}"])
    try:
        wait_for("vhost-device-vsock", socket.exists)
        yield ["-object", f"memory-backend-memfd,id=memory,size={MEMORY_MB}M,share=on", "-machine", "memory-backend=memory",
               "-chardev", f"socket,id=vsock,path={socket}", "-device", "vhost-user-vsock-pci,chardev=vsock"]
    finally:
        device.terminate()
        device.wait(10)


def case_hybrid_vsock():
    with folder() as sockets, hybrid_vsock(sockets / "vm.vsock", 60) as device:
        config = f'[export.guest]\nprofile = "trusted"\nhybrid = ["{sockets}"]\n'
        with FakeRapl(pmu=0), Jouled(config=config) as jouled, Qemu("hybrid", vsock=False, extra=device) as vm:
            jouled.wait_vms(vm)
            wait_for("the channel's socket", (sockets / "vm.vsock_28282").is_socket)
            answer = wait_told(vm)
            assert answer["vm"] == {"id": vm.uuid, "name": "hybrid"}, answer
            with GuestJouled(vm) as inside:
                inside.wait_state("vsock", "healthy")


def whole_lines(text):
    """Those that are objects: the first may have lost its beginning."""
    return [line for line in text.splitlines() if line.startswith("{") and line.endswith("}")]


def case_virtio_serial():
    vm = kept(Qemu, "bare")
    config = f'[export.guest]\nprofile = "trusted"\nserial = ["{vm.dir}"]\n'
    with FakeRapl(pmu=0), Jouled(config=config) as jouled:
        jouled.wait_vms(vm)
        device = vm.sh("basename $(dirname $(grep -lx org.jouled.0 /sys/class/virtio-ports/*/name))")
        lines = wait_for("lines on the serial port", lambda: whole_lines(vm.sh(f"timeout 4 cat /dev/{device}", check=False)))
        assert all(json.loads(line)["vm"]["id"] == vm.uuid for line in lines), lines
        with GuestJouled(vm, config=f'[meter.vsock]\nconnect = "serial:/dev/{device}"\n') as inside:
            inside.wait_state("vsock", "healthy")
