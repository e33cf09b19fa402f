"""What is told of a day: the worst that holds of it, on each engine, also once its ticks were dropped."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg
import pyarrow as pa
import pytest

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.ops.coverage import DayCoverage, read_coverage
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.trades import NOON, every

MIDNIGHT = floor_day(NOON)
WHOLE = Window(MIDNIGHT, MIDNIGHT + DAY)
LATER = NOON + 30 * DAY

_RECORD = """
INSERT INTO market_data.loaded_slices
SELECT bucket_5m, symbol, count(*), min(trade_id), max(trade_id), bit_xor(trade_id), count(*), 0, 0, 0, 0 FROM market_data.btc_ticks GROUP BY 1, 2
"""


def load(connection: psycopg.Connection, *, seconds: int = 100, skip: range = range(0)) -> None:
    """A day with a trade each `seconds`, without some of them, as a load leaves it."""
    ticks = every(seconds, -(-DAY // timedelta(seconds=seconds)), start=MIDNIGHT)
    ticks = ticks.take([row for row in range(len(ticks)) if row not in skip])
    write_candles(connection, write_ticks(connection, ticks))
    connection.execute(_RECORD)


def cover(connection: psycopg.Connection, window: Window = WHOLE, now: datetime = LATER) -> list[DayCoverage]:
    return list(read_coverage(connection, window, now=now))


def test_a_whole_day_is_complete_before_and_dropped_after_retention(on_each_engine: psycopg.Connection) -> None:
    load(on_each_engine)
    [found] = cover(on_each_engine)
    assert (found.state, found.slices, found.loaded, found.missing, found.gaps, found.ticks) == ("complete", 288, 288, 0, 0, 864)
    on_each_engine.execute("SELECT ops.drop_chunk('market_data.btc_ticks', %s, %s)", (MIDNIGHT, MIDNIGHT + DAY))
    [found] = cover(on_each_engine)
    assert (found.state, found.dropped, found.ticks) == ("dropped", True, 864)


def test_gaps_are_told_also_of_a_day_whose_ticks_were_dropped(on_postgres: psycopg.Connection) -> None:
    load(on_postgres, skip=range(100, 120))
    [before] = cover(on_postgres)
    assert (before.state, before.gaps, before.missing_trades) == ("gaps", 1, 20)
    on_postgres.execute("SELECT ops.drop_chunk('market_data.btc_ticks', %s, %s)", (MIDNIGHT, MIDNIGHT + DAY))
    [after] = cover(on_postgres)
    assert (after.state, after.dropped, after.missing_trades) == ("gaps", True, 20)


@pytest.mark.parametrize("lost", [range(0), range(100, 120)])
def test_trades_reported_in_the_next_slice_are_no_gap_of_a_day_whose_ticks_were_dropped(
    on_postgres: psycopg.Connection, lost: range
) -> None:
    ticks = every(100, 864, start=MIDNIGHT)
    ids = ticks["trade_id"].to_pylist()
    for last in range(2, 860, 9):  # the last trade of every third slice and the first one of the next have each other's ids
        ids[last], ids[last + 1] = ids[last + 1], ids[last]
    ticks = ticks.set_column(ticks.schema.get_field_index("trade_id"), "trade_id", pa.array(ids))
    write_candles(on_postgres, write_ticks(on_postgres, ticks.take([row for row in range(864) if row not in lost])))
    on_postgres.execute(_RECORD)
    [before] = cover(on_postgres)
    on_postgres.execute("SELECT ops.drop_chunk('market_data.btc_ticks', %s, %s)", (MIDNIGHT, MIDNIGHT + DAY))
    [after] = cover(on_postgres)
    assert before.missing_trades == after.missing_trades == len(lost)
    assert (before.state, after.state) == (("gaps", "gaps") if lost else ("complete", "dropped"))


def test_a_slice_in_which_nobody_traded_is_no_gap_where_ids_say_so(on_postgres: psycopg.Connection) -> None:
    load(on_postgres, seconds=307)
    [found] = cover(on_postgres)
    assert (found.state, found.missing, found.gaps) == ("complete", 288 - 282, 0)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("UPDATE landing.raw_blobs_5m SET loaded_at = NULL WHERE bucket_5m = %s", "pending"),
        ("UPDATE landing.raw_blobs_5m SET status = 'rejected', reason = 'damaged', loaded_at = NULL WHERE bucket_5m = %s", "rejected"),
    ],
)
def test_what_is_not_loaded_is_told_first(on_postgres: psycopg.Connection, change: str, state: str) -> None:
    load(on_postgres)
    on_postgres.execute(change, (NOON,))
    assert [found.state for found in cover(on_postgres)] == [state]


def test_a_day_within_which_a_symbol_begins_is_partial_and_one_without_it_nothing(on_postgres: psycopg.Connection) -> None:
    write_ticks(on_postgres, every(100, 300, start=NOON))
    on_postgres.execute(_RECORD)
    assert [found.state for found in cover(on_postgres, Window(MIDNIGHT - DAY, MIDNIGHT + DAY))] == ["nothing", "partial"]


def test_a_day_is_told_as_far_as_it_is_over(on_postgres: psycopg.Connection) -> None:
    load(on_postgres)
    [found] = cover(on_postgres, Window(MIDNIGHT, MIDNIGHT + 2 * DAY), NOON + SLICE / 2)
    assert (found.state, found.slices) == ("complete", 144)
    assert cover(on_postgres, WHOLE, MIDNIGHT) == []
