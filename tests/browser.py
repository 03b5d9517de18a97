"""A page in headless Chromium, driven over its debugging protocol with the standard library alone."""

import base64
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

START_S = 30.0
KEYS = {
    "ArrowDown": (40, ""),
    "ArrowUp": (38, ""),
    "Escape": (27, ""),
    "Enter": (13, "\r"),
    " ": (32, " "),
}
"""Codes of keys, and the text that they write."""


class ProtocolError(AssertionError):
    """The browser does not do what it was asked for."""


class Tab:
    """The tab of a browser."""

    def __init__(self, address: str) -> None:
        host, _, path = address.removeprefix("ws://").partition("/")
        name, _, port = host.partition(":")
        self._socket = socket.create_connection((name, int(port)), START_S)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET /{path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        self._file = self._socket.makefile("rb")
        while self._file.readline().strip():
            pass
        self._count = 0

    def _message(self) -> Any:
        text = b""
        while True:
            first, size = self._file.read(2)
            size &= 127
            if size >= 126:
                form = ">H" if size == 126 else ">Q"
                (size,) = struct.unpack(form, self._file.read(struct.calcsize(form)))
            text += self._file.read(size)
            if first & 128:
                return json.loads(text)

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a method of the protocol."""
        self._count += 1
        text = json.dumps({"id": self._count, "method": method, "params": parameters}).encode()
        size = bytes([128 | len(text)]) if len(text) < 126 else bytes([254]) + struct.pack(">H", len(text))
        self._socket.sendall(b"\x81" + size + b"\0\0\0\0" + text)
        while (answer := self._message()).get("id") != self._count:
            pass
        if "error" in answer:
            raise ProtocolError(answer)
        return answer["result"]

    def value(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, code: str, seconds: float = START_S) -> Any:
        """The value of an expression, as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := self._value_once_there(code)):
            assert time.monotonic() < end, f"{code} is never true"
            time.sleep(0.02)
        return found

    def _value_once_there(self, code: str) -> Any:
        """As `value`; None while one page gives way to another."""
        try:
            return self.value(code)
        except ProtocolError as error:
            if "context" not in str(error):
                raise
            return None

    def click(self, selector: str, number: int = 0) -> None:
        """Clicks into the middle of an element, as a mouse does."""
        code = f"(() => {{ const e = document.querySelectorAll({json.dumps(selector)})[{number}];"
        code += "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
        x, y = self.value(code + "return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Presses a key: a letter, or one of `KEYS`."""
        code, text = KEYS.get(key, (ord(key.upper()) if len(key) == 1 else 0, key))
        named = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def type(self, text: str) -> None:
        """Writes into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def go(self, address: str) -> None:
        """Opens another page."""
        self.call("Page.navigate", url=address)
        self.wait(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def downloads(self, folder: Path) -> None:
        """Saves what is downloaded from now on into a folder."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def picture(self, path: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Writes what the page looks like, as PNG."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        time.sleep(0.5)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def opened(page: Path | str, home: Path) -> Iterator[Tab]:
    """The page from the disk, or of an address; skips the test where there is no Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("Chromium is not installed")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", "--no-first-run"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={home}"]
    options.append(page if isinstance(page, str) else page.absolute().as_uri())
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    browser = subprocess.Popen([program, *options], **quiet)
    try:
        yield Tab(_address(home))
    finally:
        browser.terminate()
        browser.wait(START_S)


def _address(home: Path) -> str:
    """Where the tab listens."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError, StopIteration, IndexError):
            port = (home / "DevToolsActivePort").read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                tabs = json.load(answer)
            return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        time.sleep(0.05)
    pytest.skip("Chromium does not start here")
    raise AssertionError
