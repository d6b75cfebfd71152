"""What the page says of each kind of thing: what it belongs to and what belongs to it, how well its power is known, its name."""

import shutil

import showing
import worlds
from daemon import Recorder
from guest_host import GuestHost
from host import Load

# The time of the tick that is shown, and name, power, interval of each row.
ROWS = """
    return [Number(document.getElementById('live').dataset.at), [...document.querySelectorAll('.gridrow')].map(row => {
        const [power, between] = row.querySelector('.n').children;
        return [row.querySelector('a').title, power.innerText, between.innerText];
    })]"""
# What the page of a row lists under a heading: pairs of kind and name.
LISTED = """
    const heads = [...document.querySelectorAll('main h2')].filter(one => one.textContent === arguments[0]);
    return heads.length ? [...heads[0].parentElement.querySelectorAll('tbody tr')].map(row => [row.cells[0].innerText, row.cells[1].innerText]) : []"""


class Working(Load):
    """Only CPU time: there are no counters to raise."""

    def step(self, at, passed):
        for pid, share in worlds.KNOWN_SHARES.items():
            self.carry[pid] = self.carry.get(pid, 0.0) + share * passed * 100
            whole, self.carry[pid] = divmod(self.carry[pid], 1)
            self.host.run(pid, int(whole))
        self.host.stat()


def at_work(bench, **more):
    """A daemon on the known machine at work, and its page."""
    host = worlds.known(bench.own / "host")
    daemon = bench.daemon(host, config=worlds.NO_FLOOR + '[[tenant]]\nname = "web shop"\nnamespace = "shop"\n', interval="1s", **more)
    bench.at_end(worlds.steady(host, worlds.KNOWN_SHARES).stop)
    daemon.ticks(3)
    bench.browser.open(daemon.url)
    rows(bench.browser)
    return daemon


def rows(browser):
    browser.until("rows", "return document.querySelectorAll('.gridrow').length > 0")


def intervals_of_rows(bench):
    """Without a meter, each row has the part of its zones' intervals on /metrics that it has of their power."""
    host = worlds.known(bench.own / "host")
    shutil.rmtree(host.sys / "class/powercap")
    daemon = bench.daemon(host, config='[attribution.idle_watts]\n"estimate/package-0" = 0\n"estimate/package-1" = 0\n', interval="1s")
    load = Working(host, None)
    load.start()
    bench.at_end(load.stop)
    recorder = Recorder(daemon)
    recorder.start()
    bench.at_end(recorder.stop)
    daemon.ticks(4)
    browser = bench.browser
    browser.open(daemon.url)
    rows(browser)
    seen, faults = 0, []
    for kind in ("unit", "process", "container", "vm", "user"):
        browser.js("document.querySelector(`[data-kind=${arguments[0]}]`).click()", kind)
        browser.until("rows with power", "return [...document.querySelectorAll('.gridrow .n')].some(one => / W/.test(one.innerText.replace(/\\u00a0/g, ' ')))")
        at, shown = browser.js(ROWS)
        metrics = recorder.at(at / 1000)
        wanted = showing.intervals(kind, metrics)
        for name, power, between in shown:
            same = [(low, high) for labels, watts, low, high in wanted if showing.is_named(name, labels, kind) and showing.near(power, watts)]
            if showing.quantity(power) is None or not showing.quantity(power)[0]:
                continue
            seen += 1
            if not any(showing.is_between(between, low, high) for low, high in same):
                faults.append(f"{kind}: {name} has {power} and {between!r}; by /metrics {same}")
    assert not faults, "\n".join(faults)
    assert seen >= 8, f"only {seen} rows have a power"
    assert all(between for _, power, between in shown if power not in ("0 W", "–")), shown
    print(f"   the intervals of {seen} rows are as on /metrics")
    browser.picture("intervals")
    # Without scripts as well.
    browser.scripting(False)
    browser.open(daemon.url)
    cells = browser.js("return [...document.querySelectorAll('#unit tbody tr')].map(row => row.cells[1].innerText)")
    assert cells and all(" to " in cell for cell in cells if showing.quantity(cell)[0] > 0), cells


