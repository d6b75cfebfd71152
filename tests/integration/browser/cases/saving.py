"""The report as a file: what the button saves is what the daemon reports."""

import csv
import json
import time
from datetime import datetime

import worlds
from daemon import until


def the_csv(bench):
    """The saved table has the rows of /v1/report over the same time, and adds up to the machine's energy."""
    host = worlds.known(bench.own / "host")
    daemon = bench.daemon(host, config=worlds.NO_FLOOR + "[history]\nuse = \"auto\"\n", interval="1s")
    bench.at_end(worlds.steady(host, worlds.KNOWN_SHARES | {109: 0.1}).stop)
    folder = bench.own / "saved"
    folder.mkdir()
    browser = bench.browser
    browser.downloads(folder)
    asked = lambda by, begin, end: json.loads(daemon.get(f"/v1/report?from={begin}&until={end}&by={by}&limit=500"))
    until("a finished minute", lambda: asked("unit", int(time.time()) - 3600, int(time.time()) + 1)["parts"], patience=180)
    browser.open(f"{daemon.url}/#/time")
    browser.until("the report", "return document.querySelectorAll('main table tbody tr').length > 0", patience=120)
    browser.js("[...document.querySelectorAll('main button')].find(one => one.textContent === 'CSV').click()")
    path = until("the saved file", lambda: next(iter(folder.glob("jouled-*.csv")), None))
    until("all of it", lambda: path.stat().st_size > 0)
    with open(path, newline="") as file:
        saved = list(csv.DictReader(file))
    assert saved and path.name.startswith("jouled-unit-"), path
    begin, end = (int(datetime.fromisoformat(saved[0][key].replace("Z", "+00:00")).timestamp()) for key in ("from", "until"))
    report = asked("unit", begin, end)["parts"][0]
    kwh = lambda line: (sum(line["energy"].values()) if isinstance(line["energy"], dict) else line["energy"]) / 3.6e12
    wanted = {line["name"]: kwh(line) for line in report["lines"]}
    rows = {row["name"]: float(row["kwh"]) for row in saved}
    assert "nginx.service" in rows and wanted.keys() <= rows.keys(), (rows, wanted)
    assert all(abs(rows[name] - value) < 2e-9 for name, value in wanted.items()), (rows, wanted)
    total = report["node"]["total"] / 3.6e12
    assert abs(sum(rows.values()) - total) < 1e-8 * len(rows), (sum(rows.values()), total)
    print(f"   {len(saved)} lines, {total * 1e6:.1f} mWh in all")


ALL = [the_csv]
