"""The unit of jouled-containers in its sandbox: names of a runtime's containers reach the metrics page."""

import hashlib
import http.server
import io
import json
import os
import socketserver
import subprocess
import tarfile
import threading
import time
from pathlib import Path

from host import sh, wait_for
from install import PAYLOAD, apt, ensure_running
from runner import Skip, note
from system import scrape, show

UNIT = "jouled-containers.service"
SOCKET = Path("/run/docker.sock")
LIMIT_S = 90
ID = f"{0x5eed:064x}"
# No two runtimes give one id.
OF_CONTAINERD = f"{0xc0de:064x}"
IMAGE = "local/busybox:1"


class Docker(http.server.BaseHTTPRequestHandler):
    """As much of Docker's API as a helper asks for: one container, and no events."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/events"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            threading.Event().wait()
        container = {"Id": ID, "Names": ["/shop-web"], "Image": "nginx:1", "State": "running", "Labels": {"com.docker.compose.project": "shop"}}
        text = json.dumps([container] if self.path.startswith("/containers/json") else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def address_string(self):
        return "a helper"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def install():
    found = sorted((PAYLOAD / "deb").glob("jouled-containers_*.deb"))
    if not found:
        raise Skip("no package of jouled-containers was given")
    if not Path("/usr/bin/jouled-containers").exists():
        apt("install", "--no-install-recommends", str(found[-1]))


def case_containers_are_named_under_the_packages_unit():
    ensure_running()
    install()
    SOCKET.unlink(missing_ok=True)
    server = Server(str(SOCKET), Docker)
    # As Docker makes it: only root and the group docker.
    os.chmod(SOCKET, 0o660)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    burner = subprocess.Popen(["systemd-run", "--quiet", "--scope", f"--unit=docker-{ID}.scope", "sh", "-c", "while :; do :; done"])
    try:
        sh("systemctl", "restart", UNIT, timeout=30)
        assert show("ActiveState", unit=UNIT) == "active", show("ActiveState", unit=UNIT)
        names = wait_for("the name", lambda: "shop-web" in scrape().values("kepler_container_cpu_joules_total", "container_name"), 60)
        assert names
        assert "nginx:1" in scrape().values("jouled_container_info", "image")
        user = sh("ps", "-o", "user:32=", "-p", show("MainPID", unit=UNIT)).strip()
        assert user == "jouled-containers", user
        note(f"restarts: {show('NRestarts', unit=UNIT)}")
    finally:
        burner.kill()
        server.shutdown()
        SOCKET.unlink(missing_ok=True)
        sh("systemctl", "stop", UNIT)


def image(path):
    """An image with the system's busybox, as `ctr image import` takes it."""
    files = {}

    def blob(content, kind):
        name = hashlib.sha256(content).hexdigest()
        files[f"blobs/sha256/{name}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{name}", "size": len(content)}

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add("/bin/busybox", "bin/sh")
    layer = layer.getvalue()
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = blob(json.dumps({"architecture": arch, "os": "linux", "config": {}, "rootfs": rootfs}).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": config, "layers": [blob(layer, "layer.v1.tar")]}
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json") | {"annotations": {"io.containerd.image.name": IMAGE}}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def case_containers_of_a_real_containerd_are_named():
    ensure_running()
    install()
    if not Path("/usr/bin/containerd").exists():
        raise Skip("this system has no containerd")
    sh("systemctl", "start", "containerd", timeout=60)
    try:
        image("/tmp/image.tar")
        sh("ctr", "image", "import", "--snapshotter", "native", "/tmp/image.tar", timeout=60)
        sh("systemctl", "restart", UNIT, timeout=30)
        wait_for("containerd to be followed", lambda: "containerd.sock: 0" in show("StatusText", unit=UNIT), 60)
        labels = ["--label", "nerdctl/name=shop-db", "--label", "com.docker.compose.project=shop"]
        began = time.monotonic()
        # Without a weight: the booted system has no controllers of cgroups.
        sh("ctr", "run", "--detach", "--cpu-shares", "0", "--snapshotter", "native", *labels, IMAGE, OF_CONTAINERD, "/bin/sh", "-c", "while :; do :; done", timeout=60)
        started = time.monotonic()
        named = lambda: any(row["name"] == "shop-db" for row in json.loads(sh("joulectl", "list", "container", "--json")))
        wait_for("the name", named, 60, 0.05)
        note(f"ctr run {started - began:.2f} s, the name in joulectl {time.monotonic() - started:.2f} s later")
        wait_for("the page", lambda: "shop-db" in scrape().values("jouled_container_info", "container_name"), 60)
        assert "shop" in scrape().values("jouled_container_info", "compose_project")
    finally:
        subprocess.run(["ctr", "task", "kill", "-s", "KILL", OF_CONTAINERD], capture_output=True, timeout=30)
        time.sleep(0.5)
        subprocess.run(["ctr", "container", "rm", OF_CONTAINERD], capture_output=True, timeout=30)
        sh("systemctl", "stop", UNIT, "containerd", timeout=60)


def case_containers_sandbox_has_a_good_score():
    ensure_running()
    install()
    for unit in (UNIT, "jouled-kubelet.service"):
        said = sh("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
        score = float(said.split(":")[1].split()[0])
        note(said.strip("→ "))
        assert score <= 3.0, said


def case_containers_purge_leaves_nothing():
    ensure_running()
    install()
    apt("purge", "jouled-containers")
    left = [path for top in ("/etc", "/usr/bin", "/usr/lib/systemd") for path in Path(top).rglob("*jouled-containers*")]
    assert not left, left
    ensure_running()
