"""A real browser, and the processes that it looks at."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

ROOT = Path(__file__).parents[2]
AXE = ROOT / "tests" / "console" / "data" / "axe.min.js"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SECONDS = 30.0
"""How long a page may take to show what it is to show."""

expect.set_options(timeout=SECONDS * 1000)


def launch(playwright: Playwright) -> Browser:
    """Chromium. Skipped where there is none, but not in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    return playwright.chromium.launch(executable_path=found, args=FLAGS)


@contextmanager
def command(*arguments: str, ready: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command of ours until the end of the block, and the line by which it said that it is
    ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runtara_trio", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    output = process.stdout
    assert output is not None
    try:
        while not re.search(ready, line := output.readline()):
            assert line, "it ended"
        reading = threading.Thread(target=output.read)  # or its pipe would be full
        reading.start()
        try:
            yield process, line.strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
            reading.join()
    finally:
        process.kill()
        process.wait(timeout=30)
        output.close()


class Looking:
    """A page, and what must never be on one: errors, and requests to others."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:", "about:")):
            self.elsewhere.append(request.url)

    def go(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def check(self) -> None:
        """No error, no request elsewhere, nothing wider than the window."""
        assert self.errors == []
        assert self.elsewhere == []
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, self.page.url

    def violations(self) -> list[str]:
        """What axe finds."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Page.setBypassCSP", {"enabled": True})
        session.send("Runtime.evaluate", {"expression": f"{AXE.read_text()};0"})
        script = "axe.run(document).then(r => r.violations.map(v => v.id + ': ' + v.nodes[0].html))"
        answer = session.send(
            "Runtime.evaluate",
            {"expression": script, "awaitPromise": True, "returnByValue": True},
        )
        found: list[str] = answer["result"]["value"]
        return found
