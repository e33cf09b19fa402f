"""Copying a store to another server, and proving that the copy is equal: `btc-assets db copy`.

Each day is one transaction on the target. A day that is already equal is skipped, so an interrupted copy resumes where it stopped,
and a later copy adds only what is new. The source is read in one snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import LiteralString

import psycopg
from psycopg import sql

from btc_assets.backup.digests import Columns, read_digest, stored_columns
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, Window
from btc_assets.domain.tables import TICKS
from btc_assets.market_data import candles
from btc_assets.store.compressed import lift_decompression_limit
from btc_assets.store.database import identifier, location, only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.locks import lock_slices, lock_table
from btc_assets.store.migrations import migrate, migration_status

_SLICED: LiteralString = """
SELECT format('%s.%s', nspname, relname), EXISTS (
    SELECT 1 FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'bucket_5m' AND NOT attisdropped
)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname IN ('landing', 'market_data', 'signals', 'ingestion') AND relkind IN ('r', 'p') AND NOT relispartition
  AND relname !~ '^candle_' AND relname NOT IN ('embedding_indexes', 'objects_being_read')  -- the target has its own
ORDER BY 2, 1  -- models first, because a model's row creates the table of its embeddings
"""


@dataclass(frozen=True)
class Part:
    """What is copied and compared in one step: a day of a table, or all of a table without slices.

    Attributes:
        table: `schema.table`.
        day: the UTC day; None for all of the table.
        rows: number of rows on the source.
        checksum: of those rows, in any order.
        copied: whether the target was written; False if it was equal before.
    """

    table: str
    day: date | None
    rows: int
    checksum: int
    copied: bool


@dataclass(frozen=True)
class _Table:
    name: str
    columns: Columns
    slice_column: str | None
    storage: str  # the table that rows are written to on the target; for candles, the table below the view
    level: str | None = None  # the interval of candles

    @property
    def names(self) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(name) for name, _ in self.columns)


def copy_database(
    source: psycopg.Connection, target: psycopg.Connection, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Part]:
    """Copy the source to the target, and compare both.

    The target builds candles from its own ticks, which proves its engine as well. Candles whose ticks were dropped are copied.

    Args:
        source: to the store, in autocommit mode and UTC.
        target: to another database, in autocommit mode and UTC; it is migrated first.
        progress: called with the number of parts done so far, and of all parts.

    Yields:
        Each part once it is equal on both sides.

    Raises:
        UserError: the target holds rows that the source does not have, the source lacks migrations, or a part differs in the end.
    """
    with server_errors():
        _require_two_databases(source, target)
        if any(state.pending or state.problem for state in migration_status(source)):
            raise UserError(f"The database at {location(source.info.dsn)} is not up to date: run btc-assets db migrate there first.")
        migrate(target)
        for connection in (source, target):
            connection.execute("SET datestyle = 'ISO'")
        with source.transaction():
            source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            tables = [*_plain_tables(source), *_candle_tables(source, target)]
            parts = [(table, day) for table in tables for day in _days(source, target, table)]
            for done, (table, day) in enumerate(parts):
                progress(done, len(parts))
                yield _copy_part(source, target, table, day)
            progress(len(parts), len(parts))


def _require_two_databases(source: psycopg.Connection, target: psycopg.Connection) -> None:
    same: LiteralString = (
        "SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    if source.execute(same).fetchone() == target.execute(same).fetchone():
        raise UserError(f"{location(target.info.dsn)} is the source itself: name another database with --to.")


def _plain_tables(source: psycopg.Connection) -> Iterator[_Table]:
    for name, sliced in source.execute(_SLICED).fetchall():
        yield _Table(name, stored_columns(source, name), "bucket_5m" if sliced else None, name)


def _candle_tables(source: psycopg.Connection, target: psycopg.Connection) -> Iterator[_Table]:
    for level, width in source.execute("SELECT name, width FROM market_data.candle_levels ORDER BY width").fetchall():
        if level not in candles.INTERVALS:
            target.execute("CALL market_data.create_candles(%s, %s)", (level, width))
        name = f"market_data.candle_partials_{level}"
        (storage,) = only_row(target.execute("SELECT market_data.candle_storage(%s)", (level,)))
        yield _Table(name, stored_columns(source, name), "tick_bucket", storage, level)


def _days(source: psycopg.Connection, target: psycopg.Connection, table: _Table) -> list[datetime | None]:
    """Midnights of the days on which the source has rows of a table; [None] for a table without slices."""
    if table.slice_column is None:
        return [None]
    statement = sql.SQL("SELECT DISTINCT date_trunc('day', {}, 'UTC') FROM {} ORDER BY 1").format(
        sql.Identifier(table.slice_column), identifier(table.name)
    )
    days = [day for (day,) in source.execute(statement)]
    extra = {day for (day,) in target.execute(statement)} - set(days)
    if table.name == TICKS:  # copied before the source dropped them; the target's own retention drops them
        extra = {day for day in extra if not _dropped(source, day)}
    if extra:
        raise UserError(
            f"{location(target.info.dsn)} holds rows of {table.name} on {min(extra):%Y-%m-%d} that the source does not have: copy into a new "
            "database, or empty that one."
        )
    return days


def _copy_part(source: psycopg.Connection, target: psycopg.Connection, table: _Table, day: datetime | None) -> Part:
    wanted = _read_digest(source, table, day)
    copied = _read_digest(target, table, day) != wanted
    if copied:
        if table.level is None:
            _copy_rows(source, target, table, day)
        else:
            assert day is not None
            _build_candles(source, target, table, day, table.level)
        _require_equal(wanted, _read_digest(target, table, day), table, day)
    return Part(table.name, day and day.date(), *wanted, copied)


def _build_candles(source: psycopg.Connection, target: psycopg.Connection, table: _Table, day: datetime, level: str) -> None:
    """Build the candles of a day from its ticks or the level below; if the ticks were dropped, copy the lowest level.

    They are built even then: TimescaleDB takes the day as done, and leaves it alone when somebody refreshes everything.
    """
    target.execute("CALL market_data.make_candle_partials(%s, %s, %s)", (level, day, day + DAY))
    if candles.interval_below(level) is None and _dropped(target, day):
        _copy_rows(source, target, table, day)


def _require_equal(wanted: tuple[int, int], found: tuple[int, int], table: _Table, day: datetime | None) -> None:
    if found == wanted:
        return
    on_day = f" on {day:%Y-%m-%d}" if day else ""
    remedy = (
        "rebuild its candles on the source (btc-assets load) and copy once more"
        if table.level
        else "something else writes to the target; copy once more when nothing does"
    )
    raise UserError(f"{table.name}{on_day} has {wanted[0]} rows on the source and {found[0]} other rows after copying: {remedy}.")


def _dropped(connection: psycopg.Connection, day: datetime) -> bool:
    """Whether ticks of a day were dropped after they were loaded."""
    return connection.execute("SELECT market_data.dropped_ticks(%s, %s) IS NOT NULL", (day, day + DAY)).fetchone() == (True,)


def _copy_rows(source: psycopg.Connection, target: psycopg.Connection, table: _Table, day: datetime | None) -> None:
    """Replace the rows of a part on the target by those of the source."""
    with target.transaction(), target.cursor() as cursor:
        if day is not None:
            lock_table(cursor, table.name, exclusive=True)
            lock_slices(cursor, table.name, Window(day, day + DAY))
            lift_decompression_limit(cursor)
        if table.name == TICKS and day is not None:
            cursor.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (day, day + DAY))
        cursor.execute(sql.SQL("DELETE FROM {} WHERE {}").format(identifier(table.storage), _condition(table, day)))
        out = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT (FORMAT binary)").format(
            table.names, identifier(table.name), _condition(table, day)
        )
        into = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(identifier(table.storage), table.names)
        with source.cursor().copy(out) as read, cursor.copy(into) as write:
            for data in read:
                write.write(data)


def _read_digest(connection: psycopg.Connection, table: _Table, day: datetime | None) -> tuple[int, int]:
    return read_digest(connection, table.name, table.columns, _condition(table, day))


def _condition(table: _Table, day: datetime | None) -> sql.Composable:
    if day is None or table.slice_column is None:
        return sql.SQL("true")
    return sql.SQL("{0} >= {1} AND {0} < {2}").format(sql.Identifier(table.slice_column), sql.Literal(day), sql.Literal(day + DAY))
