"""jouled-kubelet as a service: its credentials, its sandbox, a simulated kubelet with TLS and a token, names on the page, and what the log
says where something is wrong."""

import http.server
import json
import os
import ssl
import subprocess
import threading
from pathlib import Path

from e_containers import install
from host import sh, wait_for
from install import ensure_running
from runner import note
from system import now, scrape, show

LIMIT_S = 120
UNIT = "jouled-kubelet.service"
TOKEN, CA = Path("/etc/jouled/kubelet.token"), Path("/etc/jouled/kubelet-ca.pem")
SECRET = "an.expected.token"
UID = "0b3c9d5e-1f2a-4b6c-8d7e-9fa0b1c2d3e4"
ID = f"{0xc0ffee:064x}"
POD = {
    "metadata": {"name": "web-7d9f4", "namespace": "shop", "uid": UID},
    "status": {"containerStatuses": [{"name": "nginx", "image": "nginx:1", "containerID": f"containerd://{ID}"}]},
}


class Kubelet(http.server.BaseHTTPRequestHandler):
    """As much of the kubelet's API as is asked for."""

    protocol_version = "HTTP/1.1"
    asked = []

    def do_GET(self):
        Kubelet.asked.append(self.path)
        known = self.headers.get("Authorization") == f"Bearer {SECRET}"
        text = json.dumps({"kind": "PodList", "apiVersion": "v1", "items": [POD]}).encode() if known else b"Unauthorized"
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that ends a connection, or does not accept the certificate, is no error of this server."""


class Serving:
    """A kubelet at its port during the `with` block, and the authority that signed its certificate."""

    def __enter__(self):
        folder = Path("/tmp/kubelet")
        folder.mkdir(exist_ok=True)
        name = os.uname().nodename
        self.ca, key, leaf, request = (str(folder / one) for one in ("ca.pem", "key.pem", "leaf.pem", "leaf.csr"))
        (folder / "names").write_text(f"subjectAltName=DNS:{name}\n")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        sh("openssl", "req", "-x509", *curve, "-keyout", f"{key}.ca", "-out", self.ca, "-days", "2", "-subj", "/CN=kubelet-ca")
        sh("openssl", "req", *curve, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signed = ["-CA", self.ca, "-CAkey", f"{key}.ca", "-CAcreateserial", "-days", "2", "-extfile", str(folder / "names")]
        sh("openssl", "x509", "-req", "-in", request, *signed, "-out", leaf)
        self.server = Server(("127.0.0.1", 10250), Kubelet)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        subprocess.run(["systemctl", "stop", UNIT], capture_output=True, timeout=30)
        for path in (TOKEN, CA):
            path.unlink(missing_ok=True)


class Container:
    """A busy process in the cgroup of the pod's container."""

    def __enter__(self):
        where = f"--slice=kubepods-burstable-pod{UID.replace('-', '_')}.slice", f"--unit=cri-containerd-{ID}.scope"
        self.burner = subprocess.Popen(["systemd-run", "--quiet", "--scope", *where, "sh", "-c", "while :; do :; done"])

    def __exit__(self, *_):
        self.burner.kill()
        self.burner.wait()


def credentials(token, ca):
    TOKEN.write_text(token)
    TOKEN.chmod(0o600)
    CA.write_text(Path(ca).read_text())


def said(since):
    return sh("journalctl", "--no-pager", "-o", "cat", "-u", UNIT, "--since", since)


