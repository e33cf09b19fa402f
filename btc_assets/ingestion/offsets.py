"""Stream offsets: how far each symbol of a table is ingested, and how far each prefix of the landing zone is listed.

Both are rows of `ingestion.stream_offsets`. The offset of a symbol moves in the transaction that writes its rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg import sql

from btc_assets.store.database import identifier
from btc_assets.store.errors import server_errors


def advance_offsets(cursor: psycopg.Cursor, table: str, symbols: Iterable[str]) -> None:
    """Set the offsets of `symbols` to the highest trade id of the newest slice that the table holds.

    The offset is read from the table, not counted up, so it is exact even after a slice was replaced by fewer rows. A row lock
    makes loaders that commit at the same time take turns, so that neither misses the other's rows. If retention has dropped
    every row of a symbol, its offset stays.
    """
    newest = sql.SQL(
        "SELECT bucket_5m, trade_id, event_time FROM {} WHERE symbol = %(symbol)s ORDER BY bucket_5m DESC, trade_id DESC LIMIT 1"
    ).format(identifier(table))
    for symbol in sorted(symbols):
        source = f"{table}/{symbol}"
        cursor.execute("INSERT INTO ingestion.stream_offsets (source) VALUES (%s) ON CONFLICT (source) DO NOTHING", (source,))
        cursor.execute("SELECT 1 FROM ingestion.stream_offsets WHERE source = %s FOR UPDATE", (source,))
        cursor.execute(
            sql.SQL(
                "UPDATE ingestion.stream_offsets SET last_sequence = newest.trade_id, last_ts = newest.event_time, "
                "state = jsonb_build_object('bucket_5m', newest.bucket_5m), updated_at = now() "
                "FROM ({}) AS newest WHERE source = %(source)s"
            ).format(newest),
            {"symbol": symbol, "source": source},
        )


class ListingPosition(NamedTuple):
    """How far a prefix of the landing zone is listed.

    Attributes:
        newest_folder: time of the newest folder that was listed; None if none was.
        listed_at: when the prefix was last listed to its end; None if it never was.
    """

    newest_folder: datetime | None
    listed_at: datetime | None


def read_listing_position(connection: psycopg.Connection, prefix: str) -> ListingPosition:
    """How far a prefix is listed."""
    with server_errors():
        row = connection.execute(
            "SELECT last_ts, (state ->> 'listed_at')::timestamptz FROM ingestion.stream_offsets WHERE source = %s", (f"landing/{prefix}",)
        ).fetchone()
    return ListingPosition(*row) if row else ListingPosition(None, None)


def record_listing(
    connection: psycopg.Connection, prefix: str, before: datetime | None, newest: datetime, listed_at: datetime | None
) -> None:
    """Record that a prefix is listed up to a folder.

    Args:
        connection: to the store.
        prefix: of the landing zone.
        before: the newest folder when the listing began. If somebody moved the position since, it stays where they moved it.
        newest: the newest folder now.
        listed_at: when the listing reached its end; None if it stopped before.
    """
    with server_errors():
        connection.execute(
            "INSERT INTO ingestion.stream_offsets AS known (source, last_ts, state) "
            "VALUES (%(source)s, %(newest)s, jsonb_strip_nulls(jsonb_build_object('listed_at', %(at)s::timestamptz))) "
            "ON CONFLICT (source) DO UPDATE SET state = known.state || excluded.state, updated_at = now(), "
            "last_ts = CASE WHEN known.last_ts IS NOT DISTINCT FROM %(before)s THEN excluded.last_ts ELSE known.last_ts END",
            {"source": f"landing/{prefix}", "before": before, "newest": newest, "at": listed_at},
        )


def rewind_listing(connection: psycopg.Connection, prefix: str, folder: datetime) -> None:
    """Move a prefix back to a folder, so that the landing sensor lists it again from there; never forward."""
    with server_errors():
        connection.execute(
            "INSERT INTO ingestion.stream_offsets AS known (source, last_ts) VALUES (%s, %s) "
            "ON CONFLICT (source) DO UPDATE SET last_ts = least(known.last_ts, excluded.last_ts), updated_at = now()",
            (f"landing/{prefix}", folder),
        )
