"""The page behind the listener of the metrics: TLS, a password, a port that moves."""

import base64
import ssl

import worlds
from daemon import Daemon, free_port, until


def shows_the_node(bench):
    """The page names the machine and asks for nothing but itself."""
    daemon = bench.daemon(worlds.known(bench.own / "host"))
    bench.browser.open(daemon.url)
    text = bench.browser.until("the node's name", "return document.body.innerText.includes('node-1') && document.body.innerText")
    assert "node-1" in text
    asked = {url for url, _ in bench.browser.requests()}
    assert all(url.startswith(daemon.url) for url in asked), asked
    bench.browser.content()


def tls_and_a_password(bench):
    """Over TLS with a password: without it there is nothing, with it everything."""
    key = worlds.certificate(bench.own)
    (bench.own / "web.yml").write_text(worlds.WEB_CONFIG)
    daemon = secured(bench)
    browser = bench.browser_for(key)
    browser.open(daemon.url)
    assert "node-1" not in browser.js("return document.documentElement.innerText"), "shown without a password"
    browser.complaints()
    browser.open(daemon.url.replace("https://", "https://operator:secret@"))
    browser.until("the node's name", "return document.body.innerText.includes('node-1')")
    browser.content()


def secured(bench):
    one = Daemon(bench.program, worlds.known(bench.own / "host"), bench.own / "jouled", config=f'[export]\nweb_config_file = "{bench.own / "web.yml"}"\n')
    one.scheme, one.context = "https", ssl.create_default_context(cafile=bench.own / "node.crt")
    one.headers = {"Authorization": "Basic " + base64.b64encode(b"operator:secret").decode()}
    bench.at_end(one.stop)
    return one.start()


def a_port_that_moves(bench):
    """A reload moves the port: the page is at the new one."""
    daemon = bench.daemon(worlds.known(bench.own / "host"))
    bench.browser.open(daemon.url)
    daemon.port = free_port()
    daemon.reload()
    until("the new port", lambda: serves(daemon))
    bench.browser.open(daemon.url)
    bench.browser.until("the node's name", "return document.body.innerText.includes('node-1')")


def serves(daemon):
    try:
        return daemon.get("/metrics")
    except OSError:
        return None


ALL = [shows_the_node, tls_and_a_password, a_port_that_moves]
