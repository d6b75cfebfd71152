"""jouled-fetch@.timer and its unit in their sandbox: a simulated service over TLS, the file, and what jouled makes of it. No real service is asked."""

import http.server
import json
import ssl
import subprocess
import threading
import time
from pathlib import Path

from host import sh, wait_for
from install import PAYLOAD, ensure_running
from runner import Skip, note
from system import DropIn, mode, scrape, show

NAME = "carbon"
UNIT, TIMER = f"jouled-fetch@{NAME}.service", f"jouled-fetch@{NAME}.timer"
CONF, KEY, CA = (Path(f"/etc/jouled/fetch/{NAME}.{end}") for end in ("conf", "key", "pem"))
FILE = Path(f"/var/lib/jouled-fetch/{NAME}.json")
DROP_INS = [Path(f"/etc/systemd/system/{unit}.d") for unit in (UNIT, TIMER)]
INTENSITY = "jouled_carbon_intensity_grams_per_kwh"
SECRET = "a-key-that-no-log-has"
# Factors change at whole minutes, and jouled looks at files every few seconds.
LIMIT_S = 150
# What the sandbox has to refuse, by the same unit with another program: each line is a command that must fail.
FORBIDDEN = f"""
echo x > /etc/jouled/fetch/x
echo x > /var/lib/jouled/x
cat {KEY}
ls /root/
ls /var/lib/jouled/
ls /proc/1/
cat /dev/mem
unshare -n true
mount -t tmpfs none /mnt
"""


