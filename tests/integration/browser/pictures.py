#!/usr/bin/python3
"""The pictures of the page in docs/images: a machine that looks like a real one, with a month of history.

    pictures.py PROGRAM [FOLDER]    PROGRAM is a built jouled; takes some six minutes, most of which the curves need
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True

import chrome
import worlds
from daemon import Daemon
from host import Load

ROOT = Path(__file__).resolve().parents[3]
# A minute has to end before there is history; the curves show some minutes.
FIRST_LIFE, CURVES = 75, int(os.environ.get("PICTURES_SECONDS") or 300)
LIMIT = 150 * 1024


def main():
    program, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "docs/images")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jouled-pictures-") as folder:
        folder = Path(folder)
        host, shares = worlds.server(folder / "host")
        load = Load(host, shares)
        load.start()
        daemon = Daemon(program, host, folder / "jouled", config=worlds.SERVER_CONFIG, interval="1s", environment={"JOULED_NODE_NAME": "rack3-node7"})
        try:
            daemon.start()
            time.sleep(FIRST_LIFE)
            daemon.stop()
            subprocess.run(["cargo", "test", "--locked", "--test", "integration", "pictures::"], cwd=ROOT, check=True,
                           env=os.environ | {"JOULED_PICTURES": str(daemon.folder / "state")})
            daemon.start()
            print(f"pictures: {daemon.url}, in {CURVES} s", flush=True)
            time.sleep(CURVES)
            browser = chrome.Browser(folder, target)
            try:
                take(browser, daemon)
            finally:
                browser.quit()
        finally:
            daemon.stop()
            load.stop()
    sizes = {path.name: path.stat().st_size for path in target.glob("page-*.png")}
    print(f"pictures: {sizes}")
    return 1 if max(sizes.values()) > LIMIT else 0


def take(browser, daemon):
    """Now in dark, a unit in light, and a phone's width."""
    browser.size(1280, 800)
    browser.scheme("dark")
    browser.open(daemon.url)
    browser.until("curves", "return document.querySelectorAll('.gridrow .spark path[d]').length > 3")
    time.sleep(4)
    browser.picture("page-now")
    browser.scheme("light")
    browser.js("location.hash = '#/row/unit/nginx.service/system.slice'")
    browser.until("the unit", "return document.querySelectorAll('main table').length > 1")
    time.sleep(4)
    browser.picture("page-unit")
    browser.size(390, 800)
    browser.js("location.hash = '#/time'")
    browser.until("the days", "return document.querySelectorAll('.days rect').length > 5")
    time.sleep(2)
    browser.picture("page-phone")


if __name__ == "__main__":
    sys.exit(main())
