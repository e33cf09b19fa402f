"""Stream offsets: how far each symbol of a table is ingested, moved in the transaction that writes the rows, and how far
each prefix of the landing zone is listed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import psycopg
from psycopg import sql

from btc_assets.store.database import identifier
from btc_assets.store.errors import server_errors


def advance(cursor: psycopg.Cursor, table: str, symbols: Iterable[str]) -> None:
    """Set the offsets of `symbols` to what the table holds now: the highest trade id of the newest slice with rows.

    Read from the table, not counted up, so it is exact also after a slice was replaced by fewer rows. The row lock makes
    loaders that commit at the same time take turns, so that neither overlooks the other's rows. Where no row is left
    (retention dropped them), the offset stays.
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


def position(connection: psycopg.Connection, prefix: str) -> tuple[datetime | None, datetime | None]:
    """The newest folder of a prefix that was listed, and when the prefix was last listed to its end."""
    with server_errors():
        row = connection.execute(
            "SELECT last_ts, (state ->> 'listed_at')::timestamptz FROM ingestion.stream_offsets WHERE source = %s", (f"landing/{prefix}",)
        ).fetchone()
    return row or (None, None)


def listed(connection: psycopg.Connection, prefix: str, before: datetime | None, newest: datetime, at: datetime | None) -> None:
    """Record that a prefix is listed up to the folder `newest`, and to its end `at` this time.

    The position stays where somebody moved it meanwhile, away from `before`.
    """
    with server_errors():
        connection.execute(
            "INSERT INTO ingestion.stream_offsets AS known (source, last_ts, state) "
            "VALUES (%(source)s, %(newest)s, jsonb_strip_nulls(jsonb_build_object('listed_at', %(at)s::timestamptz))) "
            "ON CONFLICT (source) DO UPDATE SET state = known.state || excluded.state, updated_at = now(), "
            "last_ts = CASE WHEN known.last_ts IS NOT DISTINCT FROM %(before)s THEN excluded.last_ts ELSE known.last_ts END",
            {"source": f"landing/{prefix}", "before": before, "newest": newest, "at": at},
        )


def rewind(connection: psycopg.Connection, prefix: str, to: datetime) -> None:
    """Have the landing sensor look at a prefix from the folder `to` on, if it is further than that."""
    with server_errors():
        connection.execute(
            "INSERT INTO ingestion.stream_offsets AS known (source, last_ts) VALUES (%s, %s) "
            "ON CONFLICT (source) DO UPDATE SET last_ts = least(known.last_ts, excluded.last_ts), updated_at = now()",
            (f"landing/{prefix}", to),
        )
