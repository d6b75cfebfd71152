"""jouled as the installed service, in its sandbox and as its user."""

import subprocess
from pathlib import Path

from daemon import START_S, Jouled
from host import sh, wait_for
from runner import PAYLOAD, Skip, note

TREE = PAYLOAD / "tree"
UNIT = "jouled.service"
DROP_IN = Path("/etc/jouled/jouled.toml.d/50-case.toml")


def install():
    """Installs the files of `make install` once, and does what the scripts of a package do."""
    if not (TREE / "usr/bin/jouled").exists():
        raise Skip("no jouled binary was given")
    if Path("/usr/bin/jouled").exists():
        return
    sh("cp", "-a", "--no-preserve=ownership", f"{TREE}/.", "/")
    sh("systemd-sysusers")
    sh("systemctl", "daemon-reload", timeout=60)
    sh("systemd-tmpfiles", "--create", "jouled.conf")
    sh("udevadm", "control", "--reload")
    sh("udevadm", "trigger", "--action=change", "--subsystem-match=powercap", "--subsystem-match=ipmi", "--settle")
    sh("systemctl", "start", "dbus.service")
    sh("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig")


def show(name, unit=UNIT):
    return sh("systemctl", "show", "--value", f"--property={name}", unit)


class Service(Jouled):
    """The service during the `with` block, with its totals from the last case. Its page is read like that of any jouled."""

    def __init__(self, config=""):
        install()
        self.url = "http://127.0.0.1:28282/metrics"
        self.config = config

    def __enter__(self):
        DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        DROP_IN.write_text(self.config)
        try:
            self.start()
        except BaseException:
            self.end(failed=True)
            raise
        return self

    def start(self):
        sh("systemctl", "start", UNIT, timeout=START_S + 45)
        wait_for("/metrics", self.answers, START_S)

    def stop(self):
        sh("systemctl", "stop", UNIT, timeout=60)
        return 0 if show("Result") == "success" else show("Result")

    def end(self, failed):
        status = self.stop()
        if failed:
            note(self.log())
        DROP_IN.unlink(missing_ok=True)
        return status

    def log(self):
        return subprocess.run(["journalctl", "--no-pager", "-o", "cat", "-n", "40", "-u", UNIT], capture_output=True, text=True).stdout

    def answers(self):
        try:
            return self.metrics()
        except OSError:
            return None

    def ctl(self, *arguments):
        return sh("/usr/bin/joulectl", *arguments)

    def pid(self):
        return int(show("MainPID"))

    def status(self):
        """/proc/PID/status of its process."""
        return dict(line.split(":\t", 1) for line in Path(f"/proc/{self.pid()}/status").read_text().splitlines())
