"""Runs the cases inside the machine and prints one line for each."""

import importlib
import os
import signal
import sys
import time
import traceback
import tty
from pathlib import Path

PAYLOAD = Path("/payload")
CASE_LIMIT_S = 60


class Skip(Exception):
    """The case cannot run here, with the reason."""


def note(text):
    """A line of figures or explanation under the current case."""
    for line in str(text).splitlines():
        print(f"# {line}", flush=True)


def cases():
    """Every function `case_*` of cases/*.py, in the order written there: (name, function)."""
    for path in sorted((PAYLOAD / "cases").glob("*.py")):
        module = importlib.import_module(path.stem)
        for name, value in list(vars(module).items()):
            if name.startswith("case_") and value.__module__ == module.__name__:
                yield f"{path.stem}.{name.removeprefix('case_')}", value


def run(name, function):
    """Runs one case and prints its line. LIMIT_S of its file is its limit in seconds, 60 by default."""
    limit_s = function.__globals__.get("LIMIT_S", CASE_LIMIT_S)

    def too_long(_signal, _frame):
        raise TimeoutError(f"took more than {limit_s} s")

    start = time.monotonic()
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(limit_s)
    try:
        function()
        print(f"ok {name}", flush=True)
    except Skip as why:
        print(f"skip {name}: {why}", flush=True)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        place = next((f for f in reversed(where) if f.filename.startswith(str(PAYLOAD / "cases"))), where[-1])
        why = " ".join(str(error).split()) or type(error).__name__
        print(f"FAIL {name}: {why} ({Path(place.filename).name}:{place.lineno})", flush=True)
    finally:
        signal.alarm(0)
    note(f"{time.monotonic() - start:.1f} s")


def main():
    if os.isatty(1):
        tty.setraw(1)
    sys.path[:0] = [str(PAYLOAD / "guest"), str(PAYLOAD / "cases")]
    # The cases import this module by its name, not as __main__: one Skip class for both.
    sys.modules["runner"] = sys.modules["__main__"]
    wanted, done = ((PAYLOAD / name).read_text().split() for name in ("wanted", "done"))
    uptime = Path("/proc/uptime").read_text().split()[0]
    note(f"Linux {os.uname().release}, {os.cpu_count()} CPUs, up {uptime} s")
    for name, function in cases():
        if name not in done and (not wanted or any(pattern in name for pattern in wanted)):
            run(name, function)
    print("end", flush=True)


main()
