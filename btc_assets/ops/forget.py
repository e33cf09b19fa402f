"""Forgetting: what the store holds of a symbol, or of objects that should never have been loaded, is removed from every table.

A day is one transaction, so an interrupted `btc-assets db forget` is continued by the next one. Objects of the landing zone stay.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import LiteralString

import psycopg
from psycopg import sql

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.domain.tables import TICKS
from btc_assets.ingestion.offsets import advance_offsets
from btc_assets.landing import registry
from btc_assets.landing.strays import forget_strays
from btc_assets.signals.encoders.models import read_models, remove_model
from btc_assets.store.compressed import lift_decompression_limit
from btc_assets.store.database import identifier, only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.locks import lock_table
from btc_assets.store.tables import ROOMS

Progress = Callable[[int, int], None]  # days done, days in total

# Every table of the rooms that has a symbol, so that no table of a later release is overlooked. Candles are below views on one engine,
# models own tables, and the registry calls the symbol by another name.
_TABLES: LiteralString = """
SELECT format('%%s.%%s', nspname, relname), bool_or(attname = 'bucket_5m')
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_attribute ON attrelid = pg_class.oid
WHERE nspname = ANY(%s) AND relkind IN ('r', 'p') AND NOT relispartition AND attnum > 0 AND NOT attisdropped
    AND relname !~ '^candle_' AND (nspname, relname) NOT IN (('landing', 'raw_blobs_5m'), ('signals', 'models'))
GROUP BY 1 HAVING bool_or(attname = 'symbol') ORDER BY 1
"""

_DAYS_OF_SYMBOL: LiteralString = """
SELECT DISTINCT date_trunc('day', bucket_5m, 'UTC') FROM landing.raw_blobs_5m WHERE asset = %s
"""

_DAYS_OF_URIS: LiteralString = """
SELECT DISTINCT date_trunc('day', bucket_5m, 'UTC') FROM landing.raw_blobs_5m WHERE uri >= %s AND uri < %s ORDER BY 1
"""

# The slices of a day with objects of a range of URIs: whether ticks come from them, and whether others could not be loaded again.
_SLICES_OF_URIS: LiteralString = """
SELECT bucket_5m, asset, bool_or(loaded_at IS NOT NULL), EXISTS (
    SELECT 1 FROM landing.raw_blobs_5m AS other
    WHERE other.bucket_5m = mine.bucket_5m AND other.asset = mine.asset AND landing.is_source_gone(other.status, other.loaded_at)
        AND NOT (other.uri >= %(first)s AND other.uri < %(end)s)
)
FROM landing.raw_blobs_5m AS mine
WHERE bucket_5m >= %(from)s AND bucket_5m < %(to)s AND uri >= %(first)s AND uri < %(end)s
GROUP BY bucket_5m, asset ORDER BY bucket_5m, asset
"""

_DEMO_ZONES: LiteralString = r"""
SELECT DISTINCT substring(uri FROM '^file://.*/landing_demo_[^/]+(?=/)') FROM landing.raw_blobs_5m
WHERE uri >= 'file:' AND uri < 'file;' AND uri ~ '/landing_demo_[^/]+/' ORDER BY 1
"""


@dataclass
class Forgotten:
    """What was removed.

    Attributes:
        rows: deleted, by table.
        kept: slices that were left as they are, because an object that they were loaded from is gone.
        reload: slices to load again from the objects that remain.
        models: encoders that were removed.
    """

    rows: Counter[str] = field(default_factory=Counter)
    kept: list[datetime] = field(default_factory=list)
    reload: set[datetime] = field(default_factory=set)
    models: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Extent:
    """What would be forgotten: rows of the registry, slices, and ticks that come from them."""

    objects: int
    slices: int
    ticks: int


def uri_range(url: str) -> tuple[str, str]:
    """The half-open range of the URIs below a URL."""
    url = url.rstrip("/")
    return f"{url}/", f"{url}0"  # "0" follows "/"


def read_extent(connection: psycopg.Connection, *, symbol: str | None = None, url: str = "") -> Extent:
    """What the registry holds of a symbol, or of the objects below a URL."""
    first, end = uri_range(url)
    with server_errors():
        row = only_row(
            connection.execute(
                "SELECT count(DISTINCT uri), count(DISTINCT bucket_5m), coalesce(sum(loaded_rows), 0)::bigint FROM landing.raw_blobs_5m "
                "WHERE CASE WHEN %(symbol)s::text IS NULL THEN uri >= %(first)s AND uri < %(end)s ELSE asset = %(symbol)s END",
                {"symbol": symbol, "first": first, "end": end},
            )
        )
    return Extent(*row)


def read_symbols(connection: psycopg.Connection) -> list[str]:
    """The labels that ticks were loaded of, also of feeds that are retired."""
    with server_errors():
        rows = connection.execute(
            "SELECT substr(source, length(%s) + 2) FROM ingestion.stream_offsets WHERE starts_with(source, %s || '/') ORDER BY 1",
            (TICKS, TICKS),
        ).fetchall()
    return [label for (label,) in rows]


def find_demo_zones(connection: psycopg.Connection, landing: str) -> list[str]:
    """URLs of landing zones of demos, other than the store's own, whose objects the registry holds: a demo was loaded into this store."""
    with server_errors():
        return [url for (url,) in connection.execute(_DEMO_ZONES).fetchall() if url != landing.rstrip("/")]


