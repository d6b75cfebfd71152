"""Made-up machines: one with known names, one whose names are an attacker's, one that looks like a server at work."""

import math
import subprocess

from host import Host, Load

CONTAINER = "0123456789abcdef" * 4
VM = "5b0c2d4e-6f70-4182-93a4-b5c6d7e8f901"
POD = "8a5f4b3c-0d1e-4f5a-9b8c-7d6e5f4a3b2c"
# Nothing is drawn at rest, so that what is drawn is somebody's.
NO_FLOOR = '[attribution.idle_watts]\n"rapl/package-0" = 0\n"rapl/package-0/dram" = 0\n"rapl/package-1" = 0\n"rapl/package-1/dram" = 0\n'


def qemu(host, pid, name, uuid, cpu, scope=None):
    """A virtual machine of QEMU in a scope of machined."""
    cmdline = f"qemu\0-name\0guest={name},debug-threads=on\0-accel\0kvm\0-smp\x002\0-uuid\0{uuid}\0"
    host.spawn(pid, "qemu-system-x86", f"/machine.slice/{scope or f'machine-qemu-{pid}.scope'}", cpu, cmdline=cmdline)


def known(folder, cpus=4):
    """A process of each kind of entity."""
    host = Host(folder, cpus)
    host.spawn(101, "nginx", "/system.slice/nginx.service", 0)
    host.spawn(102, "postgres", "/system.slice/system-postgresql.slice/postgresql@16-main.service", 2)
    host.spawn(103, "java", f"/system.slice/docker-{CONTAINER}.scope", 1)
    qemu(host, 104, "web", VM, 3, "machine-qemu\\x2d1\\x2dweb.scope")
    host.spawn(105, "bash", "/user.slice/user-1000.slice/session-2.scope", 0)
    host.spawn(106, "editor", "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service", 1)
    pod = CONTAINER.replace("0", "f")
    host.spawn(107, "pause", f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{pod}.scope", 2)
    host.pod("shop", "web-7d9f4", POD, "nginx", pod)
    host.spawn(108, "kworker/0:1", "/", 0)
    host.spawn(109, "sleeper", "/system.slice/sleeper.service", 0)
    return host


def steady(host, shares):
    """Lets it work at constant shares of a CPU by process."""
    load = Load(host, lambda _: shares)
    load.start()
    return load


KNOWN_SHARES = {101: 0.4, 102: 0.8, 103: 0.3, 104: 0.5, 105: 0.1, 106: 0.2, 107: 0.15, 108: 0.05}

# What somebody may call a process, a unit, a pod or a machine.
HOSTILE = [
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "\"><svg onload=window.pwned=1>",
    "javascript:window.pwned=1",
    "</script><script>window.pwned=1</script>",
    "{{window.pwned=1}}${window.pwned=1}",
    "&lt;b&gt;&amp;quot;",
    "\u202etxt.exe\u202c\u2066\u200f",
    "__proto__",
    "constructor",
    "%3Cscript%3E%00../../metrics",
    "a\u0301" * 60,
    "\u00adsoft\u200bzero\ufeff",
    "\x1b[31mred\x07\ttab",
]


def hostile(folder):
    """Names of processes, units, machines and pods that are an attacker's."""
    host = Host(folder)
    shares = {}
    for index, name in enumerate(HOSTILE):
        pid = 1000 + 10 * index
        unit = name.replace("/", "\\x2f")[:200]
        host.spawn(pid, name, f"/system.slice/{unit}.service", index % 4)
        qemu(host, pid + 1, name.replace(",", ",,"), f"5b0c2d4e-6f70-4182-93a4-{index:012x}", (index + 1) % 4)
        container = f"{index:02x}" * 32
        uid = f"8a5f4b3c-0d1e-4f5a-9b8c-{index:012x}"
        host.spawn(pid + 2, f"pause{index}", f"/kubepods.slice/kubepods-pod{uid.replace('-', '_')}.slice/cri-containerd-{container}.scope", (index + 2) % 4)
        host.pod("shop", unit.replace("_", "-")[:100], uid, "c", container)
        shares |= {pid: 0.05, pid + 1: 0.04, pid + 2: 0.03}
    # 10 KB in each place that can hold it.
    long = "L<b>ong " * 1280
    qemu(host, 5000, long, "5b0c2d4e-6f70-4182-93a4-ffffffffffff", 0)
    host.spawn(5001, long, "/system.slice/" + "long" * 60 + ".service", 1, exe="/usr/bin/x")
    return host, shares | {5000: 0.2, 5001: 0.2}


def certificate(folder):
    """A key and a certificate of this machine; returns the SHA-256 of its public key, as Chromium compares it."""
    run = lambda *words, **more: subprocess.run(words, check=True, capture_output=True, **more).stdout
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "node.key", "-out", folder / "node.crt")
    public = run("openssl", "x509", "-in", folder / "node.crt", "-pubkey", "-noout")
    der = run("openssl", "pkey", "-pubin", "-outform", "der", input=public)
    digest = run("openssl", "dgst", "-sha256", "-binary", input=der)
    return run("openssl", "base64", input=digest).decode().strip()