def what_belongs_to_what(bench):
    """A process names its unit, in the table and on its page; a unit its slice and its processes; a tenant its containers."""
    daemon = at_work(bench)
    browser = bench.browser
    browser.js("document.querySelector('[data-kind=process]').click()")
    note = browser.until("the process's unit", "const row = [...document.querySelectorAll('.gridrow')].find(row => row.querySelector('a').textContent.includes('nginx')); return row && row.querySelector('small').textContent")
    assert note.startswith("nginx.service"), note
    expected = [
        ("process/101 nginx", "Belongs to", [["Unit", "nginx.service"], ["Slice", "system.slice"], ["Tenant", "unassigned"]]),
        ("unit/nginx.service", "Belongs to", [["Slice", "system.slice"]]),
        ("unit/nginx.service", "Contains", [["Process", "101 nginx"]]),
        ("user-unit/editor.service (user 1000)", "Belongs to", [["Unit", "user@1000.service"], ["User", "1000"]]),
        ("session/2 (user 1000)", "Contains", [["Process", "105 bash"]]),
        ("pod/shop\\u002fweb-7d9f4", "Contains", [["Container", "shop/web-7d9f4/nginx"]]),
        ("tenant/web shop", "Contains", [["Container", "shop/web-7d9f4/nginx"]]),
        ("vm/web", "Belongs to", [["Unit", "machine-qemu-1-web.scope"], ["Slice", "machine.slice"]]),
        ("vm/web", "Contains", [["Process", "104 qemu-system-x86"]]),
    ]
    for address, heading, wanted in expected:
        kind, _, name = address.partition("/")
        browser.js("location.hash = `#/row/${arguments[0]}/${encodeURIComponent(arguments[1])}`", kind, name.replace("\\u002f", "/"))
        browser.until(f"{heading} of {address}", "const listed = (() => {" + LISTED + "})(); return listed.length > 0", heading)
        listed = browser.js(LISTED, heading)
        assert all(one in listed for one in wanted), f"{address}: {heading} {listed}, and not {wanted}"
        assert browser.js("return /since .*20\\d\\d/.test(document.querySelector('.sub').innerText)"), address
    browser.picture("belongs")
    assert daemon.tick() > 0


def escaped_names(bench):
    """systemd's escapes are undone, and what systemd calls the unit is there as well and finds it."""
    at_work(bench)
    browser = bench.browser
    browser.js("document.querySelector('[data-kind=unit]').click()")
    for word in ("qemu-1-web", "qemu\\x2d1"):
        browser.js("const find = document.querySelector('input[type=search]'); find.value = arguments[0]; find.dispatchEvent(new Event('input'))", word)
        browser.until("one row", "return document.querySelectorAll('.gridrow').length === 1")
        link = "document.querySelector('.gridrow a')"
        assert browser.js(f"return {link}.textContent") == "machine-qemu-1-web.scope"
        assert browser.js(f"return {link}.title").startswith("machine-qemu\\x2d1\\x2dweb.scope")
    browser.js("document.querySelector('.gridrow a').click()")
    browser.until("the unit's page", "return document.querySelector('h1.title')?.textContent === 'machine-qemu-1-web.scope'")
    assert browser.js("return document.querySelector('.exact').textContent") == "machine-qemu\\x2d1\\x2dweb.scope"


def guest(bench):
    """In a guest: which host reports, how old its last report is, and that it is silent when it is."""
    host = worlds.known(bench.own / "host")
    shutil.rmtree(host.sys / "class/powercap")
    reporter = GuestHost(bench.own / "host.sock", {"package": 12.0, "dram": 1.5})
    reporter.start()
    bench.at_end(reporter.stop)
    daemon = bench.daemon(host, interval="1s", environment={"JOULED_METER__VSOCK__CONNECT": f"unix:{bench.own / 'host.sock'}"})
    load = Working(host, None)
    load.start()
    bench.at_end(load.stop)
    daemon.ticks(5)
    browser = bench.browser
    browser.open(f"{daemon.url}/#/guests")
    text = browser.until("the host", "const text = document.getElementById('main').innerText; return text.includes('This machine is a guest') && text.includes('guest/package') && /\\d W/.test(text.replace(/\\u00a0/g, ' ')) && text")
    assert "healthy" in text and "guest/dram" in text and "8c0d" not in text.split("This machine")[0], text
    browser.picture("guest", whole=True)
    assert not browser.accessibility(), "axe finds something"
    browser.js("location.hash = '#/'")
    browser.until("power", "return /1[0-9.]+/.test(document.querySelector('.big')?.innerText || '')", patience=120)
    assert "derived" in browser.js("return document.querySelector('.sub').innerText")
    reporter.stop()
    browser.js("location.hash = '#/guests'")
    browser.until("that the host is silent", "return /degraded|failed/.test(document.getElementById('main').innerText)", patience=120)
    browser.picture("guest-silent")


ALL = [intervals_of_rows, what_belongs_to_what, escaped_names, guest]
