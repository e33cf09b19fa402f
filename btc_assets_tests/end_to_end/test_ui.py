"""The web UI as a person uses it: a real Chromium on a real webserver and daemon, from the asset graph to the pictures.

`make test-browser` installs what it needs. The screenshots go to `.btc_assets/screenshots`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day
from btc_assets.simulation.generate_day import generate_day
from btc_assets_tests.support.browser import NEEDS_BROWSER, expect, open_page, screenshot, wait_until_it_serves
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = NEEDS_BROWSER

# The partitions start yesterday, so that the UI draws two days of them and not months.
YESTERDAY = floor_day(datetime.now(UTC)) - DAY
TWO_HOURS = Window(YESTERDAY + timedelta(hours=8), YESTERDAY + timedelta(hours=10))
SLICES = f"[{TWO_HOURS.start:{KEY_FORMAT}}...{TWO_HOURS.end - SLICE:{KEY_FORMAT}}]"


@pytest.fixture
def ui(store: StoreUnderTest) -> Iterator[str]:
    """Address of `btc-assets dev` on a store with two hours of trades landed and nothing registered."""
    store.land(*(hour for number, hour in enumerate(generate_day(YESTERDAY, 240_000)) if number in (8, 9)))
    port = free_port()
    address, log = f"http://127.0.0.1:{port}", store.home.parent / "dev.log"
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "BTC_ASSETS_PARTITIONS_START": f"{YESTERDAY:{KEY_FORMAT}}"}
    with log.open("w") as output:
        command = [sys.executable, "-m", "btc_assets.cli", "dev", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until_it_serves(f"{address}/server_info", process, log)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: webserver, daemon and code server shut down by themselves
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page() as page:
        yield page


def test_a_range_is_backfilled_from_the_asset_graph_and_its_pages_show_rows_columns_and_pictures(
    store: StoreUnderTest, ui: str, page: Page
) -> None:
    page.goto(f"{ui}/asset-groups")
    graph = page.locator("svg").filter(has_text="market_data")
    expect(graph.get_by_text("landing", exact=True)).to_be_visible()
    screenshot(page, "asset graph, rooms")
    graph.get_by_text("market_data", exact=True).click()
    expect(page.get_by_text("candles_1m", exact=True).first).to_be_visible()
    screenshot(page, "asset graph, market_data")

    search = page.locator(".CodeMirror").first
    search.click()
    page.keyboard.type('key:"landing/raw_blobs_5m"+')  # and everything downstream
    page.keyboard.press("Escape")  # closes the suggestions
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Launch runs to materialize 10 assets")).to_be_visible()
    dialog.get_by_placeholder("No matching partitions").fill(SLICES)
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("24 partitions", exact=True)).to_be_visible()
    screenshot(page, "backfill of 24 slices")
    dialog.get_by_role("button", name="Launch backfill").click()

    page.get_by_text("View", exact=True).click()  # in the message that the backfill was created
    expect(page.get_by_text("100% completed", exact=True)).to_have_count(10)
    screenshot(page, "backfill is done")
    assert store.rows("SELECT count(*), count(DISTINCT bucket_5m) FROM market_data.btc_ticks") == [(20_000, 24)]
    assert store.rows("SELECT count(*) FROM dagster.runs") == [(1,)]  # one run for all assets and all slices

    asset_page(page, ui, "btc_ticks", rows="20,000", column="The exchange's number of the trade, strictly +1 within a symbol")
    picture(page, "volume and gaps of BTCUSDT", "btc_ticks, volume")
    asset_page(page, ui, "candles_1m", rows="120", column="Price of the trade with the lowest id")
    picture(page, "candlesticks of BTCUSDT", "candles_1m, candlesticks")
    page.goto(f"{ui}/assets/market_data/btc_ticks?view=partitions")
    expect(page.get_by_text("Materialized (24)")).to_be_visible()
    screenshot(page, "btc_ticks, partitions")


def asset_page(page: Page, ui: str, table: str, *, rows: str, column: str) -> None:
    """Open the page of an asset: it shows the number of rows, the description of a column, and a passing freshness check."""
    page.goto(f"{ui}/assets/market_data/{table}")
    expect(page.get_by_text(rows, exact=True).first).to_be_visible()
    expect(page.get_by_text(column).first).to_be_visible()
    expect(page.get_by_text("Passing").first).to_be_visible()  # freshness; the daemon looks twice a minute
    screenshot(page, f"{table}, overview")


def picture(page: Page, name: str, shot: str) -> None:
    """Open a picture in the metadata of the page: the browser draws it."""
    page.get_by_role("row").filter(has_text=name).get_by_text("[Show Markdown]").click()
    image = page.get_by_role("dialog").get_by_role("img", name=name)
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth") == 960
    screenshot(page, shot)
