"""How jouled comes onto this system: a package by apt, or what `make install` installs. Knows nothing of what it does there."""

import shutil
import subprocess
from pathlib import Path

from host import sh
from runner import PAYLOAD, Skip
from system import CONFIG_DROP_INS, UNIT_DROP_INS, wait_running

TREE = PAYLOAD / "tree"
# This kernel is another machine's, too, so jouled is kept away from vsock before it is there, twice.
NO_VSOCK = '[meter.vsock]\nconnect = "off"\n[export.guest]\nvsock = "off"\n'
QUICKER = "[Service]\nRestrictAddressFamilies=~AF_VSOCK\nRestartSec=200ms\nTimeoutAbortSec=1s\n"
BEFORE = Path("/root/files-before")


def package():
    """jouled's own package, where packages were given."""
    found = [path for path in sorted((PAYLOAD / "deb").glob("jouled_*.deb")) if arch(path) in (sh("dpkg", "--print-architecture"), "all")]
    return found[-1] if found else None


def arch(path):
    return sh("dpkg-deb", "--field", str(path), "Architecture")


def need_package():
    if not package():
        raise Skip("no package was given")
    return package()


def guard():
    """The configuration that a test machine has before jouled."""
    for folder, name, text in ((CONFIG_DROP_INS, "00-test.toml", NO_VSOCK), (UNIT_DROP_INS, "00-test.conf", QUICKER)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def apt(*arguments):
    return sh("apt-get", "-qy", "-o", "Dpkg::Use-Pty=0", *arguments, timeout=120)


def install():
    guard()
    if found := package():
        apt("install", "--no-install-recommends", str(found))
        return f"apt install {found.name}"
    subprocess.run(["cp", "-a", "--no-preserve=ownership", f"{TREE}/.", "/"], check=True)
    sh("systemd-sysusers")
    sh("systemctl", "daemon-reload")
    # Nothing of /sys is there to be opened in a container: z lines without a match do nothing.
    sh("systemd-tmpfiles", "--create", "jouled.conf")
    sh("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig")
    return "make install"


def ensure_running():
    """For cases that are run by themselves."""
    if not shutil.which("jouled"):
        install()
    sh("systemctl", "enable", "--now", "jouled.service", timeout=60)
    return wait_running()