def case_kubelet_names_reach_the_page_from_a_sandbox():
    ensure_running()
    install()
    with Serving() as kubelet, Container():
        credentials(f"{SECRET}\n", kubelet.ca)
        sh("systemctl", "start", UNIT, timeout=30)
        named = lambda: "nginx" in scrape().values("kepler_container_cpu_joules_total", "container_name")
        wait_for("the container's name", named, 60)
        pods = [(pod["pod_name"], pod["pod_namespace"]) for pod in scrape().labels("kepler_pod_cpu_joules_total", zone="package")]
        assert ("web-7d9f4", "shop") in pods, pods
        assert set(Kubelet.asked) == {"/pods"}, set(Kubelet.asked)
        wait_for("its status", lambda: "https://127.0.0.1:10250: 1 containers" in show("StatusText", unit=UNIT), 20)

        pid = show("MainPID", unit=UNIT)
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 4, status
        assert sh("ps", "-o", "user:32=", "-p", pid).strip() == "jouled-containers"
        for file in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{pid}/{file}").read_bytes(), file
        # A credential is of the service alone; with the sockets of runtimes it has nothing to do.
        token = Path(f"/run/credentials/{UNIT}/token")
        others = ["systemd-run", "--quiet", "--wait", "--pipe", "--uid=nobody", "cat", str(token)]
        assert subprocess.run(others, capture_output=True, timeout=30).returncode, "another user can read the token"
        inside = ["nsenter", f"--target={pid}", "--mount", "--", "ls"]
        for hidden in ("/run/containerd", "/root", "/var/lib"):
            there = subprocess.run([*inside, "-A", hidden], capture_output=True, text=True)
            assert not there.stdout, (hidden, there.stdout)


def case_kubelet_log_says_what_is_wrong():
    ensure_running()
    install()
    # Without a token it is not for this machine, and does not start.
    sh("systemctl", "start", UNIT, timeout=30)
    assert show("ActiveState", "ConditionResult", unit=UNIT) == ["inactive", "no"]
    with Serving() as kubelet:
        credentials("a.wrong.token\n", kubelet.ca)
        for what, change in {
            "it does not know the token in": lambda: None,
            "there is no token in it": lambda: TOKEN.write_text("\n"),
            "no TLS with it": lambda: credentials(SECRET, foreign_ca()),
            "there is no certificate in it": lambda: CA.write_text("nothing\n"),
        }.items():
            change()
            sh("systemctl", "stop", UNIT, timeout=30)
            sh("systemctl", "reset-failed", UNIT)
            began, asked = now(), len(Kubelet.asked)
            sh("systemctl", "start", UNIT, timeout=30)
            log = wait_for(f"{what!r} in its log", lambda: (text := said(began)) and what in text and text, 60)
            note(next(line for line in log.splitlines() if what in line))
            shown = wait_for(f"{what!r} at the source", lambda: what in sh("joulectl", "status"), 60)
            assert shown and SECRET not in log and "a.wrong.token" not in log, log
            # Nothing is sent before the certificate is checked.
            assert (len(Kubelet.asked) > asked) == ("know the token" in what), (what, Kubelet.asked)
            assert show("ActiveState", unit=UNIT) == "active"
        CA.unlink()
        sh("systemctl", "stop", UNIT, timeout=30)
        sh("systemctl", "reset-failed", UNIT)
        began = now()
        failed = subprocess.run(["systemctl", "restart", UNIT], capture_output=True, text=True, timeout=30)
        assert failed.returncode, "started without a CA"
        assert "credential" in said(began).lower() or "kubelet-ca.pem" in said(began), said(began)
        note(said(began).splitlines()[1])
        # And everything is right again.
        credentials(SECRET, kubelet.ca)
        subprocess.run(["systemctl", "reset-failed", UNIT], capture_output=True)
        sh("systemctl", "restart", UNIT, timeout=30)
        asked = len(Kubelet.asked)
        wait_for("it to be asked", lambda: len(Kubelet.asked) > asked, 60)
        wait_for("a healthy source", lambda: scrape().state("containers") == "healthy", 60)


def foreign_ca():
    path = "/tmp/kubelet/other.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    sh("openssl", "req", "-x509", *curve, "-keyout", "/tmp/kubelet/other.key", "-out", path, "-days", "2", "-subj", "/CN=another")
    return path
