"""Text as other people's programs write it, which was once read wrongly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.producers import read

DAY = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("excel.csv", "trade_time '1.79514E+12' is not a time"),
        ("percent_g.csv", "trade_id '5.803e+09' is not a 64-bit integer"),
    ],
)
def test_ids_and_times_that_lost_digits_to_an_exponent_are_no_trades(name: str, reason: str) -> None:
    result = read(case_file("04-scientific-notation", name))
    assert len(result.ticks) == 0
    assert result.rejected == [(number, reason) for number in range(1, 121)]


def test_times_that_end_in_utc_are_read() -> None:
    result = read(case_file("06-utc-suffix", "bigquery.csv"))
    assert result.rejected == []
    assert len(result.ticks) == 120
    first = result.ticks.to_pylist()[0]
    assert first["event_time"] == DAY + timedelta(hours=6, milliseconds=74)
    assert first["trade_time"] == DAY + timedelta(hours=6, milliseconds=41)


@pytest.mark.parametrize("name", ["hive.csv", "mysql.csv", "pandas.csv", "r.csv"])
def test_an_order_id_that_a_database_calls_null_is_null(name: str) -> None:
    result = read(case_file("07-null-markers", name))
    assert result.rejected == []
    assert result.ticks["buyer_order_id"].null_count == result.ticks["seller_order_id"].null_count == len(result.ticks) == 30


def test_spaces_after_commas_change_nothing() -> None:
    result = read(case_file("14-space-after-comma", "spaces.csv"))
    assert result.rejected == []
    assert len(result.ticks) == 120


@pytest.mark.parametrize(("name", "rows"), [("BTCUSDT-trades.zip", 40), ("members.csv.gz", 40), ("um.csv", 20), ("um_old.csv", 20)])
def test_the_dumps_of_the_exchange_stay_exact(name: str, rows: int) -> None:
    result = read(case_file("22-dumps", name))
    assert result.rejected == []
    assert len(result.ticks) == rows
