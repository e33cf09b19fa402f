"""Stream offsets: how far each symbol of a table is ingested, moved in the transaction that writes the rows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import psycopg
from psycopg import sql

from btc_assets.database import identifier, server_errors


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


def rewind(connection: psycopg.Connection, prefix: str, to: datetime) -> None:
    """Move the position of a prefix of the landing zone back, so that what lands from the folder `to` on is looked for."""
    with server_errors():
        connection.execute(
            "INSERT INTO ingestion.stream_offsets (source, last_ts) VALUES (%s, %s) ON CONFLICT (source) DO UPDATE "
            "SET last_ts = least(stream_offsets.last_ts, excluded.last_ts), updated_at = now()",
            (f"landing/{prefix}", to),
        )
