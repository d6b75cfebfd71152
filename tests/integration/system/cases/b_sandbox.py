"""The sandbox: what it allows and refuses, and that jouled measures in it."""

import json
import re
import subprocess
from pathlib import Path

from host import sh, wait_for
from install import ensure_running
from runner import note
from system import UNIT, UNIT_DROP_INS, Burning, DropIn, journal, main_pid, scrape, show, status_text

# linux/capability.h
CAPABILITIES = {"CAP_SYS_PTRACE": 19, "CAP_PERFMON": 38, "CAP_BPF": 39}
THRESHOLD = 23
DROP_INS = {
    2.2: "IPAddressDeny=any\nIPAddressAllow=localhost\n",
    1.4: "PrivateNetwork=yes\nIPAddressDeny=any\nRestrictAddressFamilies=~AF_INET AF_INET6\n",
}
PROGRAM = "/usr/lib/systemd/systemd"


def as_shipped(*command):
    """Output of a command about the unit without the drop-in of this test. jouled keeps running."""
    drop_in = UNIT_DROP_INS / "00-test.conf"
    text = drop_in.read_text()
    drop_in.unlink()
    try:
        sh("systemctl", "daemon-reload")
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    finally:
        drop_in.write_text(text)
        sh("systemctl", "daemon-reload")


def case_sandbox_score():
    ensure_running()
    done = as_shipped("systemd-analyze", "security", "--no-pager", f"--threshold={THRESHOLD}", UNIT)
    assert done.returncode == 0 and score_in(done.stdout) * 10 <= THRESHOLD, done.stdout[-100:]
    note(f"systemd-analyze security: {score_in(done.stdout)}")


def score_in(said):
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said)[1])


def case_sandbox_scores_of_drop_ins():
    """The scores that docs/security.md and the unit name for stricter drop-ins."""
    ensure_running()
    unit = Path("/tmp/scored.service")
    for score, lines in DROP_INS.items():
        unit.write_text(Path(show("FragmentPath")).read_text() + f"[Service]\n{lines}")
        done = subprocess.run(["systemd-analyze", "security", "--no-pager", "--offline=yes", str(unit)], capture_output=True, text=True, timeout=60)
        assert score_in(done.stdout) <= score, f"{score_in(done.stdout)} with {lines}"
        note(f"{score_in(done.stdout)} with {' '.join(lines.split(chr(10)))}")
    unit.unlink()


def case_sandbox_each_mark_is_explained_in_the_unit():
    ensure_running()
    done = as_shipped("systemd-analyze", "security", "--no-pager", "--json=short", UNIT)
    marked = [line["name"] for line in json.loads(done.stdout) if line["exposure"] is not None and not line["set"]]
    text = Path(show("FragmentPath")).read_text()
    comment = text[text.index("# What `systemd-analyze security` still marks"):]
    for name in marked:
        # "SystemCallFilter=~@debug" is explained under "@debug", "CapabilityBoundingSet=~CAP_BPF" under "CAP_BPF", "PrivateUsers=" as it is.
        key, _, value = name.partition("=~")
        word = value.strip("…").split("|")[0] if value else key.partition("/")[0]
        word = {"": '"exotic"', "AF_(INET": "AF_INET", "CAP_(DAC_*": "CAP_DAC"}.get(word, word)
        assert word in comment, f"{name}: {word} is not explained in the unit"
    note(f"{len(marked)} marks, each with its reason: {', '.join(marked)}")


def case_sandbox_verify_is_clean():
    ensure_running()
    for unit in (UNIT, "jouled.socket"):
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
        said = [line for line in done.stderr.splitlines() if "jouled" in line and not line.endswith("ignoring: notify-reload")]
        assert not said and done.returncode == 0, done.stderr


def case_sandbox_user_and_capabilities():
    ensure_running()
    said = Path(f"/proc/{main_pid()}/status").read_text()
    status = dict(line.split(":\t", 1) for line in said.splitlines())
    uid = sh("id", "-u", "jouled")
    assert status["Uid"].split() == [uid] * 4, status["Uid"]
    assert status["Groups"].split() in ([], [sh("id", "-g", "jouled")]), status["Groups"]
    allowed = sum(1 << bit for bit in CAPABILITIES.values())
    held = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert held["CapEff"] == held["CapPrm"] == held["CapBnd"] == allowed, held
    # Dropped at the start: no program that jouled might execute has them.
    assert held["CapInh"] == held["CapAmb"] == 0, held
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), status


