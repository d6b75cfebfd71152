"""An open page over time: restarts, a port that moves, a notebook that sleeps, a proxy that holds back, clients that hold it up."""

import misuse
import worlds
from daemon import free_port

CONFIG = worlds.NO_FLOOR
OLD = "return document.getElementById('live').classList.contains('old')"
LIVE = "return !document.getElementById('live').classList.contains('old') && /live/.test(document.getElementById('live').innerText)"


def working(bench, **more):
    """A daemon on the known machine at work, and its page."""
    host = worlds.known(bench.own / "host")
    daemon = bench.daemon(host, config=CONFIG, **more)
    bench.at_end(worlds.steady(host, worlds.KNOWN_SHARES).stop)
    daemon.ticks(3)
    bench.browser.open(daemon.url)
    goes_on(bench.browser)
    return daemon


def goes_on(browser, what="new numbers on the page"):
    """Waits until the page has shown two new states."""
    for _ in range(2):
        shown = browser.js("return document.getElementById('main').innerText")
        browser.until(what, "return document.getElementById('main').innerText !== arguments[0]", shown)


def a_restart(bench):
    """The page comes back by itself when the daemon does, and shows no number as current in between."""
    daemon = working(bench)
    for kind in ("stop", "kill"):
        getattr(daemon.process, "terminate" if kind == "stop" else "kill")()
        daemon.process.wait()
        bench.browser.until("that the page says so", OLD)
        daemon.start()
        goes_on(bench.browser, "new numbers after a restart")
        bench.browser.until("that it is live", LIVE)


def a_reload_that_moves_the_port(bench):
    """The page at the old port says that it has lost the daemon; at the new port it is back."""
    daemon = working(bench)
    daemon.port = free_port()
    daemon.reload()
    bench.browser.until("that the page says so", OLD)
    bench.browser.open(daemon.url)
    goes_on(bench.browser)


def a_sleeping_tab(bench):
    """The whole browser stands still for longer than a reader may be slow; then the page is current again."""
    working(bench)
    bench.browser.sleep(25)
    goes_on(bench.browser, "new numbers after a sleep")


def a_frozen_tab(bench):
    """The browser freezes the tab for longer than a reader may be slow, and jouled is restarted meanwhile; then the page is current again."""
    daemon = working(bench)
    bench.browser.js("window.before = document.querySelectorAll('.gridrow').length")
    bench.browser.frozen(25)
    goes_on(bench.browser, "new numbers after it was frozen")
    bench.browser.until("that it is live", LIVE)
    daemon.process.terminate()
    daemon.process.wait()
    daemon.start()
    bench.browser.frozen(5)
    goes_on(bench.browser, "new numbers of another life after it was frozen")
    bench.browser.until("that it is live", LIVE)


def a_proxy_that_holds_back(bench):
    """A proxy gives what it has only in lumps: the page still has numbers, and new ones."""
    daemon = working(bench)
    proxy = misuse.HoldingProxy(daemon.port, 1 << 20, 6)
    proxy.start()
    bench.at_end(proxy.stop)
    bench.browser.open(f"http://127.0.0.1:{proxy.port}")
    assert "node-1" in bench.browser.js("return document.body.innerText")
    goes_on(bench.browser, "new numbers through the proxy")


def a_clock_that_is_wrong(bench):
    """The browser's clock is a day ahead, then a day behind: the page is live, and says when its numbers are from."""
    daemon = working(bench)
    for hours in (24, -24):
        bench.browser.at_start(f"""{{
            const real = Date, by = {hours} * 3600e3;
            globalThis.Date = class extends real {{ constructor(...words) {{ words.length ? super(...words) : super(real.now() + by); }}
                                                 static now() {{ return real.now() + by; }} }};
        }}""")
        bench.browser.open(daemon.url)
        goes_on(bench.browser)
        assert bench.browser.js(LIVE), "the page does not say that it is live"
        bench.browser.picture(f"clock-{'ahead' if hours > 0 else 'behind'}")


def thousand_that_never_read(bench):
    """1,000 connections that ask for the page, its events and the metrics and read nothing: the open page goes on."""
    daemon = working(bench)
    before = daemon.memory()
    clients = [misuse.NeverRead(daemon.port, path, count) for path, count in (("/v1/events", 500), ("/", 250), ("/metrics", 250))]
    bench.at_end(lambda: [one.close() for one in clients])
    held = daemon.memory()
    for _ in range(5):
        goes_on(bench.browser, "new numbers beside 1,000 connections")
    later = daemon.memory()
    ticks = daemon.tick()
    for one in clients:
        one.close()
    goes_on(bench.browser)
    after = daemon.memory()
    print(f"   1,000 connections ({sum(one.refused for one in clients)} refused): resident and descriptors before {before[0]:.1f} MB {before[1]}, "
          f"then {held[0]:.1f} MB {held[1]}, later {later[0]:.1f} MB {later[1]}, after {after[0]:.1f} MB {after[1]}; tick {ticks}")
    assert max(held[0], later[0]) < before[0] + 96, "these connections hold more than docs/security.md allows"
    assert held[1] < before[1] + 300, "more connections than there are places"


ALL = [a_restart, a_reload_that_moves_the_port, a_sleeping_tab, a_frozen_tab, a_proxy_that_holds_back, a_clock_that_is_wrong, thousand_that_never_read]
