"""Stream offsets: how far each symbol of a table is ingested, and how far each prefix of the landing zone is listed.

Both are rows of `ingestion.stream_offsets`. The offset of a symbol moves in the transaction that writes its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg import sql

from btc_assets.domain.slices import SLICE, Window
from btc_assets.store.database import identifier
from btc_assets.store.errors import server_errors

# The stored slice is the newest one with rows, so an offset moves forward to a slice after it, or within the window that was replaced.
# One look into the primary key for each symbol, in the partitions of the window alone.
_ADVANCE = """
UPDATE ingestion.stream_offsets AS known SET last_sequence = newest.trade_id, last_ts = newest.event_time,
    state = jsonb_build_object('bucket_5m', newest.bucket_5m), updated_at = now()
FROM unnest(%(sources)s::text[], %(symbols)s::text[], %(buckets)s::timestamptz[]) AS written (source, symbol, bucket_5m), LATERAL (
    SELECT tick.bucket_5m, tick.trade_id, tick.event_time FROM {table} AS tick
    WHERE tick.bucket_5m = written.bucket_5m AND tick.symbol = written.symbol
        AND tick.bucket_5m >= %(start)s AND tick.bucket_5m < %(end)s
    ORDER BY tick.trade_id DESC LIMIT 1
) AS newest
WHERE known.source = written.source AND coalesce((known.state ->> 'bucket_5m')::timestamptz < %(end)s, true)
"""

# Offsets that point into a window or nowhere.
_POINTING_INTO = """
SELECT source FROM ingestion.stream_offsets
WHERE starts_with(source, %(prefix)s) AND coalesce((state ->> 'bucket_5m')::timestamptz BETWEEN %(start)s AND %(last)s, true)
"""

# Slice by slice, so that the rows of other symbols do not count.
_RETREAT = """
UPDATE ingestion.stream_offsets SET last_sequence = newest.trade_id, last_ts = newest.event_time,
    state = jsonb_build_object('bucket_5m', newest.bucket_5m), updated_at = now()
