"""All examples for a booted system in the man pages, the README and docs/, line by line."""

import subprocess

from host import wait_for
from install import ensure_running
from runner import PAYLOAD, Skip, note
from system import Burning, wait_running

LIMIT_S = 120


def examples(kind):
    return list(dict.fromkeys((PAYLOAD / "examples" / kind).read_text().splitlines()))


def run(line):
    # Commands that watch run for a moment only.
    return subprocess.run(["bash", "-euo", "pipefail", "-c", line.replace("timeout 30 ", "timeout 2 ")], capture_output=True, text=True, timeout=60)


def run_all(kind):
    lines = examples(kind)
    assert len(lines) > 3, lines
    wrong = []
    for line in lines:
        done = run(line)
        # A program that this small system does not have.
        if done.returncode == 127 and "command not found" in done.stderr:
            note(f"not here: {line}")
        elif done.returncode:
            wrong.append(f"{line}: {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    assert not wrong, " | ".join(wrong)
    note(f"{len(lines)} commands")


def case_examples_for_a_system_run():
    ensure_running()
    run_all("system")
    wait_running()


def case_examples_for_the_bus_run():
    ensure_running()
    # The pages use ssh.service, which this small system does not have.
    with Burning("ssh"):
        asked = next(line for line in examples("busctl") if "ssh_2eservice" in line)
        if "not provided by any" in run(asked).stderr:
            raise Skip("jouled is not on the bus")
        wait_for("ssh.service to be known", lambda: run(asked).returncode == 0, 30)
        run_all("busctl")
