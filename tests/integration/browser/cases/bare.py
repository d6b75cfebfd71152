"""The page without scripts: the same tables, as they are in the document."""

import re
from datetime import datetime

import showing
import worlds
from daemon import Recorder

# Tables of the document: name, power, energy of each row, by kind.
TABLES = """
    return [...document.querySelectorAll('section[id]')].filter(one => one.querySelector('th.n')).map(one => [one.id,
        [...one.querySelectorAll('tbody tr')].map(row => [row.cells[0].innerText, row.cells[1].innerText, row.cells[3].innerText])])"""


def without_scripts(bench):
    """Each table equals /metrics at its tick, with scripts switched off."""
    host = worlds.known(bench.own / "host")
    daemon = bench.daemon(host, config=worlds.NO_FLOOR, interval="1s")
    bench.at_end(worlds.steady(host, worlds.KNOWN_SHARES).stop)
    recorder = Recorder(daemon)
    recorder.start()
    bench.at_end(recorder.stop)
    daemon.ticks(3)
    browser = bench.browser
    browser.scripting(False)
    browser.open(daemon.url)
    when = datetime.fromisoformat(re.search(r"[0-9-]{10}T[0-9:.]+Z?", browser.js("return document.getElementById('live').innerText"))[0].replace("Z", "+00:00")).timestamp()
    tables = dict(browser.js(TABLES))
    assert {"unit", "container", "pod", "vm", "user", "session", "user-unit", "slice", "process"} <= tables.keys(), sorted(tables)
    metrics = recorder.at(when)
    faults = [fault for kind, rows in tables.items() for fault in showing.compare(kind, rows, metrics)]
    assert not faults, "\n".join(faults)
    browser.picture("without-scripts", whole=True)
    browser.content()


ALL = [without_scripts]
