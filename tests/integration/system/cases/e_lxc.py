"""A real LXC: its container has its name, and what its monitor does is charged to it, too."""

import shutil
import subprocess
import time
from pathlib import Path

from e_container_runtimes import assert_charged, need, wait_named
from host import sh, wait_for
from install import ensure_running
from runner import note
from system import scrape

LIMIT_S = 90
NAME = "market-lxc"
FOLDER = Path("/var/lib/lxc") / NAME
CONFIG = f"""lxc.rootfs.path = dir:{FOLDER}/rootfs
lxc.uts.name = {NAME}
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
lxc.init.cmd = /bin/sh /burn
"""
BURN = "while :; do :; done\n"


def seconds():
    """CPU time of the container."""
    return scrape().sum("kepler_container_cpu_seconds_total", container_id=NAME)


def case_lxc_containers_are_named_and_charged_for_their_monitor():
    ensure_running()
    need("lxc-start")
    for folder in ("bin", "proc", "sys", "dev"):
        (FOLDER / "rootfs" / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", FOLDER / "rootfs/bin/sh")
    (FOLDER / "rootfs/burn").write_text(BURN)
    (FOLDER / "config").write_text(CONFIG)
    burner = None
    try:
        sh("lxc-start", "--name", NAME, "--daemon", "--logfile", "/tmp/lxc.log", timeout=30)
        labels = wait_named(NAME, time.monotonic(), by_helper=False)
        assert (labels["container_id"], labels["runtime"]) == (NAME, "lxc"), labels
        assert_charged(NAME)
        # The container itself stands still, so that all of the use is that of its monitor's cgroup.
        sh("lxc-freeze", "--name", NAME, timeout=30)
        [monitor] = Path("/sys/fs/cgroup").rglob(f"lxc.monitor.{NAME}")
        burner = subprocess.Popen(["sh", "-c", f"echo $$ >{monitor}/cgroup.procs && {BURN}"])
        before = seconds()
        wait_for("use of the monitor", lambda: seconds() > before + 2, 60)
        note(f"{monitor}: charged to {NAME}")
    finally:
        if burner:
            burner.kill()
            burner.wait()
        subprocess.run(["lxc-stop", "--kill", "--name", NAME], capture_output=True, timeout=30)
        shutil.rmtree(FOLDER)
