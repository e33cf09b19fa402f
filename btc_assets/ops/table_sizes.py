"""How large the tables of ticks and candles are, and what compression saves."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from btc_assets.store.errors import server_errors


@dataclass(frozen=True)
class TableSize:
    """Size of a table on disk.

    Attributes:
        table: `schema.table`.
        total: bytes, with indexes.
        chunks, compressed_chunks: how many chunks there are, and how many of them are compressed.
        before, after: bytes of the compressed chunks before and after they were compressed; None if there is none.
    """

    table: str
    total: int
    chunks: int
    compressed_chunks: int
    before: int | None
    after: int | None


def read_table_sizes(connection: psycopg.Connection) -> list[TableSize]:
    """The sizes of the ticks and of the partial candles of each interval."""
    with server_errors(), connection.transaction():
        rows = connection.execute(
            "SELECT relation, total_bytes, chunks, compressed_chunks, bytes_before, bytes_after FROM ops.table_sizes()"
        ).fetchall()
    return [TableSize(*row) for row in rows]
