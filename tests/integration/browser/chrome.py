"""Chromium without a window, driven by chromedriver. It can reach nothing but this machine, and what it asked for is looked at."""

import base64
import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

HERE = Path(__file__).parent
# Nothing is resolved, so that neither a page nor the browser itself can ask another machine.
FLAGS = [
    "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check", "--no-pings", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-domain-reliability",
    "--disable-client-side-phishing-detection", "--disable-extensions", "--metrics-recording-only", "--disable-breakpad",
    "--disable-features=OptimizationHints,MediaRouter,DialMediaRouteProvider,Translate,AutofillServerCommunication,CertificateTransparencyComponentUpdater",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-proxy-server", "--hide-scrollbars", "--lang=en-US", "--force-color-profile=srgb",
]
NARROW, WIDE = (390, 844), (1280, 900)


def missing():
    """What this machine lacks, or nothing."""
    if not chromium():
        return "no chromium"
    return "" if shutil.which("chromedriver") else "no chromedriver"


def chromium():
    return shutil.which("chromium") or shutil.which("google-chrome")


def axe():
    """The source of axe-core, which has to be what its page says."""
    source = (HERE / "axe/axe.min.js").read_bytes()
    checksum = hashlib.sha256(source).hexdigest()
    assert checksum in (HERE / "axe/README.md").read_text(), f"axe.min.js has the checksum {checksum}, and axe/README.md names another one"
    return source.decode()


