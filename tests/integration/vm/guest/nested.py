"""Virtual machines in the machine under test, as QEMU alone or as libvirt domains, and scripts in them. Not jouled."""

import base64
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid as uuids
from contextlib import contextmanager
from pathlib import Path

from host import sh, wait_for
from runner import note

PAYLOAD = Path("/payload")
KERNEL, INITRAMFS = PAYLOAD / "vmlinuz", PAYLOAD / "nested.cpio"
VSK = PAYLOAD / "bin/vsk"
APPEND = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable"
MEMORY_MB = 384
# Limit of a script in a VM; a nested machine is slow.
SCRIPT_LIMIT_S = 40

_cids = itertools.count(100)


_kept = {}


def kept(kind, name):
    """A VM that stays for later cases, and is started where it does not run. No case may end it or leave a load in it."""
    vm = _kept.pop(name, None)
    try:
        if vm:
            vm.sh("true", limit_s=5)
    except (AssertionError, OSError):
        vm.__exit__()
        vm = None
    _kept[name] = vm or kind(name).__enter__()
    return _kept[name]


def end_kept(name):
    """Ends a VM that was kept for later cases."""
    if vm := _kept.pop(name, None):
        vm.__exit__()


def need_kvm():
    """Loads KVM and the host's side of vsock."""
    sh("modprobe", "kvm_amd")
    sh("modprobe", "vhost_vsock")


class Guest:
    """Common parts of both kinds of VM: a folder, a console, and a port that runs scripts in them."""

    def __init__(self, name, uuid=None):
        self.name = name
        self.uuid = uuid or str(uuids.uuid4())
        self.dir = Path(tempfile.mkdtemp(prefix="vm.", dir="/run"))
        self.dir.chmod(0o777)
        self.console = self.dir / "console"
        self.port = None

    def connect(self):
        """Waits until the VM runs scripts."""
        start = time.monotonic()
        path = self.dir / "port"

        def dial():
            self.assert_running()
            try:
                self.port = socket.socket(socket.AF_UNIX)
                self.port.connect(str(path))
            except OSError:
                return False
            return True

        wait_for(f"the port of {self.name}", dial)
        self.lines = self.port.makefile("rb")
        self.sh("true", limit_s=120)
        note(f"{self.name} was up after {time.monotonic() - start:.1f} s")

    def disconnect(self):
        if self.port:
            self.lines.close()
            self.port.close()
            self.port = None

    def sh(self, script, limit_s=SCRIPT_LIMIT_S, check=True):
        """Runs a script in the VM's shell and returns its output."""
        self.port.settimeout(limit_s)
        self.port.sendall(base64.b64encode(script.encode()) + b"\n")
        try:
            line = self.lines.readline()
        except TimeoutError:
            raise AssertionError(f"{self.name} did not answer within {limit_s} s: {self.console_end()}") from None
        assert line, f"{self.name} closed its port: {self.console_end()}"
        status, _, output = line.decode().partition(" ")
        output = base64.b64decode(output).decode(errors="replace")
        assert not check or status == "0", f"{self.name}: status {status}: {output.strip()[-600:]}"
        return output.strip()

    def get(self, path, cid=2, port=28282, source_port="", limit_s=10):
        """GET over vsock from within the VM: (status, head, body); (None, "", "") where the connection was refused or closed."""
        request = f"GET {path} HTTP/1.1\\r\\nHost: host\\r\\nConnection: close\\r\\n\\r\\n"
        answer = self.sh(f"printf '{request}' | timeout {limit_s} vsk {cid} {port} {source_port} 2>/dev/null", check=False)
        return parse_http(answer)

    def console_end(self):
        try:
            return " ".join(self.console.read_text(errors="replace").split())[-400:]
        except OSError as error:
            return str(error)

    def scope(self):
        """cgroup of the process that runs it."""
        return Path(f"/proc/{self.pid}/cgroup").read_text().strip().removeprefix("0::")

    def threads(self):
        """Names of the threads of the process that runs it: {thread id: (name, cgroup)}."""
        found = {}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                found[int(task.name)] = (task.joinpath("comm").read_text().strip(), task.joinpath("cgroup").read_text().strip()[3:])
            except OSError:
                pass
        return found

    def cpu_seconds(self):
        """CPU time of the process that runs it, in the kernel's ticks."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def burning(self):
        """Keeps the VM's CPU busy from a cgroup `burn` in it; returns the process id in the VM."""
        self.sh("mkdir -p /sys/fs/cgroup/burn; (echo 0 >/sys/fs/cgroup/burn/cgroup.procs; exec sh -c 'while :; do :; done') >/dev/null 2>&1 &")
        try:
            yield self.sh("until read -r pid </sys/fs/cgroup/burn/cgroup.procs; do sleep 0.1; done; echo $pid")
        finally:
            self.sh("kill -9 $(cat /sys/fs/cgroup/burn/cgroup.procs)", check=False)