def forget_symbol(connection: psycopg.Connection, symbol: str, progress: Progress = lambda done, total: None) -> Forgotten:
    """Remove all that the store holds of a symbol: registry, ticks, candles, features, vectors, models and offsets.

    Args:
        connection: as the owner of the tables, in autocommit mode.
        symbol: the label of the feed.
        progress: called with days done and in total.
    """
    found = Forgotten()
    with server_errors():
        sliced, plain = _tables(connection)
        days = _days_of(connection, symbol, sliced)
        for done, day in enumerate(days):
            buckets = list(Window(day, day + DAY).slices())
            with connection.transaction(), connection.cursor() as cursor:
                _lock(cursor, sliced)
                _delete(cursor, sliced, symbol, buckets, found)
                found.rows["landing.raw_blobs_5m"] += registry.forget(cursor, symbol, buckets)
            progress(done + 1, len(days))
        with connection.transaction(), connection.cursor() as cursor:
            for table in plain:
                cursor.execute(sql.SQL("DELETE FROM {} WHERE symbol = %s").format(identifier(table)), (symbol,))
                found.rows[table] += cursor.rowcount
            _forget_offsets(cursor, symbol)
            found.models = [model.model_id for model in read_models(connection) if model.symbol == symbol]
            cursor.execute("UPDATE signals.models SET active = false, kept_up = false WHERE symbol = %s", (symbol,))
            for model in read_models(connection):
                if model.symbol == symbol:
                    remove_model(connection, model)
    return found


def forget_objects(connection: psycopg.Connection, url: str, progress: Progress = lambda done, total: None) -> Forgotten:
    """Remove the objects below a URL from the registry, and the slices that were loaded from them, to be loaded again without them.

    A slice that was also loaded from an object that is gone keeps its ticks, because they could not be loaded again.

    Args:
        connection: as the owner of the tables, in autocommit mode.
        url: of what is no landing zone of this store any more.
        progress: called with days done and in total.
    """
    found, uris = Forgotten(), uri_range(url)
    symbols: set[str] = set()
    with server_errors():
        sliced, _ = _tables(connection)
        days = [day for (day,) in connection.execute(_DAYS_OF_URIS, uris).fetchall()]
        for done, day in enumerate(days):
            with connection.transaction(), connection.cursor() as cursor:
                _lock(cursor, sliced)
                limits = {"from": day, "to": day + DAY, "first": uris[0], "end": uris[1]}
                loaded, other = defaultdict[str, list[datetime]](list), defaultdict[str, list[datetime]](list)
                for bucket, symbol, is_loaded, is_protected in cursor.execute(_SLICES_OF_URIS, limits).fetchall():
                    if is_loaded and is_protected:
                        found.kept.append(bucket)
                    else:
                        (loaded if is_loaded else other)[symbol].append(bucket)
                for symbol, buckets in loaded.items():
                    _delete(cursor, sliced, symbol, buckets, found)
                for symbol, buckets in [*loaded.items(), *other.items()]:
                    found.rows["landing.raw_blobs_5m"] += registry.forget(cursor, symbol, buckets, uris)
                for symbol, buckets in loaded.items():
                    registry.unload_slices(cursor, symbol, buckets)
                found.reload |= _unsettled(cursor, [bucket for buckets in loaded.values() for bucket in buckets])
                symbols |= loaded.keys()
            progress(done + 1, len(days))
        forget_strays(connection, uris)
        with connection.transaction(), connection.cursor() as cursor:
            for symbol in sorted(symbols):
                _forget_offsets(cursor, symbol)
                if (newest := cursor.execute(_NEWEST_SLICE, (symbol,)).fetchone()) is not None:
                    advance_offsets(cursor, TICKS, Window.of_slice(newest[0]), {symbol: newest[0]})
    return found


