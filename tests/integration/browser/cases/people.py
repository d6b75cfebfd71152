"""The page as people use it: by the keyboard alone, narrow, dark, with a screen reader."""

import worlds
from host import Load

VIEWS = ["", "#/meters", "#/time", "#/guests"]


def page(bench):
    host, shares = worlds.server(bench.own / "host")
    load = Load(host, shares)
    load.start()
    bench.at_end(load.stop)
    daemon = bench.daemon(host, config=worlds.SERVER_CONFIG, interval="1s", environment={"JOULED_NODE_NAME": "rack3-node7"})
    daemon.ticks(4)
    bench.browser.open(daemon.url)
    rows(bench.browser)
    return daemon


def rows(browser):
    browser.until("rows", "return document.querySelectorAll('.name a').length > 0")


def focus(browser):
    """What has the keyboard, in words."""
    return browser.js("""
        const one = document.activeElement;
        return [one.tagName.toLowerCase(), one.className || '', (one.getAttribute('aria-label') || one.placeholder || one.textContent || '').trim().slice(0, 60)]""")


def keyboard(bench):
    """Tab reaches everything in the order of the page; Enter sorts and opens a row; going back leads to where one was."""
    page(bench)
    browser = bench.browser
    browser.js("document.activeElement.blur()")
    path = []
    for _ in range(60):
        browser.keys("Tab")
        path.append(focus(browser))
        assert browser.js("const one = document.activeElement; if (one === document.body) return true; const box = one.getBoundingClientRect(); return box.width > 0 && box.height > 0"), f"the focus is not to be seen: {path[-1]}"
        if browser.js("return document.activeElement.closest('.name') !== null"):
            break
    else:
        raise AssertionError(f"Tab reaches no row: {path}")
    texts = [text for _, _, text in path]
    assert texts[0].startswith("Skip"), path[:3]
    where = [next((at for at, text in enumerate(texts) if word.lower() in text.lower()), None) for word in ("Meters", "Units", "Filter", "Power")]
    assert None not in where and where == sorted(where), f"the order of Tab is {texts}"
    # A row by Enter, and back.
    chosen = focus(browser)[2]
    browser.keys("Enter")
    browser.until("the page of the row", "return [...document.querySelectorAll('h1')].some(one => one.textContent.includes(arguments[0]))", chosen)
    assert browser.js("return document.activeElement !== document.body"), "the focus is lost on the page of a row"
    browser.js("history.back()")
    rows(browser)
    browser.until("the focus where it was", "return document.activeElement.textContent.trim().startsWith(arguments[0])", chosen)
    # Sorting by Enter on a head.
    browser.js("[...document.querySelectorAll('[role=columnheader] button, th button')].find(one => one.textContent.includes('Name')).focus()")
    browser.keys("Enter")
    browser.until("ascending names", "return document.querySelector('[aria-sort=ascending]')?.textContent.includes('Name')")
    shown = browser.js("return [...document.querySelectorAll('.gridrow')].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(one => one.querySelector('.name a').textContent)")
    assert shown == sorted(shown, key=str.lower) or len(shown) > 2 and shown[0].lower() <= shown[1].lower() <= shown[2].lower(), shown
    # The filter, and what it finds.
    browser.js("document.querySelector('input[type=search]').focus()")
    browser.keys(*"postgres")
    browser.until("one row", "return document.querySelectorAll('.name a').length === 1 && document.querySelector('.name a').textContent.includes('postgres')")


def narrow(bench):
    """No view is wider than a phone."""
    page(bench)
    browser = bench.browser
    browser.size(390, 844)
    for view in VIEWS:
        browser.js("location.hash = arguments[0]", view)
        settle(browser, view)
        wide = browser.js("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{view or 'now'} is {wide} px too wide"
        browser.picture(f"narrow-{name(view)}")
    browser.js("location.hash = ''")
    rows(browser)
    browser.js("document.querySelector('.name a').click()")
    settle(browser, "row")
    assert browser.js("return document.documentElement.scrollWidth - innerWidth") <= 0, "the page of a row is too wide"
    browser.picture("narrow-row")


def name(view):
    return view.strip("#/") or "now"


def settle(browser, what):
    """Waits until a view is drawn: two looks a moment apart are the same size."""
    browser.until(f"{what} to be drawn", """
        const size = document.getElementById('main').querySelectorAll('*').length, same = window.sizeBefore === size && size > 5;
        window.sizeBefore = size; return same""")


def axe(bench):
    """axe-core finds nothing in any view, light and dark, nor in the document as it is without scripts."""
    daemon = page(bench)
    browser, found = bench.browser, []
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        for view in [*VIEWS, "row", "/troubleshooting"]:
            if view.startswith("/"):
                browser.open(daemon.url + view)
            elif view == "row":
                browser.js("location.hash = ''")
                rows(browser)
                browser.js("document.querySelector('.name a').click()")
                settle(browser, "row")
            else:
                browser.js("location.hash = arguments[0]", view)
                settle(browser, view)
            browser.picture(f"{scheme}-{name(view)}", whole=not view.startswith("/"))
            found += [f"{scheme} {name(view)}: {one}" for one in browser.accessibility()]
        # The page's own script does not run; axe-core needs one, and runs once it may.
        browser.scripting(False)
        browser.open(daemon.url)
        browser.scripting(True)
        assert not browser.js("return document.querySelector('.gridrow')"), "the page's script has run"
        found += [f"{scheme} without scripts: {one}" for one in browser.accessibility()]
        browser.open(daemon.url)
        rows(browser)
    assert not found, "\n".join(found)
    browser.content()


ALL = [keyboard, narrow, axe]