FROM (
    SELECT tick.* FROM generate_series(
        %(start)s::timestamptz - interval '5 minutes', (SELECT bucket_5m FROM {table} ORDER BY bucket_5m LIMIT 1), interval '-5 minutes'
    ) AS slice (bucket_5m), LATERAL (
        SELECT bucket_5m, trade_id, event_time FROM {table} AS tick
        WHERE tick.bucket_5m = slice.bucket_5m AND tick.symbol = %(symbol)s AND tick.bucket_5m < %(start)s
        ORDER BY trade_id DESC LIMIT 1
    ) AS tick LIMIT 1
) AS newest WHERE source = %(source)s
"""


def advance_offsets(
    cursor: psycopg.Cursor, table: str, window: Window, newest: Mapping[str, datetime | None], kept_symbols: Collection[str] = ()
) -> None:
    """Set the offsets of symbols to the highest trade id of the newest slice that the table holds, after a window was replaced.

    The offset is read from the table, not counted up, so it is exact even after a slice was replaced by fewer rows. A row lock
    makes loaders that commit at the same time take turns, so that neither misses the other's rows. The offset of a symbol without rows
    is removed; if retention has dropped the rows, it stays. No other symbol's rows are read, however many there are.

    Args:
        cursor: in the transaction that replaced the window.
        table: whose rows they are.
        window: that was replaced.
        newest: the newest slice of each symbol that has rows in the window now; None for one that had some before.
        kept_symbols: symbols of which nothing was replaced.
    """
    prefix, span = f"{table}/", {"start": window.start, "end": window.end, "last": window.end - SLICE}
    pointing = {source for (source,) in cursor.execute(_POINTING_INTO, span | {"prefix": prefix})}
    sources = sorted(pointing.union(f"{prefix}{symbol}" for symbol in newest).difference(f"{prefix}{symbol}" for symbol in kept_symbols))
    cursor.execute(
        "INSERT INTO ingestion.stream_offsets (source) SELECT unnest(%s::text[]) ON CONFLICT (source) DO UPDATE SET updated_at = now() "
        "RETURNING source",
        (sources,),
    )
    written = [(f"{prefix}{symbol}", symbol, bucket) for symbol, bucket in sorted(newest.items()) if bucket is not None]
    columns = [list(column) for column in zip(*written, strict=True)] if written else [[], [], []]
    names = {"table": identifier(table)}
    cursor.execute(
        sql.SQL(_ADVANCE).format(**names), span | dict(zip(("sources", "symbols", "buckets"), columns, strict=True)), prepare=False
    )
    for source in sorted(set(sources) - set(columns[0])):
        _move_back(cursor, source, prefix, names, span)


def _move_back(cursor: psycopg.Cursor, source: str, prefix: str, names: dict[str, sql.Identifier], span: dict[str, datetime]) -> None:
    """Move an offset that points into a window in which its symbol has no rows any more."""
    parameters = span | {"prefix": source, "source": source, "symbol": source.removeprefix(prefix)}
    if not cursor.execute(_POINTING_INTO + " AND source = %(source)s", parameters).rowcount:
        return
    if not cursor.execute(sql.SQL(_RETREAT).format(**names), parameters, prepare=False).rowcount:
        cursor.execute("DELETE FROM ingestion.stream_offsets WHERE source = %(source)s", parameters)


class ListingPosition(NamedTuple):
    """How far a prefix of the landing zone is listed.

    Attributes:
        newest_folder: time of the newest folder that was listed; None if none was.
        listed_at: when the prefix was last listed to its end; None if it never was.
    """

    newest_folder: datetime | None
    listed_at: datetime | None


class Listed(NamedTuple):
    """What a listing of a prefix moves its position to.

    Attributes:
        prefix: of the landing zone.
        before: the newest folder when the listing began. If somebody moved the position since, it stays where they moved it.
        newest: the newest folder now.
        listed_at: when the listing reached its end; None if it stopped before.
    """

    prefix: str
    before: datetime | None
    newest: datetime
    listed_at: datetime | None


_POSITIONS = """
SELECT substr(source, length('landing/') + 1), last_ts, (state ->> 'listed_at')::timestamptz
FROM ingestion.stream_offsets WHERE source = ANY(%s)
"""

_RECORD_LISTINGS = """
WITH listed AS (
    SELECT 'landing/' || prefix AS source, before, newest, jsonb_strip_nulls(jsonb_build_object('listed_at', listed_at)) AS state
    FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[]) AS listed (prefix, before, newest, listed_at)
)
INSERT INTO ingestion.stream_offsets AS known (source, last_ts, state) SELECT source, newest, state FROM listed ORDER BY source
ON CONFLICT (source) DO UPDATE SET state = known.state || excluded.state, updated_at = now(),
    last_ts = CASE WHEN known.last_ts IS NOT DISTINCT FROM (SELECT before FROM listed WHERE listed.source = known.source)
                   THEN excluded.last_ts ELSE known.last_ts END
"""


def read_listing_positions(connection: psycopg.Connection, prefixes: Sequence[str]) -> dict[str, ListingPosition]:
    """How far each of some prefixes is listed."""
    with server_errors():
        rows = connection.execute(_POSITIONS, ([f"landing/{prefix}" for prefix in prefixes],)).fetchall()
    return dict.fromkeys(prefixes, ListingPosition(None, None)) | {prefix: ListingPosition(*position) for prefix, *position in rows}


def record_listings(connection: psycopg.Connection, listings: Sequence[Listed]) -> None:
    """Record how far prefixes are listed now."""
    if listings:
        with server_errors():
            connection.execute(_RECORD_LISTINGS, [list(column) for column in zip(*listings, strict=True)])


def rewind_listing(connection: psycopg.Connection, prefix: str, folder: datetime) -> None:
    """Move a prefix back to a folder, so that the landing sensor lists it again from there; never forward."""
    with server_errors():
        connection.execute(
            "INSERT INTO ingestion.stream_offsets AS known (source, last_ts) VALUES (%s, %s) "
            "ON CONFLICT (source) DO UPDATE SET last_ts = least(known.last_ts, excluded.last_ts), updated_at = now()",
            (f"landing/{prefix}", folder),
        )
