#!/usr/bin/python3
"""The page of jouled in a real browser: the built daemon on a made-up machine, Chromium without a window.

    browser.py PROGRAM [CASE...]    the cases whose names begin with one of these words, else all
    BROWSER_OUT                     the folder for screenshots (target/browser)
"""

import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True

import daemon

# Debian has selenium for its own Python, which need not be the first one in PATH.
try:
    import chrome
    MISSING = chrome.missing()
except ImportError as error:
    MISSING = str(error)
if not MISSING:
    import cases

ROOT = Path(__file__).resolve().parents[3]


class Bench:
    """What a case gets: a browser as new, folders, daemons that end with the case."""

    def __init__(self, program, folder, pictures):
        self.program, self.folder, self.pictures = program, folder, pictures
        self.browser = chrome.Browser(folder, pictures)
        self.own, self.ends, self.asked = None, [], set()

    def begin(self, name):
        self.own = self.folder / name
        self.own.mkdir()
        self.browser.reset()

    def daemon(self, host, name="jouled", **arguments):
        """A started daemon on this host."""
        one = daemon.Daemon(self.program, host, self.own / name, **arguments)
        self.at_end(one.stop)
        return one.start()

    def browser_for(self, key):
        """Another browser, which believes one more server."""
        (self.own / "browser").mkdir()
        other = chrome.Browser(self.own / "browser", self.pictures, key)
        self.at_end(lambda: self.close(other))
        return other

    def close(self, browser):
        browser.quit()
        self.asked |= browser.asked()

    def at_end(self, end):
        self.ends.append(end)

    def end(self):
        faults = []
        while self.ends:
            try:
                self.ends.pop()()
            except Exception as error:
                faults.append(error)
        if faults:
            raise faults[0]


def main():
    if MISSING:
        print(f"skipped: {MISSING} (packaging/dev/deps.sh test)")
        return 0
    program, wanted = Path(sys.argv[1]).resolve(), sys.argv[2:]
    pictures = Path(os.environ.get("BROWSER_OUT") or ROOT / "target/browser")
    pictures.mkdir(parents=True, exist_ok=True)
    chosen = [case for case in cases.ALL if not wanted or any(case.__name__.startswith(word) for word in wanted)]
    with tempfile.TemporaryDirectory(prefix="jouled-browser-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        failed, asked = run_all(program, Path(folder) / "first", pictures, chosen)
        # On a busy machine a case can wait in vain: up to three that fail are run once more, each in a new browser. A
        # fault fails again.
        for number, case in enumerate(list(failed) if len(failed) <= 3 else []):
            again, more = run_all(program, Path(folder) / f"again-{number}", pictures, [case])
            asked |= more
            if not again:
                failed.remove(case)
                print(f"browser: {case.__name__} passed at the second attempt")
    failed = [case.__name__ for case in failed]
    others = asked - {"127.0.0.1"}
    print(f"{'FAIL' if others else 'ok'} no other host was asked: {sorted(asked)}")
    failed += ["no_other_host"] if others else []
    print(f"browser: screenshots in {pictures}")
    print(f"browser: {len(chosen) + 1 - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def run_all(program, folder, pictures, chosen):
    """Runs cases in one browser. Returns those that failed, and the hosts that were asked."""
    folder.mkdir()
    bench = Bench(program, folder, pictures)
    try:
        failed = [case for case in chosen if not run(bench, case)]
    finally:
        bench.close(bench.browser)
    return failed, bench.asked


def run(bench, case):
    name, began, fault = case.__name__, time.monotonic(), None
    for step in (lambda: bench.begin(name), lambda: case(bench)):
        try:
            step()
        except Exception as error:
            fault = error
            break
    if fault:
        picture(bench, name)
    try:
        bench.end()
    except Exception as error:
        fault = fault or error
    print(f"{'FAIL' if fault else 'ok'} {name} ({time.monotonic() - began:.1f} s)", flush=True)
    if fault:
        print("".join(traceback.format_exception(fault)), flush=True)
    return fault is None


def picture(bench, name):
    try:
        bench.browser.picture(f"failed-{name}")
    except Exception as error:
        print(f"browser: no picture of {name}: {error}")


if __name__ == "__main__":
    sys.exit(main())
