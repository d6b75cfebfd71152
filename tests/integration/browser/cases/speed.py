"""Times by the browser's own clock: printed, not compared, as the machine may be busy."""

import statistics

import worlds
from host import Host, Load


def times(bench):
    """First paint and the whole page, ten times with an empty cache."""
    host, shares = worlds.server(bench.own / "host")
    load = Load(host, shares)
    load.start()
    bench.at_end(load.stop)
    daemon = bench.daemon(host, config=worlds.SERVER_CONFIG, interval="1s")
    daemon.ticks(4)
    seen = []
    for _ in range(10):
        bench.browser.reset()
        bench.browser.open(daemon.url)
        bench.browser.until("the first paint", "return performance.getEntriesByName('first-contentful-paint').length")
        seen.append(bench.browser.timing())
        asked = [url for url, _ in bench.browser.requests()]
        assert len(asked) <= 2, f"more requests than the page and its events: {asked}"
    median = {key: statistics.median(one[key] for one in seen) for key in ("paint", "answer", "ready", "load", "bytes")}
    print(f"   first paint {median['paint']:.0f} ms, answer {median['answer']:.0f} ms, ready {median['ready']:.0f} ms, whole page {median['load']:.0f} ms, "
          f"{median['bytes'] / 1024:.0f} KiB (medians of {len(seen)}; slowest paint {max(one['paint'] for one in seen):.0f} ms)")
    assert median["bytes"] < 150 * 1024, "the page is larger than 150 KiB"


def crowd(bench, processes=10_000, units=2_000):
    """10,000 processes in 2,000 units: only rows in view exist, and the page answers."""
    host = Host(bench.own / "host", cpus=8)
    for number in range(processes):
        host.spawn(10_000 + number, f"worker-{number % 50}", f"/system.slice/service-{number % units}.service", number % 8)
    load = Load(host, lambda at: {10_000 + (int(at * 10) * 37 + step * 131) % processes: 0.5 for step in range(40)})
    load.start()
    bench.at_end(load.stop)
    daemon = bench.daemon(host, config=worlds.NO_FLOOR + "[series]\nprocesses = 12000\nothers = 4000\n", interval="2s")
    daemon.ticks(3)
    browser = bench.browser
    browser.at_start("window.long = []; new PerformanceObserver(list => window.long.push(...list.getEntries().map(one => one.duration))).observe({type: 'longtask', buffered: true});")
    browser.open(daemon.url)
    browser.until("a table", "return document.querySelectorAll('.name a').length > 0")
    first = browser.js("return performance.now()")
    browser.js("[...document.querySelectorAll('[data-kind]')].find(one => one.dataset.kind === 'process').click()")
    browser.until("the processes", "return [...document.querySelectorAll('.name a')].some(one => one.textContent.includes('worker-'))")
    browser.js("window.long.length = 0")
    for step in range(20):
        browser.js("const view = document.querySelector('.viewport'); view.scrollTop = view.scrollHeight * arguments[0]; scrollTo(0, document.body.scrollHeight * arguments[0])", step / 20)
        browser.until("rows in view", "return document.querySelectorAll('.name a').length > 0")
    rows = browser.js("return document.querySelectorAll('.name a').length")
    long = browser.js("return window.long")
    daemon.ticks(3)
    ticking = browser.js("return window.long")
    print(f"   {processes} processes, {units} units: a table after {first:.0f} ms, {rows} rows in the document; long tasks while scrolling "
          f"{[round(one) for one in long]} ms, with three ticks more {[round(one) for one in ticking[len(long):]]} ms; "
          f"daemon {daemon.memory()[0]:.0f} MB")
    assert rows < 200, "rows out of view are in the document"


ALL = [times, crowd]