class Browser:
    """One browser with a profile of its own in `folder`. `key` is the SHA-256 of a server's public key that it believes."""

    def __init__(self, folder, pictures, key=None):
        self.folder, self.pictures, self.ended = folder, pictures, False
        self.net_log = folder / "net.json"
        options = Options()
        options.binary_location = chromium()
        flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={self.net_log}"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        flags += [f"--ignore-certificate-errors-spki-list={key}"] if key else []
        for one in flags:
            options.add_argument(one)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        self.driver.set_script_timeout(60)
        self.driver.set_page_load_timeout(60)
        self.scripts = []
        self.size(*WIDE)
        self.scheme("light")

    def cdp(self, command, **arguments):
        return self.driver.execute_cdp_cmd(command, arguments)

    def open(self, url):
        self.driver.get(url)

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def size(self, width, height):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def scheme(self, scheme, motion="no-preference"):
        """The system's setting: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def scripting(self, on):
        self.cdp("Emulation.setScriptExecutionDisabled", value=not on)

    def at_start(self, script):
        """Runs a script in each page before the page's own, until `reset`."""
        self.scripts.append(self.cdp("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"])

    def reset(self):
        """As for a new reader: no page, no storage, light, wide, with scripts."""
        for one in self.scripts:
            self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=one)
        self.scripts = []
        self.scripting(True)
        self.open("about:blank")
        self.cdp("Network.clearBrowserCache")
        self.cdp("Network.clearBrowserCookies")
        self.size(*WIDE)
        self.scheme("light")
        self.driver.get_log("browser")
        self.driver.get_log("performance")

    def until(self, what, script, *arguments, patience=60):
        """Waits until a script gives something."""
        end = time.monotonic() + patience
        while True:
            value = self.js(script, *arguments)
            if value:
                return value
            assert time.monotonic() < end, f"waited in vain: {what}; the page says {self.js('return document.body.innerText')[:600]!r}"
            time.sleep(0.1)

    def keys(self, *names):
        """Presses keys: Tab, Enter, Escape, ArrowDown, or one character."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35}
        for name in names:
            shift, name = name.startswith("Shift+"), name.removeprefix("Shift+")
            key = {"key": " " if name == "Space" else name, "modifiers": 8 if shift else 0, "windowsVirtualKeyCode": codes.get(name, ord(name[0]))}
            text = {"Enter": "\r", "Space": " "}.get(name) or (name if len(name) == 1 else None)
            self.cdp("Input.dispatchKeyEvent", type="keyDown", **key, **({"text": text} if text else {}))
            self.cdp("Input.dispatchKeyEvent", type="keyUp", **key)

    def picture(self, name, whole=False):
        """A screenshot in the folder of pictures; of the whole page, not of the window alone."""
        image = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **({"clip": self._whole()} if whole else {}))
        path = self.pictures / f"{name}.png"
        path.write_bytes(base64.b64decode(image["data"]))
        return path

    def _whole(self):
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}

    def complaints(self):
        """What the console says since the last call: errors of scripts, refused by the Content-Security-Policy, failed requests."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")
                if entry["level"] in ("SEVERE", "WARNING")]

    def content(self, what="no complaints of the console"):
        """Fails where the console has complained since the last call of `complaints`."""
        found = self.complaints()
        assert not found, f"{what}: {found}"

    def requests(self):
        """URLs that pages asked for since the last call, with the way they were asked for."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append((message["params"]["request"]["url"], message["params"].get("type")))
        return [one for one in found if not one[0].startswith(("data:", "about:", "blob:"))]

    def accessibility(self):
        """What axe-core finds: a line for each element."""
        self.js(axe())
        result = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(found => done(found.violations), error => done(String(error)))")
        assert isinstance(result, list), result
        return [f"{rule['id']} ({rule['impact']}): {rule['help']}: {node['html'][:200]} {node['failureSummary']}" for rule in result for node in rule["nodes"]]

    def timing(self):
        """The browser's own times of the page since its navigation began, in ms."""
        return self.js("""
            const [page] = performance.getEntriesByType('navigation');
            const paints = Object.fromEntries(performance.getEntriesByType('paint').map(entry => [entry.name, entry.startTime]));
            return {paint: paints['first-contentful-paint'] ?? null, answer: page.responseEnd, ready: page.domContentLoadedEventEnd,
                    load: page.loadEventEnd, bytes: page.transferSize + performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)};""")

    def processes(self):
        """The ids of the browser's processes."""
        family, parents = {self.driver.service.process.pid}, {}
        for one in Path("/proc").iterdir():
            if one.name.isdigit():
                try:
                    parents[int(one.name)] = int((one / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
        while True:
            more = {pid for pid, parent in parents.items() if parent in family} - family
            if not more:
                return family - {self.driver.service.process.pid}
            family |= more

    def frozen(self, seconds):
        """Freezes the page, as the browser does with a tab that nobody looks at for long: no script of it runs."""
        self.cdp("Page.setWebLifecycleState", state="frozen")
        time.sleep(seconds)
        self.cdp("Page.setWebLifecycleState", state="active")
        # Chromium shows the tab again only once another one is left.
        tab = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        self.driver.close()
        self.driver.switch_to.window(tab)
        self.cdp("Page.bringToFront")

    def downloads(self, folder):
        """What pages save goes to this folder."""
        self.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def sleep(self, seconds):
        """Stops the whole browser, as a notebook does whose lid is closed."""
        stopped = self.processes()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def quit(self):
        if not self.ended:
            self.ended = True
            self.driver.quit()

    def asked(self):
        """By the browser's log of its network: the addresses it has connected to, and the origins that pages have asked. Only after `quit`.
        Requests of the browser's own services, which no flag stops, end at the resolver: they have no page and no connection."""
        text = self.net_log.read_text(errors="replace")
        try:
            log = json.loads(text)
        except ValueError:
            # A log that was not closed lacks its end.
            log = json.loads(text.rstrip().rstrip(",") + "]}")
        names = {number: name for name, number in log["constants"]["logEventTypes"].items()}
        hosts = set()
        for event in log["events"]:
            kind, parameters = names[event["type"]], event.get("params") or {}
            if kind == "TCP_CONNECT_ATTEMPT" and "address" in parameters:
                hosts.add(urlsplit(f"//{parameters['address']}").hostname)
            elif kind == "URL_REQUEST_START_JOB" and "://" in parameters.get("initiator", ""):
                hosts.add(urlsplit(parameters["url"]).hostname)
        return hosts
