"""Headless Chromium, driven through Debian's chromedriver by plain HTTP (https://www.w3.org/TR/webdriver2/)."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
MISSING = None if DRIVER and BROWSER else "needs Debian's chromium and chromium-driver"
_SECONDS = 30.0
_opener = build_opener(ProxyHandler({}))


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        _call(f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that the script returns."""
        return _call(f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def wait_for(self, condition: str) -> Any:
        """The value of a JavaScript expression, as soon as it is true."""
        until = time.monotonic() + _SECONDS
        while not (found := self.run(f"return {condition}")):
            assert time.monotonic() < until, (
                f"{condition} did not come true: {self.run('return document.body.innerText')}"
            )
            time.sleep(0.05)
        return found

    def click(self, selector: str) -> None:
        """As a person does: fails where something lies over it."""
        found = _call(f"{self._session}/element", {"using": "css selector", "value": selector})
        _call(f"{self._session}/element/{next(iter(found.values()))}/click", {})

    def write(self, selector: str, text: str) -> None:
        """Replace what a field holds."""
        self.run("const field = document.querySelector(arguments[0]); field.value = arguments[1]", selector, text)

    def phone(self, width: int, height: int) -> None:
        """Look through a small screen that is touched."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        self._devtools("Emulation.setDeviceMetricsOverride", screen)

    def desktop(self) -> None:
        """And no longer."""
        self._devtools("Emulation.clearDeviceMetricsOverride", {})

    def _devtools(self, command: str, parameters: dict[str, Any]) -> None:
        _call(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def console(self) -> list[str]:
        """What the browser complained of."""
        return [one["message"] for one in _call(f"{self._session}/se/log", {"type": "browser"})]

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(_call(f"{self._session}/screenshot")))


@contextmanager
def browser(profile: Path, *, language: str = "fr", width: int = 1000, height: int = 900) -> Iterator[Browser]:
    """A fresh Chromium whose person reads that language."""
    assert DRIVER and BROWSER
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        root = f"http://127.0.0.1:{port}"
        _until_ready(root)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
        flags += [f"--window-size={width},{height}", f"--lang={language}", f"--user-data-dir={profile}"]
        options = {"binary": BROWSER, "args": flags, "prefs": {"intl.accept_languages": language}}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        session = f"{root}/session/{_call(f'{root}/session', {'capabilities': wanted})['sessionId']}"
        try:
            yield Browser(session)
        finally:
            _call(session, method="DELETE")
    finally:
        os.killpg(driver.pid, signal.SIGKILL)  # and what is left of the browser that it started
        driver.wait(10)


def _until_ready(root: str) -> None:
    for _ in range(200):
        try:
            if _call(f"{root}/status")["ready"]:
                return
        except URLError:
            pass
        time.sleep(0.05)
    raise AssertionError("chromedriver did not start")


def _call(url: str, body: Any = None, *, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _opener.open(request, timeout=150) as response:
            return json.load(response)["value"]
    except HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
