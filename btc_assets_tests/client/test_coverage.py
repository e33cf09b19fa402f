"""Gaps, slices and days that can be trusted, as the store knows them."""

from __future__ import annotations

from datetime import timedelta

import pytest

import btc_assets as btc
from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import SLICE
from btc_assets_tests.client.conftest import FUTURE, SPOT, Market
from btc_assets_tests.support.trades import NOON

DAY = "2024-01-10"


def test_gaps_are_the_ids_that_are_missing(client: btc.ClientStore, market: Market) -> None:
    found = client.gaps(DAY).arrow().to_pylist()
    assert [row["symbol"] for row in found] == [SPOT, FUTURE]
    for row in found:
        ids = sorted(tick["trade_id"] for tick in market.of(row["symbol"]))
        assert set(range(row["first_missing"], row["last_missing"] + 1)) == set(range(ids[0], ids[-1] + 1)) - set(ids)
        assert row["missing"] == row["last_missing"] - row["first_missing"] + 1
        assert row["bucket_5m"] == NOON + 3 * SLICE and row["available_at"] == row["bucket_5m"] + SLICE + timedelta(seconds=90)
    assert client.gaps(DAY, FUTURE).arrow().to_pylist() == found[1:]


@pytest.mark.parametrize("feeds", [f"a=BTCUSDT, b=BTCUSDT:{FUTURE};market=um", "a=BTCUSDT"], ids=["skipped", "unknown"])
def test_ids_that_the_exchange_skips_and_those_of_unknown_feeds_are_not_judged(market: Market, feeds: str) -> None:
    settings = load_settings().model_copy(update={"landing_feeds": Feeds.parse(feeds)})
    opened = btc.connect(market.dsn, settings=settings)
    assert opened.gaps(DAY).arrow()["symbol"].to_pylist() == [SPOT]
    with pytest.raises(UserError, match=r"^Which ids of BTCUSDT\.P are missing cannot be told: the exchange"):
        opened.gaps(DAY, FUTURE)
    [row] = opened.coverage(DAY, FUTURE).arrow().to_pylist()
    assert (row["state"], row["gaps"], row["missing_trades"], row["missing"]) == ("gaps", None, None, 1)


def test_slices_are_those_of_the_registry(client: btc.ClientStore, market: Market) -> None:
    found = client.slices((NOON, NOON + 4 * SLICE), SPOT).arrow().to_pylist()
    assert [row["bucket_5m"] for row in found] == [NOON, NOON + SLICE, NOON + 3 * SLICE]
    assert [row["loaded_rows"] for row in found] == [
        sum(tick["bucket_5m"] == row["bucket_5m"] for tick in market.of(SPOT)) for row in found
    ]
    assert {(row["symbol"], row["state"]) for row in found} == {(SPOT, "loaded")}
    assert client.slices(DAY).arrow().num_rows == 34 and client.slices(DAY).head(3).num_rows == 3


def test_coverage_has_a_row_for_each_day_and_symbol(client: btc.ClientStore, market: Market) -> None:
    found = client.coverage(("2024-01-09", "2024-01-12")).arrow().to_pylist()
    assert [(row["day"].day, row["symbol"], row["state"]) for row in found] == [
        (9, SPOT, "nothing"), (9, FUTURE, "nothing"), (10, SPOT, "gaps"), (10, FUTURE, "gaps"), (11, SPOT, "nothing"), (11, FUTURE, "nothing"),
    ]  # fmt: skip
    [row] = client.coverage(DAY, SPOT).arrow().to_pylist()
    assert (row["slices"], row["loaded"], row["missing"], row["pending"], row["gaps"]) == (288, 17, 1, 0, 1)
    assert (row["missing_trades"], row["ticks"], row["dropped"]) == (
        client.gaps(DAY, SPOT).arrow()["missing"][0].as_py(),
        len(market.of(SPOT)),
        False,
    )


def test_the_days_to_come_are_not_told(client: btc.ClientStore) -> None:
    assert client.coverage(("2024-01-10", "2999-01-01")).head(2).num_rows == 2
