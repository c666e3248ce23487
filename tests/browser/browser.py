"""A real Chromium without a window, driven over WebDriver (chromedriver speaks JSON over HTTP: no
library is needed for it).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.support import PATIENCE, free_port, until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Browser:
    """One window. Everything it started is ended with it."""

    def __init__(self) -> None:
        # Not below the test's own directory: Chromium makes a socket there, and a socket's path
        # must be short.
        self._directory = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        profile = self._directory.name
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        # A session of its own, so that the browser's many processes can be ended as one group.
        self._driver = subprocess.Popen(
            [DRIVER, f"--port={port}", "--log-level=SEVERE"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "HOME": profile, "TMPDIR": profile},
        )  # fmt: skip
        self._session = ""
        try:
            until(self._listens, "chromedriver listens")
            words = [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
            ]
            words += [
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={profile}/profile",
            ]
            options = {"binary": CHROMIUM, "args": words}
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            self._session = (
                "/session/"
                + self._ask("POST", "/session", capabilities={"alwaysMatch": wanted})["sessionId"]
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            if self._session:
                self._ask("DELETE", self._session)
        except OSError:
            pass
        finally:
            try:
                os.killpg(self._driver.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._driver.wait(PATIENCE)
            self._directory.cleanup()

    def _listens(self) -> bool:
        try:
            return bool(self._ask("GET", "/status")["ready"])
        except OSError:
            return False

    def _ask(self, method: str, path: str, **fields: object) -> object:
        data = json.dumps(fields).encode() if method == "POST" else None
        request = urllib.request.Request(
            self._url + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()[:2000]}") from None

    def command(self, name: str, **params: object) -> object:
        """One of the DevTools protocol."""
        return self._ask("POST", self._session + "/goog/cdp/execute", cmd=name, params=params)

    def clear(self, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Leave the page, and forget what was asked for and complained about: as a browser that has
        just been started, with a window of this size.
        """
        self.open("about:blank")
        theme = "dark" if dark else "light"
        self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": theme}],
        )
        # A window is never narrower than 500 pixels; what it shows may be.
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.console()
        self.requests()

    def open(self, url: str) -> None:
        self._ask("POST", self._session + "/url", url=url)

    def run(self, script: str, *words: object) -> object:
        """What the script returns."""
        return self._ask("POST", self._session + "/execute/sync", script=script, args=list(words))

    def text(self, selector: str) -> str:
        """The text that is to be seen."""
        return str(
            self.run(
                "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''",
                selector,
            )
        )

    def shows(self, selector: str, words: str) -> None:
        """Wait until the text is there."""
        end = time.monotonic() + PATIENCE
        while words not in (text := self.text(selector)):
            assert time.monotonic() < end, f"never in {selector}: {words!r}; there is {text!r}"
            time.sleep(0.05)

    def console(self) -> list[str]:
        """What the page and the browser complained about since last asked."""
        return [
            each["message"] for each in self._ask("POST", self._session + "/se/log", type="browser")
        ]

    def requests(self) -> list[str]:
        """Every address the page asked for since last asked."""
        told = [
            json.loads(each["message"])["message"]
            for each in self._ask("POST", self._session + "/se/log", type="performance")
        ]
        return [
            each["params"]["request"]["url"]
            for each in told
            if each["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, path: Path, height: int) -> None:
        """Write what is to be seen to a PNG."""
        clip = {
            "x": 0,
            "y": 0,
            "width": self.run("return innerWidth"),
            "height": height,
            "scale": 1,
        }
        shot = self.command(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        path.write_bytes(base64.b64decode(shot["data"]))
