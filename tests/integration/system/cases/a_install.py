"""Installed, enabled, running: the first steps of an operator."""

import json

from host import sh, wait_for
from install import BEFORE, ensure_running, install, package
from runner import note
from system import BINARY, CONFIG, RUNTIME, STATE, UNIT, active, files, journal, journal_end, mode, scrape, show, status_text, wait_running


def case_install_gives_user_unit_and_configuration():
    BEFORE.write_text("\n".join(sorted(files())))
    note(install())
    assert BINARY.exists() and CONFIG.exists()
    assert sh("getent", "passwd", "jouled").endswith(("/usr/sbin/nologin", "/sbin/nologin"))
    assert int(sh("id", "-u", "jouled")) < 1000, "no system user"
    # The package's only dependencies are libc and libgcc.
    note(sh("sh", "-c", "du -ch /usr/bin/jouled /usr/bin/joulectl | tail -n 1"))


def case_install_enable_now_measures():
    if not package():
        assert not active(), "started by itself"
    sh("systemctl", "enable", "--now", UNIT, timeout=60)
    wait_running()
    wait_for("what is measured in the status", lambda: status_text().startswith("Measuring by "))
    note(f"Status: {status_text()}")
    began, ready = (int(show(name)) for name in ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic"))
    note(f"{(ready - began) / 1000:.0f} ms from the start to READY")
    assert show("NRestarts") == "0"


def case_install_folders_are_jouleds_own():
    ensure_running()
    assert mode(STATE) == "0700 jouled jouled", mode(STATE)
    assert mode(RUNTIME) == "0755 jouled jouled", mode(RUNTIME)
    assert mode(RUNTIME / "jouled.sock") == "0660 jouled jouled", mode(RUNTIME / "jouled.sock")
    assert mode(CONFIG) == "0644 root root", mode(CONFIG)
    for path in (STATE / "ledger", RUNTIME / "ledger.journal"):
        assert not path.exists() or mode(path) == "0600 jouled jouled", mode(path)


def case_install_root_and_the_group_may_ask():
    ensure_running()
    assert "bpf" in sh("joulectl", "status")
    sh("runuser", "-u", "nobody", "-g", "jouled", "--", "joulectl", "status")
    try:
        sh("runuser", "-u", "nobody", "--", "joulectl", "status")
    except RuntimeError as refused:
        assert "ermission denied" in str(refused), refused
    else:
        raise AssertionError("nobody may read the control socket")


def case_install_log_has_fields():
    ensure_running()
    lines = [json.loads(line) for line in sh("journalctl", "-u", UNIT, "-o", "json", "JOULED_SOURCE=bpf", "JOULED_STATE=healthy").splitlines()]
    assert lines, "no entry of the source bpf"
    for entry in lines:
        assert entry["MESSAGE"] == "usage bpf: healthy" and entry["JOULED_ROLE"] == "usage", entry
        assert entry["PRIORITY"] == "6" and entry["SYSLOG_IDENTIFIER"] == "jouled", entry


def case_install_log_has_no_errors():
    ensure_running()
    assert scrape().state("bpf") == "healthy", journal_end()
    errors = journal(None, "-p", "warning")
    # Expected warnings: that this is an estimate, and that systemd 252 does not know this Type=.
    known = ("estimate", "Failed to parse service type, ignoring: notify-reload")
    wrong = [line for line in errors.splitlines() if not line.startswith("-- ") and not any(word in line for word in known)]
    assert not wrong, wrong