def shell(command):
    """Runs a shell command in jouled's sandbox and with its capabilities; returns its output and status."""
    properties = [line for line in Path(show("FragmentPath")).read_text().splitlines() if re.match(r"[A-Z]\w+=", line)]
    kept = [line for line in properties if line.partition("=")[0] not in (
        "Description", "Documentation", "After", "Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "WatchdogSec", "WantedBy", "Alias",
        "StartLimitIntervalSec", "StateDirectory", "StateDirectoryMode", "RuntimeDirectory", "RuntimeDirectoryPreserve",
        "ConfigurationDirectory", "NotifyAccess")]
    kept.append("RestrictAddressFamilies=~AF_VSOCK")
    arguments = [word for line in kept for word in ("-p", line)]
    return subprocess.run(["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *arguments, "/usr/bin/python3", "-c", command],
                          capture_output=True, text=True, timeout=60)


def case_sandbox_holds():
    """A program in the same sandbox that tries what the sandbox refuses."""
    ensure_running()
    done = shell("""
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tries(name, function):
    try:
        function()
        print(name, 'yes')
    except OSError as error:
        print(name, error.strerror)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
tries('shadow', lambda: open('/etc/shadow').read())
tries('etc', lambda: open('/etc/x', 'w'))
tries('run', lambda: open('/run/x', 'w'))
tries('sysctl', lambda: open('/proc/sys/kernel/printk', 'w'))
tries('home', lambda: os.listdir('/root'))
tries('ptrace', lambda: call(101, 16, 1, 0, 0))
tries('peek', lambda: call(310, 1, 0, 0, 0, 0, 0))
tries('mount', lambda: call(165, 0, 0, 0, 0, 0))
tries('namespace', lambda: call(272, 0x10000000))
tries('netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
tries('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tries('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW))
tries('fuse', lambda: open('/dev/fuse', 'rb'))
tries('setuid', lambda: os.setuid(0))
tries('exe', lambda: os.readlink('/proc/1/exe'))
tries('stat', lambda: open('/proc/stat').read())
tries('null', lambda: open('/dev/null'))
print('see', len([name for name in os.listdir('/proc') if name.isdigit()]) > 3)
""")
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert done.returncode == 0 and len(said) == 18, done.stdout + done.stderr
    may = {name for name, answer in said.items() if answer in ("yes", "True")}
    note(f"refused: {', '.join(f'{name} ({answer})' for name, answer in said.items() if name not in may)}")
    assert may == {"exe", "stat", "null", "see", "netlink"}, may


def case_sandbox_units_are_charged():
    ensure_running()
    with Burning("burn-sandbox") as unit:
        def charged():
            page = scrape()
            found = page.labels("jouled_unit_joules_total", unit=unit.name, zone="package")
            return found and page.sum("jouled_unit_joules_total", unit=unit.name, zone="package") > 0 and page

        page = wait_for("energy of the unit", charged)
    assert page.state("bpf") == "healthy"
    assert "bpf" in status_text(), status_text()
    note(f"{page.sum('jouled_unit_joules_total', unit=unit.name, zone='package'):.2f} J of {unit.name}, by eBPF")


def program_of(unit):
    """The program that the page names for a process of a unit; None where the page does not have the process yet."""
    pid = show("MainPID", unit=unit.name)
    for labels in scrape().labels("kepler_process_cpu_joules_total", pid=pid, zone="package"):
        return labels["exe"]
    return None


def case_sandbox_cap_sys_ptrace_is_needed():
    """With /proc as the source, as this container's process ids are not those that eBPF sees."""
    ensure_running()
    procfs = '[usage]\nsource = "procfs"\n'
    with DropIn(config=procfs), Burning("burn-with") as unit:
        program = wait_for("the unit's process", lambda: program_of(unit))
        assert program.endswith("/dash"), program
        held = int(dict(line.split(":\t", 1) for line in Path(f"/proc/{main_pid()}/status").read_text().splitlines())["CapEff"], 16)
        assert held == 1 << CAPABILITIES["CAP_SYS_PTRACE"] | 1 << CAPABILITIES["CAP_PERFMON"], "what /proc does not need is not let go"
    without = "[Service]\nAmbientCapabilities=~CAP_SYS_PTRACE\nCapabilityBoundingSet=~CAP_SYS_PTRACE\nProtectProc=default\n"
    with DropIn(unit=without, config=procfs), Burning("burn-without") as unit:
        wait_for("the unit's process", lambda: program_of(unit) is not None)
        assert program_of(unit) == "", program_of(unit)
        assert "without CAP_SYS_PTRACE" in journal(), "the log does not name it"
