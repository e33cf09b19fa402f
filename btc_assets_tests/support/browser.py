"""A real Chromium for the tests of what people see. Whoever imports this is skipped where there is no browser, and in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page

playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: make test-browser installs it")
expect = playwright.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync"]  # fmt: skip
_SCREENSHOTS = PROJECT / ".btc_assets" / "screenshots"
_shots = count(1)

NEEDS_BROWSER = [
    pytest.mark.skipif("CI" in os.environ, reason="the browser test is for a person's machine, not for continuous integration"),
    pytest.mark.skipif(CHROMIUM is None, reason="the browser test needs chromium on the PATH"),
]


@contextmanager
def open_page(width: int = 1500, height: int = 950) -> Iterator[Page]:
    """An empty page."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height}, timezone_id="UTC")
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        yield page
        browser.close()


def screenshot(page: Page, name: str) -> None:
    """Save what the page shows in `.btc_assets/screenshots`."""
    _SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(500)  # until animations are over
    page.screenshot(path=_SCREENSHOTS / f"{next(_shots)} {name}.png")


def wait_until_it_serves(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a server that was started, or for its end, which fails the test with its log."""

    def serves() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(address, timeout=PATIENCE_SECONDS).close()
        except OSError:
            return False
        return True

    wait_for(serves, f"the webserver answers at {address}", interval=0.5)