def parse_http(answer):
    """(status, head, body) of an answer; (None, "", "") of none."""
    head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
    words = head.split()
    return (int(words[1]), head, body) if words and words[0].startswith("HTTP/") else (None, "", "")


class Qemu(Guest):
    """QEMU alone, as a separate service, during the `with` block."""

    def __init__(self, name, cid=None, uuid=None, vsock=True, extra=(), identity=True):
        super().__init__(name, uuid)
        self.cid = cid or next(_cids)
        self.unit = f"qemu-{self.dir.name}.service"
        self.vsock = vsock
        self.extra = list(extra)
        self.identity = identity

    def command(self):
        vsock = ["-device", f"vhost-vsock-pci,guest-cid={self.cid}"] if self.vsock else []
        identity = ["-name", f"{self.name},debug-threads=on", "-uuid", self.uuid] if self.identity else []
        return ["qemu-system-x86_64", *identity, "-accel", "kvm", "-cpu", "host", "-M", "q35", "-m", str(MEMORY_MB), "-smp", "1",
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{self.console}",
                "-kernel", str(KERNEL), "-initrd", str(INITRAMFS), "-append", APPEND,
                "-device", "virtio-serial-pci", "-chardev", f"socket,id=port,path={self.dir}/port,server=on,wait=off",
                "-device", "virtserialport,chardev=port,name=org.jouled.test",
                "-chardev", f"socket,id=energy,path={self.dir}/vm-org.jouled.0,server=on,wait=off",
                "-device", "virtserialport,chardev=energy,name=org.jouled.0", *vsock, *self.extra]

    def start(self):
        sh("systemd-run", "--quiet", f"--unit={self.unit}", *self.command())
        self.pid = int(sh("systemctl", "show", "--value", "-p", "MainPID", self.unit))
        self.connect()

    def stop(self):
        self.disconnect()
        subprocess.run(["systemctl", "stop", self.unit], capture_output=True)
        subprocess.run(["systemctl", "reset-failed", self.unit], capture_output=True)

    def assert_running(self):
        assert Path(f"/proc/{self.pid}").exists(), \
            f"QEMU ended: {sh('journalctl', '-q', '--no-pager', '-n', '5', '-o', 'cat', '-u', self.unit)}"

    def __enter__(self):
        need_kvm()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.dir)


class Domain(Guest):
    """A transient libvirt domain, during the `with` block."""

    def __init__(self, name, uuid=None, title="", cid=None, extra=""):
        super().__init__(name, uuid)
        self.extra = extra
        self.title = title
        self.wanted_cid = cid

    def xml(self):
        cid = f"<cid auto='no' address='{self.wanted_cid}'/>" if self.wanted_cid else "<cid auto='yes'/>"
        title = f"<title>{self.title}</title>" if self.title else ""
        return f"""<domain type='kvm'>
  <name>{self.name}</name><uuid>{self.uuid}</uuid>{title}
  <memory unit='MiB'>{MEMORY_MB}</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{KERNEL}</kernel><initrd>{INITRAMFS}</initrd><cmdline>{APPEND}</cmdline></os>
  <features><acpi/></features><cpu mode='host-passthrough'/><iothreads>1</iothreads>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'><source path='{self.console}'/><target port='0'/></serial>
    <channel type='unix'><source mode='bind' path='{self.dir}/port'/><target type='virtio' name='org.jouled.test'/></channel>
    <vsock model='virtio'>{cid}</vsock>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
  {self.extra}
</domain>"""

    def start(self):
        (self.dir / "domain.xml").write_text(self.xml())
        virsh("create", str(self.dir / "domain.xml"))
        self.pid = int(Path(f"/run/libvirt/qemu/{self.name}.pid").read_text())
        self.cid = int(virsh("dumpxml", self.name).partition("<cid auto=")[2].partition("address='")[2].partition("'")[0])
        self.connect()

    def stop(self):
        self.disconnect()
        subprocess.run(["virsh", "destroy", self.name], capture_output=True)

    def assert_running(self):
        assert Path(f"/proc/{self.pid}").exists(), f"QEMU of domain {self.name} ended"

    def __enter__(self):
        need_libvirt()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.dir)


def need_libvirt():
    need_kvm()
    sh("systemctl", "start", "libvirtd.service", timeout=60)


def virsh(*arguments):
    return sh("virsh", "-c", "qemu:///system", *arguments, timeout=60)
