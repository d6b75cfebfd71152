"""The unit of jouled-containers in its sandbox: names of a runtime's containers reach the metrics page."""

import http.server
import json
import os
import socketserver
import subprocess
import threading
from pathlib import Path

from host import sh, wait_for
from install import PAYLOAD, apt, ensure_running
from runner import Skip, note
from system import scrape, show

UNIT = "jouled-containers.service"
SOCKET = Path("/run/docker.sock")
LIMIT_S = 90
ID = f"{0x5eed:064x}"


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
