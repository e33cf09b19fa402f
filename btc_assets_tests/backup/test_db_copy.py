"""A store is copied to another server, of either engine, and both are proved equal day by day."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from btc_assets.backup.db_copy import Part, copy_database
from btc_assets.cli.main import main
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE, floor_day
from btc_assets.market_data import candles
from btc_assets.signals.encoders import models
from btc_assets.signals.search.similar import find_similar_slices
from btc_assets_tests.support.databases import read_candles, write_candles, write_ticks
from btc_assets_tests.support.stores import StoreUnderTest, temporary_database
from btc_assets_tests.support.trades import HOUR, NOON, every
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

pytestmark = pytest.mark.slow

TICKS = "SELECT * FROM market_data.btc_ticks ORDER BY bucket_5m, symbol, trade_id"
REGISTRY = "SELECT * FROM landing.raw_blobs_5m ORDER BY bucket_5m, asset, uri, etag"


@pytest.fixture
def source(on_postgres: psycopg.Connection) -> psycopg.Connection:
    """A plain store of two days, with a rejected row; the ticks of the first day were dropped since their candles were made."""
    yesterday = NOON - DAY
    write_candles(on_postgres, write_ticks(on_postgres, every(1, 900, start=yesterday)))
    write_candles(on_postgres, write_ticks(on_postgres, every(1, 900, first_id=901)))
    on_postgres.execute("INSERT INTO landing.rejected_rows VALUES ('file:///x', 'e', 1, %s, 'price is null', '{}')", (NOON,))
    on_postgres.execute("INSERT INTO ingestion.stream_offsets (source, last_sequence) VALUES ('market_data.btc_ticks/BTCUSDT', 1800)")
    on_postgres.execute("SELECT ops.drop_chunk('market_data.btc_ticks', %s, %s)", (floor_day(yesterday), floor_day(NOON)))
    return on_postgres


def copied(source: psycopg.Connection, target: psycopg.Connection) -> list[Part]:
    return list(copy_database(source, target))


def test_an_embedded_store_moves_to_timescaledb_including_candles_whose_ticks_are_gone(
    source: psycopg.Connection, on_timescale: psycopg.Connection
) -> None:
    parts = copied(source, on_timescale)
    assert {(part.table, part.day and part.day.day, part.rows) for part in parts if "candle" not in part.table} == {
        ("ingestion.stream_offsets", None, 1), ("landing.raw_blobs_5m", 9, 3), ("landing.raw_blobs_5m", 10, 3),
        ("landing.rejected_rows", 10, 1), ("market_data.btc_ticks", 10, 900), ("signals.models", None, 0),
        ("landing.acknowledgements", None, 0), ("landing.strays", None, 0),
    }  # fmt: skip
    assert all(part.copied for part in parts if part.rows)
    for statement in (TICKS, REGISTRY, "SELECT * FROM landing.rejected_rows", "SELECT * FROM ingestion.stream_offsets"):
        assert on_timescale.execute(statement).fetchall() == source.execute(statement).fetchall()
    assert read_candles(on_timescale) == read_candles(source)
    assert sum(row[9] for row in read_candles(on_timescale)["1m"]) == 1800


def test_models_move_with_their_vectors_and_answer_on_the_new_server(
    on_postgres: psycopg.Connection, on_timescale: psycopg.Connection
) -> None:
    model = registered_model(on_postgres)
    write_vectors(on_postgres, model, market_like(300, model.dim, states=3), NOON, missing=(7,))
    models.activate_model(on_postgres, model)
    copied(on_postgres, on_timescale)
    assert models.read_models(on_timescale) == models.read_models(on_postgres)
    assert [one.bucket_5m for one in find_similar_slices(on_timescale, NOON)] == [
        one.bucket_5m for one in find_similar_slices(on_postgres, NOON)
    ]
    assert not any(part.copied for part in copied(on_postgres, on_timescale))


def test_candles_behave_as_before_on_the_new_server(source: psycopg.Connection, on_timescale: psycopg.Connection) -> None:
    copied(source, on_timescale)
    on_timescale.execute("UPDATE market_data.btc_ticks SET quantity = 1 WHERE bucket_5m = %s", (NOON,))
    write_candles(on_timescale, HOUR)
    assert candles.find_outdated_candles(on_timescale, HOUR) == []
    with pytest.raises(UserError, match="were dropped since they were loaded"):
        candles.refresh_candles(on_timescale, "1s", HOUR.widened(DAY))
    assert sum(row[9] for row in read_candles(on_timescale)["1m"]) == 1800


def test_a_second_copy_writes_only_what_is_new_or_differs(source: psycopg.Connection, on_timescale: psycopg.Connection) -> None:
    copied(source, on_timescale)
    assert not any(part.copied for part in copied(source, on_timescale))
    write_candles(source, write_ticks(source, every(1, 300, start=NOON + 3 * SLICE, first_id=1801)))
    on_timescale.execute("DELETE FROM landing.rejected_rows")
    written = {part.table for part in copied(source, on_timescale) if part.copied}
    assert written == {
        "landing.raw_blobs_5m", "landing.rejected_rows", "market_data.btc_ticks", *(f"market_data.candle_partials_{i}" for i in candles.INTERVALS)
    }  # fmt: skip


def test_a_manual_refresh_of_everything_on_the_new_server_keeps_the_copied_candles(
    source: psycopg.Connection, on_timescale: psycopg.Connection
) -> None:
    copied(source, on_timescale)
    before = read_candles(on_timescale)
    for interval in candles.INTERVALS:
        on_timescale.execute(
            "CALL refresh_continuous_aggregate(%s, '2024-01-01', '2024-02-01')", (f"market_data.candle_partials_{interval}",)
        )
    assert read_candles(on_timescale) == before == read_candles(source)


def test_a_copy_resumes_after_the_source_dropped_ticks_that_were_copied(
    source: psycopg.Connection, on_timescale: psycopg.Connection
) -> None:
    copied(source, on_timescale)
    source.execute("SELECT ops.drop_chunk('market_data.btc_ticks', %s, %s)", (floor_day(NOON), floor_day(NOON) + DAY))
    assert not any(part.copied for part in copied(source, on_timescale))
    assert on_timescale.execute("SELECT count(*) FROM market_data.btc_ticks").fetchone() == (900,)


def test_optional_candles_move_too(source: psycopg.Connection, on_timescale: psycopg.Connection) -> None:
    candles.create_optional_candles(source)
    candles.refresh_candles(source, "100ms", HOUR)
    copied(source, on_timescale)
    statement = "SELECT * FROM market_data.candles_100ms ORDER BY bucket"
    rows = on_timescale.execute(statement).fetchall()
    assert len(rows) == 900 and rows == source.execute(statement).fetchall()


def test_a_target_with_other_days_is_left_alone(source: psycopg.Connection, on_timescale: psycopg.Connection) -> None:
    write_ticks(on_timescale, every(1, 10, start=NOON + timedelta(days=30)))
    with pytest.raises(
        UserError, match=r"holds rows of landing\.raw_blobs_5m on 2024-02-09 that the source does not have: copy into a new"
    ):
        copied(source, on_timescale)


def test_candles_that_do_not_match_their_ticks_are_named(source: psycopg.Connection, on_timescale: psycopg.Connection) -> None:
    source.execute("UPDATE market_data.candle_partials_1s SET volume = volume + 1 WHERE tick_bucket = %s", (NOON,))
    with pytest.raises(UserError) as raised:
        copied(source, on_timescale)
    assert str(raised.value) == (
        "market_data.candle_partials_1s on 2024-01-10 has 900 rows on the source and 900 other rows after copying: rebuild its candles on the "
        "source (btc-assets load) and copy once more."
    )


def test_a_store_is_not_copied_onto_itself(store: StoreUnderTest) -> None:
    with store.connect() as other, pytest.raises(UserError, match="is the source itself: name another database"):
        copied(store.connection, other)


def test_the_command_shows_what_is_equal_and_writes_a_report(store: StoreUnderTest, server_dsn: str, tmp_path: Path) -> None:
    store.land(every(1, 600))
    store.ingest(HOUR)
    with temporary_database(server_dsn) as target:
        result = CliRunner().invoke(main, ["db", "copy", "--to", target, "--report", str(tmp_path / "copied.csv")])
        assert result.exit_code == 0, result.output
        assert "Equal at" in result.output and "market_data.btc_ticks" in result.output
        lines = (tmp_path / "copied.csv").read_text().splitlines()
        assert lines[0] == "table,day,rows,checksum"
        assert any(line.startswith("market_data.btc_ticks,2024-01-10,600,") for line in lines)
        with psycopg.connect(target, options="-c timezone=UTC") as connection:
            assert connection.execute(TICKS).fetchall() == store.rows(TICKS)
