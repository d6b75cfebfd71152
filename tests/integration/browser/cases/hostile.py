"""Names that are an attacker's: markup, scripts, characters that turn the direction of writing, 10 KB."""

import worlds
from host import Load

# What is in the document that a name may never become.
INTRUDERS = r"""
    const hidden = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/;
    const found = [];
    for (const one of document.querySelectorAll('body *')) {
        if (/^(script|img|iframe|object|embed|form|base|meta|link|style)$/i.test(one.tagName)) found.push(one.outerHTML.slice(0, 200));
        for (const {name, value} of one.attributes) {
            if (/^on/i.test(name) || /^(href|src|action|formaction|srcdoc)$/i.test(name) && !/^(#|\/)/.test(value)) found.push(`${one.tagName} ${name}=${value.slice(0, 100)}`);
            if (hidden.test(value)) found.push(`${one.tagName} ${name} has a hidden character: ${JSON.stringify(value.slice(0, 100))}`);
        }
        for (const child of one.childNodes) {
            if (child.nodeType === 3 && hidden.test(child.data)) found.push(`a hidden character: ${JSON.stringify(child.data.slice(0, 200))}`);
            if (child.nodeType === 3 && child.data.length > 4000) found.push(`a text of ${child.data.length} characters`);
        }
    }
    if (window.pwned !== undefined) found.push('a name ran as a script');
    if (document.documentElement.scrollWidth > innerWidth) found.push(`the page is ${document.documentElement.scrollWidth - innerWidth} px too wide`);
    return found;"""


def harmless(browser, what):
    found = browser.js(INTRUDERS)
    assert not found, f"{what}: {found[:10]}"
    browser.content(what)


def names(bench):
    """In every table, on the page of each such entity, with and without scripts, wide and narrow."""
    host, shares = worlds.hostile(bench.own / "host")
    load = Load(host, lambda _: shares)
    load.start()
    bench.at_end(load.stop)
    daemon = bench.daemon(host, config=worlds.NO_FLOOR)
    daemon.ticks(3)
    browser = bench.browser
    for on in (False, True):
        browser.scripting(on)
        for width in (1280, 390):
            browser.size(width, 3000)
            browser.open(daemon.url)
            if on:
                live(browser)
            harmless(browser, f"{'with' if on else 'without'} scripts, {width} px")
            assert "<script>window.pwned=1<" in browser.js("return document.body.innerText"), "the names are not shown"
    browser.size(1280, 900)
    for kind in browser.js("return [...document.querySelectorAll('[data-kind]')].map(one => one.dataset.kind)"):
        browser.js("[...document.querySelectorAll('[data-kind]')].find(one => one.dataset.kind === arguments[0]).click()", kind)
        harmless(browser, f"the table of {kind}")
        for at in range(min(4, browser.js("return document.querySelectorAll('.name a').length"))):
            browser.js("document.querySelectorAll('.name a')[arguments[0]].click()", at)
            browser.until("the page of a row", "return location.hash.includes('/') && document.querySelectorAll('main table').length > 0")
            harmless(browser, f"row {at} of {kind}")
            browser.js("history.back()")
            browser.until("the table again", "return document.querySelectorAll('.name a').length > 0")
    browser.picture("hostile-names")


def live(browser):
    browser.until("a table that is live", "return document.querySelectorAll('.name a').length > 0")


ALL = [names]