# The password `secret`, with the least cost that jouled takes.
WEB_CONFIG = 'tls_server_config:\n  cert_file: node.crt\n  key_file: node.key\nbasic_auth_users:\n  operator: "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"\n'


# Names of a server at work, and the shares of a CPU that they use: base, swing, period in seconds.
SERVICES = [
    ("nginx", "/system.slice/nginx.service", 1.1, 0.5, 41), ("postgres", "/system.slice/system-postgresql.slice/postgresql@16-main.service", 1.9, 0.9, 63),
    ("redis-server", "/system.slice/redis-server.service", 0.35, 0.1, 23), ("prometheus", "/system.slice/prometheus.service", 0.4, 0.25, 15),
    ("grafana", "/system.slice/grafana-server.service", 0.08, 0.05, 31), ("php-fpm8.2", "/system.slice/php8.2-fpm.service", 0.7, 0.4, 37),
    ("sshd", "/system.slice/ssh.service", 0.01, 0.01, 70), ("systemd-journal", "/system.slice/systemd-journald.service", 0.03, 0.02, 19),
    ("dockerd", "/system.slice/docker.service", 0.05, 0.03, 29), ("containerd", "/system.slice/containerd.service", 0.07, 0.02, 17),
    ("kubelet", "/system.slice/kubelet.service", 0.16, 0.05, 21), ("cron", "/system.slice/cron.service", 0.004, 0.004, 60),
    ("chronyd", "/system.slice/chrony.service", 0.002, 0.0, 60), ("node_exporter", "/system.slice/prometheus-node-exporter.service", 0.02, 0.02, 15),
    ("bash", "/user.slice/user-1000.slice/session-4.scope", 0.02, 0.02, 33), ("cargo", "/user.slice/user-1000.slice/session-4.scope", 0.9, 0.8, 90),
    ("python3", "/user.slice/user-1001.slice/user@1001.service/app.slice/jupyter.service", 0.5, 0.45, 77),
]
PODS = [
    ("shop", "checkout-6d8f7c9b4-x2lqp", "checkout", "node", 0.55, 0.3, 35), ("shop", "catalog-7b5d9f6c8-9mzkt", "catalog", "java", 0.8, 0.3, 51),
    ("shop", "search-0", "elasticsearch", "java", 1.2, 0.5, 83), ("monitoring", "loki-0", "loki", "loki", 0.25, 0.1, 27),
    ("kube-system", "coredns-5d78c9869d-4vb7w", "coredns", "coredns", 0.06, 0.02, 13), ("batch", "train-resnet-28841-7kq2d", "trainer", "python3", 1.6, 1.4, 120),
]
VMS = [("build-runner-1", 1.3, 1.0, 71), ("windows-legacy", 0.6, 0.2, 45), ("staging-db", 0.4, 0.15, 39)]


def server(folder):
    """A machine of two sockets that looks like a real one, and its work over time."""
    host = Host(folder, cpus=32)
    host.platform(160)
    work, pid = {}, 700
    for comm, cgroup, *shape in SERVICES:
        pid += 37
        host.spawn(pid, comm, cgroup, pid % 32)
        work[pid] = shape
    for index, (namespace, pod, container, comm, *shape) in enumerate(PODS):
        pid += 211
        uid, own = f"3f1c9a{index:02x}-7d2e-4b6a-9c1d-5e8f0a2b4c6d", f"{index + 10:02x}c4e7a91b" * 6 + "d2f4"
        host.spawn(pid, comm, f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid.replace('-', '_')}.slice/cri-containerd-{own}.scope", pid % 32)
        host.pod(namespace, pod, uid, container, own)
        work[pid] = shape
    for index, (name, *shape) in enumerate(VMS):
        pid += 503
        qemu(host, pid, name, f"9e107d9d-372b-4f81-8b5c-{index:012x}", pid % 32, f"machine-qemu\\x2d{index + 1}\\x2d{name}.scope")
        work[pid] = shape

    def shares(at):
        wave = lambda base, swing, period, shift: max(0.0, base + swing * math.sin(6.283 * (at / period + shift)) + 0.15 * base * math.sin(at * 2.9 + 40 * shift))
        return {pid: wave(*shape, pid % 17 / 17) for pid, shape in work.items()}

    return host, shares


SERVER_CONFIG = """
node_name = "rack3-node7"
[attribution.idle_watts]
"rapl/package-0" = 21
"rapl/package-0/dram" = 2.2
"rapl/package-1" = 21
"rapl/package-1/dram" = 2.2
[carbon]
country = "DE"
[price]
currency = "EUR"
per_kwh = 0.28
[history]
use = "auto"
[[tenant]]
name = "web shop"
namespace = "shop"
[[tenant]]
name = "research"
namespace = "batch"
"""
