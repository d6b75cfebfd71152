"""Reload, stop, crash, watchdog: counters go on."""

import os
import signal
import subprocess
import time

from host import sh, wait_for
from install import ensure_running
from runner import note
from system import CONFIG_DROP_INS, UNIT, DropIn, active, assert_goes_on, journal, journal_end, main_pid, now, restart, scrape, show, status_text, wait_running


def case_life_reload_keeps_counters():
    before, pid = ensure_running(), main_pid()
    with DropIn(config='node_name = "renamed"\n', start=False):
        sh("systemctl", "reload", UNIT, timeout=30)
        assert active() and main_pid() == pid, "a reload restarted jouled"
        wait_for("the new name", lambda: "renamed" in scrape().values("kepler_node_cpu_joules_total", "node_name"))
        assert_goes_on(scrape().without("node_name"), before.without("node_name"))
    sh("systemctl", "reload", UNIT, timeout=30)
    wait_for("the old name", lambda: "renamed" not in scrape().values("kepler_node_cpu_joules_total", "node_name"))
    assert main_pid() == pid


def case_life_broken_reload_keeps_the_old_configuration():
    before, pid = ensure_running(), main_pid()
    since = now()
    with DropIn(config='interval = "a while"\n', start=False):
        subprocess.run(["systemctl", "reload", UNIT], capture_output=True, timeout=30)
        wait_for("the reason in the status", lambda: "interval" in status_text())
        note(f"Status: {status_text()}")
        assert active() and main_pid() == pid
        assert "interval" in journal(since)
        assert_goes_on(scrape(), before)
    sh("systemctl", "reload", UNIT, timeout=30)
    wait_for("the reason to go", lambda: "interval" not in status_text())
    assert main_pid() == pid


def case_life_sigterm_ends_in_two_seconds():
    before = ensure_running()
    start = time.monotonic()
    sh("systemctl", "stop", UNIT)
    took = time.monotonic() - start
    note(f"stopped in {took * 1000:.0f} ms")
    assert show("Result") == "success" and took <= 2, took
    sh("systemctl", "start", UNIT)
    assert_goes_on(wait_running(), before)


def case_life_sigkill_loses_nothing():
    before = ensure_running()
    restarts = int(show("NRestarts"))
    for kills in range(3):
        os.kill(main_pid(), signal.SIGKILL)
        wait_for("another start", lambda: int(show("NRestarts")) > restarts + kills)
        page = wait_running()
        assert_goes_on(page, before)
        before = page


def case_life_sigkill_at_the_start_loses_nothing():
    before = ensure_running()
    phases = []
    for delay_ms in (1, 10, 30, 60, 100, 200, 400):
        sh("systemctl", "stop", UNIT)
        sh("systemctl", "start", "--no-block", UNIT)
        pid = wait_for("a process", main_pid, period_s=0.001)
        time.sleep(delay_ms / 1000)
        phases.append(f"{delay_ms} ms: {show('SubState')}")
        os.kill(pid, signal.SIGKILL)
        wait_for("another process", lambda: main_pid() not in (0, pid))
        page = wait_running()
        assert_goes_on(page, before)
        before = page
    note(f"killed {', '.join(phases)}")


def case_life_sigkill_at_a_reload_or_the_end_loses_nothing():
    before = ensure_running()
    for command in ("reload", "stop"):
        for delay_ms in (0, 5, 20, 60):
            pid = main_pid()
            sh("systemctl", command, "--no-block", UNIT)
            time.sleep(delay_ms / 1000)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                note(f"{command}: it had ended after {delay_ms} ms")
            if command == "stop":
                wait_for("the end", lambda: show("ActiveState") in ("inactive", "failed"))
                sh("systemctl", "start", UNIT, timeout=60)
            wait_for("another process", lambda: main_pid() not in (0, pid))
            page = wait_running()
            assert_goes_on(page, before)
            before = page


def case_life_watchdog_ends_a_hanging_jouled():
    before = ensure_running()
    with DropIn(unit="[Service]\nWatchdogSec=2s\n"):
        since, pid = now(), main_pid()
        restarts = int(show("NRestarts"))
        os.kill(pid, signal.SIGSTOP)
        wait_for("another start", lambda: int(show("NRestarts")) > restarts, 30)
        assert "Watchdog timeout" in journal(since), journal_end(since)
        assert_goes_on(wait_running(), before)
        assert main_pid() != pid


def case_life_a_long_interval_extends_the_watchdog():
    ensure_running()
    # The interval is longer than WatchdogSec=: jouled extends it.
    with DropIn(unit="[Service]\nWatchdogSec=3s\n", config='interval = "5s"\n'):
        pid, restarts = main_pid(), show("NRestarts")
        time.sleep(8)
        assert (main_pid(), show("NRestarts")) == (pid, restarts), journal_end()


def case_life_ten_restarts_in_a_row():
    before = ensure_running()
    for _ in range(10):
        sh("systemctl", "restart", UNIT, timeout=60)
    assert_goes_on(wait_running(), before)
    assert not list(CONFIG_DROP_INS.glob("50-*"))
    restart()