_NEWEST_SLICE: LiteralString = "SELECT bucket_5m FROM market_data.btc_ticks WHERE symbol = %s ORDER BY bucket_5m DESC LIMIT 1"


def _tables(connection: psycopg.Connection) -> tuple[list[str], list[str]]:
    """The tables with rows of a symbol: those with slices, ticks first, and the others."""
    rows = connection.execute(_TABLES, (list(ROOMS),)).fetchall()
    sliced = [table for table, has_slices in rows if has_slices]
    return sorted(sliced, key=lambda table: table != TICKS), [table for table, has_slices in rows if not has_slices]


def _levels(cursor: psycopg.Cursor) -> list[str]:
    return [name for (name,) in cursor.execute("SELECT name FROM market_data.candle_levels ORDER BY width")]


def _days_of(connection: psycopg.Connection, symbol: str, sliced: Sequence[str]) -> list[datetime]:
    """The days on which a symbol has rows of any kind; of those whose ticks were dropped, candles and features are left."""
    days = {day for (day,) in connection.execute(_DAYS_OF_SYMBOL, (symbol,))}
    for table in sliced:
        first, last = only_row(connection.execute(sql.SQL("SELECT min(bucket_5m), max(bucket_5m) FROM {}").format(identifier(table))))
        if first:
            days |= {window.start for window in Window(floor_day(first), last + SLICE).days()}
    first, last = only_row(connection.execute("SELECT min(bucket), max(bucket) FROM market_data.candles_1d WHERE symbol = %s", (symbol,)))
    if first:  # candles go by trade time, which may lie a day before the slice
        days |= {window.start for window in Window(floor_day(first) - DAY, floor_day(last) + 2 * DAY).days()}
    return sorted(days)


def _lock(cursor: psycopg.Cursor, sliced: Sequence[str]) -> None:
    """Keep loaders, makers of candles and features, and policies out of the tables until the transaction ends."""
    for table in sliced:
        lock_table(cursor, table, exclusive=True)
    for level in _levels(cursor):
        lock_table(cursor, f"market_data.candle_partials_{level}", exclusive=True)
    lift_decompression_limit(cursor)


def _delete(cursor: psycopg.Cursor, sliced: Sequence[str], symbol: str, buckets: Sequence[datetime], found: Forgotten) -> None:
    """Delete the rows of a symbol of some slices of a day from every table with slices and from the candles."""
    storages = {(only_row(cursor.execute("SELECT market_data.candle_storage(%s)", (level,))))[0]: level for level in _levels(cursor)}
    for table, column in [*((table, "bucket_5m") for table in sliced), *((table, "tick_bucket") for table in storages)]:
        # Never prepared, and with the day beside the slices: TimescaleDB must see which chunks and segments it has to open.
        cursor.execute(
            sql.SQL(
                "DELETE FROM {table} WHERE symbol = %(symbol)s AND {bucket} >= %(start)s AND {bucket} < %(end)s AND {bucket} = ANY(%(buckets)s)"
            ).format(table=identifier(table), bucket=sql.Identifier(column)),
            {"symbol": symbol, "start": min(buckets), "end": max(buckets) + SLICE, "buckets": list(buckets)},
            prepare=False,
        )
        found.rows[f"market_data.candles_{storages[table]}" if table in storages else table] += cursor.rowcount


def _unsettled(cursor: psycopg.Cursor, buckets: Sequence[datetime]) -> set[datetime]:
    statement: LiteralString = (
        "SELECT DISTINCT bucket_5m FROM landing.raw_blobs_5m WHERE bucket_5m = ANY(%s) AND landing.is_unsettled(status, loaded_at)"
    )
    return {bucket for (bucket,) in cursor.execute(statement, (list(buckets),))}


def _forget_offsets(cursor: psycopg.Cursor, symbol: str) -> None:
    """Remove how far a symbol is ingested; how far a prefix is listed (`landing/...`) is no symbol's."""
    cursor.execute(
        "DELETE FROM ingestion.stream_offsets WHERE split_part(source, '/', 1) LIKE '%%.%%' AND split_part(source, '/', 2) = %s", (symbol,)
    )
