"""The first notebook as `make explore` opens it: a person picks a symbol and candles, marks a piece of the picture, and sees what followed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from btc_assets_tests.support.browser import NEEDS_BROWSER, expect, open_page, screenshot, wait_until_it_serves
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [*NEEDS_BROWSER, pytest.mark.xdist_group("docs_store")]
_TOKEN = "secret"


@pytest.fixture
def address(docs_store: StoreUnderTest, tmp_path: Path) -> Iterator[str]:
    """Of the app, without its token, on the store of the examples."""
    port, log = free_port(), tmp_path / "marimo.log"
    command = [sys.executable, "-m", "marimo", "run", str(PROJECT / "notebooks" / "first_look.py"), "--headless", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--token", "--token-password", _TOKEN]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "HOME": str(tmp_path)}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_it_serves(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page(1280, 1500) as page:
        yield page


def test_what_a_person_picks_and_marks_is_shown_and_no_other_host_is_asked(address: str, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}?access_token={_TOKEN}")
    expect(page.get_by_text("5 trades are missing, in one gap")).to_be_visible()
    expect(page.get_by_text("Shaded: what was compared")).to_be_visible()
    screenshot(page, "first look")

    heading = page.get_by_role("heading", name="Slices that looked like")
    before = heading.inner_text()
    picture = page.locator("marimo-matplotlib canvas, marimo-matplotlib img").first.bounding_box()
    assert picture is not None
    left, top = picture["x"] + picture["width"] * 0.8, picture["y"] + picture["height"] * 0.2
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 40, top + 120, steps=5)
    page.mouse.up()
    expect(heading).not_to_have_text(before)
    screenshot(page, "first look, another slice marked")

    page.get_by_label("symbol").select_option("BTCUSDT.P")
    expect(page.get_by_text("No trade is missing.")).to_be_visible()
    expect(page.get_by_text("trains an encoder")).to_be_visible()
    screenshot(page, "first look, a symbol without an encoder")
    assert [url for url in asked if not url.startswith((address, "data:", "blob:", address.replace("http", "ws")))] == []


def test_whoever_lacks_the_token_sees_nothing_of_the_store(address: str, page: Page) -> None:
    page.goto(address)
    expect(page.get_by_role("button", name="Login")).to_be_visible()
    assert "A first look" not in page.content()
