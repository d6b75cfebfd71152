"""Sockets, secrets and disks: faults and unusual states around jouled."""

import os
import shutil
import subprocess
from pathlib import Path

from host import sh, wait_for
from install import ensure_running
from runner import Skip, note
from system import BINARY, RUNTIME, STATE, UNIT, DropIn, active, assert_goes_on, journal, journal_end, main_pid, now, reason, scrape, show, try_scrape, wait_running

# Nothing listens there: a failed connection shows that there was a password.
BMC = '[[meter.redfish.bmc]]\nname = "test"\nurl = "https://127.0.0.1:9"\ntls = "insecure"\nusername = "jouled"\n'
SECRET = Path("/etc/jouled/bmc.password")


def bmc_says(what, check, limit_s=20):
    """Waits until the reason of the BMC's state passes the check, and returns it."""
    seen = {}

    def look():
        seen["reason"] = reason("redfish:test")
        return check(seen["reason"])

    try:
        wait_for(what, look, limit_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {seen['reason']!r}") from None
    return seen["reason"]


def case_states_socket_activation():
    before = ensure_running()
    if b"LISTEN_FDS" not in BINARY.read_bytes():
        raise Skip("this jouled takes no sockets")
    sh("systemctl", "stop", UNIT)
    sh("systemctl", "start", "jouled.socket")
    try:
        assert not active()
        # The first scrape starts jouled, and waits for it.
        scrape()
        page = wait_running()
        assert_goes_on(page, before)
        pid = main_pid()
        sh("systemctl", "restart", UNIT, timeout=60)
        assert try_scrape(), "refused right after a restart"
        assert main_pid() != pid
        note(journal(None, "-n", "5"))
    finally:
        sh("systemctl", "stop", "jouled.socket", UNIT)
    sh("systemctl", "start", UNIT)
    wait_running()


def case_states_socket_without_a_network():
    """docs/security.md: systemd owns the port, and jouled has no network at all."""
    before = ensure_running()
    if b"LISTEN_FDS" not in BINARY.read_bytes():
        raise Skip("this jouled takes no sockets")
    no_network = "[Service]\nPrivateNetwork=yes\nIPAddressDeny=any\nRestrictAddressFamilies=~AF_INET AF_INET6\n"
    sh("systemctl", "stop", UNIT)
    sh("systemctl", "start", "jouled.socket")
    try:
        with DropIn(unit=no_network) as jouled:
            assert_goes_on(jouled.page, before)
            assert os.readlink(f"/proc/{main_pid()}/ns/net") != os.readlink("/proc/self/ns/net"), "it has this network"
            assert "bpf" in sh("joulectl", "status")
    finally:
        sh("systemctl", "stop", "jouled.socket", UNIT)
        sh("systemctl", "start", UNIT)
        wait_running()


def case_states_credential():
    ensure_running()
    config = BMC + 'credential = "bmc"\n'
    SECRET.write_text("hunter2\n")
    SECRET.chmod(0o600)
    try:
        with DropIn(config=config):
            bmc_says("no credential", lambda said: "no systemd credential" in said)
        # Only root may read the file; systemd passes its content on.
        with DropIn(unit=f"[Service]\nLoadCredential=bmc:{SECRET}\n", config=config):
            note(bmc_says("a try to connect", lambda said: "127.0.0.1:9" in said and "password" not in said))
            assert "hunter2" not in journal()
    finally:
        SECRET.unlink()


def case_states_password_file():
    ensure_running()
    config = BMC + f'password_file = "{SECRET}"\n'
    SECRET.write_text("hunter2\n")
    SECRET.chmod(0o600)
    try:
        with DropIn(config=config):
            bmc_says("no permission", lambda said: "ermission denied" in said)
            shutil.chown(SECRET, group="jouled")
            SECRET.chmod(0o640)
            bmc_says("a try to connect", lambda said: said and "password" not in said, 50)
    finally:
        SECRET.unlink()


def case_states_full_disk():
    before = ensure_running()
    sh("systemctl", "stop", UNIT)
    sh("mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(STATE))
    try:
        shutil.chown(STATE, "jouled", "jouled")
        subprocess.run(["dd", "if=/dev/zero", f"of={STATE}/full", "bs=4k"], capture_output=True, timeout=30)
        since = now()
        sh("systemctl", "start", UNIT)
        # Data without room on the disk is in the runtime folder.
        page = wait_running()
        assert_goes_on(page, before)
        sh("systemctl", "restart", UNIT, timeout=60)
        page = wait_running()
        assert_goes_on(page, before)
        sh("systemctl", "stop", UNIT)
        said = [line for line in journal(since).splitlines() if "No space left" in line]
        assert said, journal_end(since)
        note(said[0])
    finally:
        sh("systemctl", "stop", UNIT)
        sh("umount", str(STATE))
    sh("systemctl", "start", UNIT)
    assert_goes_on(wait_running(), page)


def case_states_read_only_etc():
    before = ensure_running()
    sh("mount", "--bind", "/etc", "/etc")
    try:
        sh("mount", "-o", "remount,ro,bind", "/etc")
        sh("systemctl", "restart", UNIT, timeout=60)
        assert_goes_on(wait_running(), before)
    finally:
        sh("umount", "/etc")


def case_states_reboot_is_a_checkpoint():
    """A reboot empties /run."""
    before = ensure_running()
    sh("systemctl", "stop", UNIT)
    for path in RUNTIME.iterdir():
        path.unlink()
    sh("systemctl", "start", UNIT)
    assert_goes_on(wait_running(), before)


def case_states_broken_configuration_does_not_start():
    before = ensure_running()
    sh("systemctl", "stop", UNIT)
    since = now()
    with DropIn(config="colour = 1\n", start=False):
        done = subprocess.run(["systemctl", "start", UNIT], capture_output=True, timeout=60)
        assert done.returncode, "it started"
        wait_for("the reason", lambda: "colour" in journal(since))
        # systemd starts it again and again, and it runs once the configuration is valid.
    wait_for("another start", active, 30)
    assert_goes_on(wait_running(), before)
    assert show("Result") == "success"
