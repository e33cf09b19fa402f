"""The command `candles`."""

from __future__ import annotations

import pytest

from btc_assets.market_data.candles import create_optional_candles, refresh_candles
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every


@pytest.fixture
def loaded(store: StoreUnderTest) -> StoreUnderTest:
    store.land(every(10, 90))
    store.ingest(HOUR)
    return store


def test_candles_of_the_newest_day_are_printed_as_csv(loaded: StoreUnderTest) -> None:
    header, *rows = run_command("candles", "5m").output.splitlines()
    assert header.split(",")[:6] == ["bucket", "open", "high", "low", "close", "volume"] and "symbol" not in header
    assert [row.split(",")[0] for row in rows] == ["2024-01-10T12:00:00Z", "2024-01-10T12:05:00Z", "2024-01-10T12:10:00Z"]
    assert rows[0].split(",")[1] == "42000.00000000"  # exact, as the store has it


@pytest.mark.parametrize(
    ("interval", "starts"), [("15m", ["12:00:00"]), ("90s", ["12:00:00", "12:01:30", "12:03:00"]), ("day", ["00:00:00"])]
)
def test_candles_of_any_interval_are_printed(loaded: StoreUnderTest, interval: str, starts: list[str]) -> None:
    _, *rows = run_command("candles", interval).output.splitlines()
    assert [row.split(",")[0] for row in rows][: len(starts)] == [f"2024-01-10T{start}Z" for start in starts]


def test_an_interval_that_cannot_be_built_is_one_sentence(loaded: StoreUnderTest) -> None:
    for interval in ("7ms", "soon"):
        result = run_command("candles", interval)
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1, result.output


def test_a_range_without_candles_is_one_sentence(loaded: StoreUnderTest) -> None:
    result = run_command("candles", "1m", "--from", "2024-02-01", "--to", "2024-02-02")
    assert result.exit_code == 1
    assert "There are no 1m candles of BTCUSDT from 2024-02-01T00:00Z to 2024-02-02T00:00Z: load that range first" in result.output


def test_times_have_a_fraction_only_for_candles_shorter_than_a_second(loaded: StoreUnderTest) -> None:
    create_optional_candles(loaded.connection)
    refresh_candles(loaded.connection, "100ms", HOUR)
    assert run_command("candles", "100ms").output.splitlines()[1].startswith("2024-01-10T12:00:00.000Z,42000.00000000,")


def test_figures_have_no_zeros_after_their_eighth_decimal(loaded: StoreUnderTest) -> None:
    header, first, *_ = (line.split(",") for line in run_command("candles", "5m").output.splitlines())
    row = dict(zip(header, first, strict=True))
    assert {len(row[name].partition(".")[2]) for name in ("open", "volume", "quote_volume", "taker_buy_quote_volume")} == {8}
