"""What the live page shows is what the metrics page of the same tick says."""

import shutil
import signal
import time

import showing
import worlds
from daemon import Recorder
from host import ZONES, Load

# The time of the tick that is shown, and name, power, energy, share of each row: read in one go, between two ticks.
SHOWN = """
    const live = document.getElementById('live'), rows = [...document.querySelectorAll('.gridrow')];
    return [Number(live.dataset.at), rows.map(row => {
        const [power, share, energy] = [...row.querySelectorAll('.n')].map(cell => cell.innerText);
        return [row.querySelector('a').title, power, energy, share];
    }), document.querySelector('.big').innerText]"""


def tables_equal_metrics(bench):
    """Each table, and the machine's own power, at several ticks."""
    host = worlds.known(bench.own / "host")
    daemon = bench.daemon(host, config=worlds.NO_FLOOR + '[[tenant]]\nname = "web <shop>"\nnamespace = "shop"\n', interval="1s")
    bench.at_end(worlds.steady(host, worlds.KNOWN_SHARES).stop)
    recorder = Recorder(daemon)
    recorder.start()
    bench.at_end(recorder.stop)
    daemon.ticks(3)
    browser = bench.browser
    browser.open(daemon.url)
    browser.until("rows", "return document.querySelectorAll('.gridrow').length > 0")
    kinds = browser.js("return [...document.querySelectorAll('[data-kind]')].map(one => one.dataset.kind)")
    assert {"tenant", "unit", "container", "pod", "vm", "user", "session", "user-unit", "slice", "process"} <= set(kinds), kinds
    faults, ticks, seen = [], set(), 0
    for _ in range(2):
        for kind in kinds:
            browser.js("document.querySelector(`[data-kind=${arguments[0]}]`).click()", kind)
            at, rows, big = browser.js(SHOWN)
            metrics = recorder.at(at / 1000)
            faults += showing.compare(kind, [row[:3] for row in rows], metrics)
            node = sum(value for labels, value in metrics.all("kepler_node_cpu_watts") if labels["zone"] in showing.BILLED)
            if not showing.near(big.replace("\n", ""), node):
                faults.append(f"the machine draws {big!r}, and /metrics says {node}")
            ticks.add(at)
            seen += len(rows)
        daemon.ticks(2)
    assert not faults, "\n".join(faults)
    print(f"   {seen} rows of {len(kinds)} kinds at {len(ticks)} ticks are as on /metrics")
    browser.picture("tables")
    browser.content()


def estimates_are_marked(bench):
    """Without a meter every number of power is marked, and the machine's has its interval."""
    host = worlds.known(bench.own / "host")
    shutil.rmtree(host.sys / "class/powercap")
    daemon = bench.daemon(host, interval="1s")
    class Working(Load):
        """Only CPU time: there are no counters to raise."""

        def step(self, at, passed):
            for pid, share in worlds.KNOWN_SHARES.items():
                host.run(pid, int(share * passed * 100))
            host.stat()
    load = Working(host, None)
    load.start()
    bench.at_end(load.stop)
    daemon.ticks(4)
    browser = bench.browser
    browser.open(daemon.url)
    browser.until("rows with power", "return [...document.querySelectorAll('.gridrow .n')].some(one => / W/.test(one.innerText.replace(/\\u00a0/g, ' ')))")
    numbers = browser.js("return [...document.querySelectorAll('.gridrow')].flatMap(row => [row.querySelectorAll('.n')[0].innerText, row.querySelectorAll('.n')[2].innerText])")
    numbers += [browser.js("return document.querySelector('.big').innerText")]
    numbers += browser.js("return [...document.querySelectorAll('.facts dd')].map(one => one.innerText).filter(text => /[WJ]/.test(text))")
    assert numbers and all(text.startswith("≈") for text in numbers), numbers
    sub = browser.js("return document.querySelector('.sub').innerText").replace("\u00a0", " ")
    assert "estimated" in sub and " to " in sub, sub
    browser.picture("estimate")


def a_gap_is_a_gap(bench):
    """While jouled stands still the curve has a gap and no line through zero; without any meter there is no power."""
    host = worlds.known(bench.own / "host")
    daemon = bench.daemon(host, config=worlds.NO_FLOOR + '[meter.estimate]\nuse = "never"\n', interval="1s")
    bench.at_end(worlds.steady(host, worlds.KNOWN_SHARES).stop)
    browser = bench.browser
    browser.open(daemon.url)
    browser.until("power", "return /\\d/.test(document.querySelector('.big')?.innerText || '')")
    curve = "document.querySelector('.hero .line').getAttribute('d') || ''"
    browser.until("a curve of some points", f"return ({curve}).split('L').length > 2", patience=120)
    daemon.process.send_signal(signal.SIGSTOP)
    time.sleep(10)
    daemon.process.send_signal(signal.SIGCONT)
    browser.until("the curve in two pieces", f"return ({curve}).split('M').length > 2", patience=120)
    heights = browser.js(f"return [...({curve}).matchAll(/[ML][\\d.]+ ([\\d.]+)/g)].map(one => Number(one[1]))")
    assert max(heights) < 131, f"the curve touches zero: {heights}"
    browser.picture("gap")
    shutil.rmtree(host.sys / "class/powercap")
    browser.until("no power", "return document.querySelector('.big').innerText.includes('–')", patience=120)
    browser.picture("no-power")
    for zone, title in ZONES.items():
        host.zone(zone, title, host.energy[zone])
    browser.until("power again", "return /[1-9]/.test(document.querySelector('.big').innerText)", patience=120)


ALL = [tables_equal_metrics, estimates_are_marked, a_gap_is_a_gap]