class Service(http.server.BaseHTTPRequestHandler):
    """Electricity Maps, as it documents its answer."""

    status, intensity, asked = 200, 212, []

    def do_GET(self):
        Service.asked.append((self.path, self.headers.get("auth-token")))
        at = time.strftime("%Y-%m-%dT%H:00:00.000Z", time.gmtime())
        text = json.dumps({"zone": "DE", "carbonIntensity": Service.intensity, "datetime": at, "updatedAt": at, "isEstimated": False}).encode()
        self.send_response(Service.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def serve():
    """A server at a free port of the loopback device, with the certificate that run.sh made."""
    folder = PAYLOAD / "tls"
    if not (folder / "cert.pem").exists():
        raise Skip("no openssl on the outer machine, so there is no certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def journal(since):
    return sh("journalctl", "--no-pager", "-o", "cat", "-u", UNIT, "--since", f"@{since}")


def fails():
    """Starts the unit, which has to fail, and returns what its journal says."""
    since = int(time.time())
    started = subprocess.run(["systemctl", "start", UNIT], capture_output=True, text=True, timeout=200)
    assert started.returncode != 0 and show("Result", unit=UNIT) == "exit-code", (started, show("Result", unit=UNIT))
    said = wait_for("the journal", lambda: (text := journal(since)) and ("joulectl: " in text or "error: " in text) and text, 20)
    assert SECRET not in said, said
    return said


def intensity(value):
    """Whether the page shows this intensity."""
    return value in [number for (name, _), number in scrape().series.items() if name == INTENSITY]


def write(conf):
    CONF.parent.mkdir(parents=True, exist_ok=True)
    CONF.write_text(conf)


def clean():
    subprocess.run(["systemctl", "disable", "--now", TIMER], capture_output=True)
    subprocess.run(["systemctl", "reset-failed", UNIT], capture_output=True)
    for path in (CONF, KEY, CA, FILE, *(folder / "50-case.conf" for folder in DROP_INS)):
        path.unlink(missing_ok=True)
    sh("systemctl", "daemon-reload")


def case_fetch_by_its_timer_over_tls_reaches_the_metrics_page():
    ensure_running()
    server = serve()
    try:
        with DropIn(config=f'[carbon]\nfile = "{FILE}"\ncountry = "DE"\n'):
            CONF.parent.mkdir(parents=True, exist_ok=True)
            CA.write_text((PAYLOAD / "tls" / "cert.pem").read_text())
            KEY.write_text(SECRET + "\n")
            KEY.chmod(0o600)
            write(f"ARGS=electricity-maps --zone DE --url https://localhost:{server.server_port} --ca-file {CA}\n")
            before = scrape()
            assert not FILE.exists() and any(name == INTENSITY for name, _ in before.series), "the country's value stands in"
            # Without the delay that spreads machines over five minutes.
            DROP_INS[1].mkdir(parents=True, exist_ok=True)
            (DROP_INS[1] / "50-case.conf").write_text("[Timer]\nRandomizedDelaySec=0\n")
            sh("systemctl", "daemon-reload")
            begun = time.time()
            sh("systemctl", "enable", "--now", TIMER, timeout=60)
            wait_for("the file", FILE.exists, 120)
            note(f"file {time.time() - begun:.1f} s after the timer began")
            wait_for("the unit to end", lambda: show("ActiveState", unit=UNIT) == "inactive", 60)
            assert show("Result", "ExecMainStatus", unit=UNIT) == ["success", "0"]
            assert mode(FILE) == "0644 jouled-models jouled-models", mode(FILE)
            assert Service.asked[-1] == ("/v3/carbon-intensity/latest?zone=DE", SECRET), Service.asked
            wait_for("the intensity of the file", lambda: intensity(212.0), LIMIT_S)
            note(f"intensity on the page after {time.time() - begun:.0f} s")
            # The next value takes the place of this one.
            Service.intensity = 99
            sh("systemctl", "start", UNIT, timeout=60)
            wait_for("the next intensity", lambda: intensity(99.0), LIMIT_S)
    finally:
        Service.intensity = 212
        server.shutdown()
        clean()


def case_fetch_that_fails_says_why_and_keeps_the_file():
    ensure_running()
    server = serve()
    url = f"https://localhost:{server.server_port}"
    good = f"ARGS=electricity-maps --zone DE --url {url} --ca-file {CA}\n"
    try:
        CA.parent.mkdir(parents=True, exist_ok=True)
        CA.write_text((PAYLOAD / "tls" / "cert.pem").read_text())
        write(good)
        assert "key" in fails(), "no key"
        KEY.write_text(SECRET + "\n")
        KEY.chmod(0o600)
        sh("systemctl", "start", UNIT, timeout=60)
        content = FILE.read_text()
        Service.status = 503
        said = fails()
        assert "Electricity Maps: " in said and "503" in said, said
        Service.status = 401
        said = fails()
        assert "is the key right?" in said, said
        Service.status = 200
        write(f"ARGS=electricity-maps --zone DE --url {url}\n")
        said = fails()
        assert "certificate" in said.lower(), said
        note(next(line for line in said.splitlines() if "ertificate" in line)[:160])
        write(f"ARGS=electricity-maps --zone DE --url https://localhost:9 --ca-file {CA}\n")
        said = fails()
        assert "refused" in said, said
        write("ARGS=electricity-map\n")
        said = fails()
        assert "electricity-maps" in said, f"a wrong word names the right ones: {said}"
        assert FILE.read_text() == content, "the file of before stays"
        CONF.unlink()
        sh("systemctl", "start", UNIT, timeout=60)
        assert show("ConditionResult", unit=UNIT) == "no", "nothing is fetched without a configuration"
    finally:
        Service.status = 200
        server.shutdown()
        clean()


def case_fetch_has_a_sandbox_that_holds():
    ensure_running()
    try:
        write("ARGS=uk\n")
        KEY.write_text(SECRET + "\n")
        KEY.chmod(0o600)
        script = Path("/usr/local/bin/fetch-case")
        tried = [line for line in FORBIDDEN.strip().splitlines()]
        lines = [f'if ({line}) >/dev/null 2>&1; then echo "could: {line}" | tr ">" "]"; fi' for line in tried]
        script.write_text("#!/bin/sh\n" + "\n".join(lines) + '\necho "user $(id -un)"\necho "key $(wc -c <"$CREDENTIALS_DIRECTORY/key")"\n'
                          "echo x > /var/lib/jouled-fetch/probe && echo writes\nrm -f /var/lib/jouled-fetch/probe\n")
        script.chmod(0o755)
        DROP_INS[0].mkdir(parents=True, exist_ok=True)
        (DROP_INS[0] / "50-case.conf").write_text(f"[Service]\nExecStart=\nExecStart={script}\n")
        sh("systemctl", "daemon-reload")
        since = int(time.time())
        sh("systemctl", "start", UNIT, timeout=60)
        said = wait_for("the journal", lambda: (text := journal(since)) and "key " in text and text, 20)
        assert "could: " not in said, said
        assert "user jouled-models" in said and f"key {len(SECRET) + 1}" in said and "writes" in said, said
        (DROP_INS[0] / "50-case.conf").unlink()
        sh("systemctl", "daemon-reload")
        score = sh("systemd-analyze", "security", "--no-pager", UNIT).splitlines()[-1]
        number = float(score.split(":")[1].split()[0])
        note(score.strip("→ "))
        assert number < 2.0, score
        script.unlink()
    finally:
        clean()
