"""Installs jouled on this system: a package with apt, or the files of `make install`."""

import shutil
import subprocess
from pathlib import Path

from host import sh
from runner import PAYLOAD, Skip
from system import CONFIG_DROP_INS, UNIT_DROP_INS, wait_running

TREE = PAYLOAD / "tree"
# The outer machine uses the same kernel, so vsock is switched off twice before jouled is installed.
NO_VSOCK = '[meter.vsock]\nconnect = "off"\n[export.guest]\nvsock = "off"\n'
QUICKER = "[Service]\nRestrictAddressFamilies=~AF_VSOCK\nRestartSec=200ms\nTimeoutAbortSec=1s\n"
BEFORE = Path("/root/files-before")


def package():
    """The package of jouled; None where run.sh was given no packages."""
    found = [path for path in sorted((PAYLOAD / "deb").glob("jouled_*.deb")) if arch(path) in (sh("dpkg", "--print-architecture"), "all")]
    return found[-1] if found else None


def arch(path):
    return sh("dpkg-deb", "--field", str(path), "Architecture")


def need_package():
    if not package():
        raise Skip("no package was given")
    return package()


def guard():
    """Configuration that exists before jouled is installed."""
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
    # A container has no files of /sys to open: z lines without a match do nothing.
    sh("systemd-tmpfiles", "--create", "jouled.conf")
    sh("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig")
    return "make install"


def ensure_running():
    """For a case that is run alone."""
    if not shutil.which("jouled"):
        install()
    sh("systemctl", "enable", "--now", "jouled.service", timeout=60)
    return wait_running()
