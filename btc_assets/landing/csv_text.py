"""CSV: text becomes raw tables, a bounded block at a time."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from btc_assets.landing.bounds import LINE_BYTES, exceeded, require_columns
from btc_assets.landing.raw import NULLS, UNPARSED, NoRows, ObjectRejected

BLOCK = 4 << 20  # bytes of text in a table

# The columns of the exchange's own dumps without a header (Binance "trades"), by the number of columns.
_HEADERLESS = {
    6: ["trade_id", "price", "quantity", "quote_qty", "trade_time", "is_market_maker"],
    7: ["trade_id", "price", "quantity", "quote_qty", "trade_time", "is_market_maker", "is_best_match"],
}


def read_csv(file: BinaryIO) -> Iterator[pa.Table]:
    """The raw tables of CSV text, each of about `BLOCK` bytes; all columns are text."""
    names, rows = _read_header(file)
    bad: list[pa_csv.InvalidRow] = []

    def set_aside(row: pa_csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    empty = pa.table({name: pa.array([], pa.string()) for name in names})
    batches = (
        ()
        if rows is None
        else pa_csv.open_csv(
            rows,
            read_options=pa_csv.ReadOptions(column_names=names, block_size=BLOCK, use_threads=False),
            parse_options=pa_csv.ParseOptions(invalid_row_handler=set_aside),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=NULLS
            ),
        )
    )
    number = 1
    for table in itertools.chain((pa.Table.from_batches([batch]) for batch in batches), [empty]):
        table = _insert_unparsed(table, bad, number)
        number += len(table)
        if len(table) or number == 1:
            yield table


def _read_header(file: BinaryIO) -> tuple[list[str], io.IOBase | None]:
    """The names of the columns, and the stream from the first row on; None if there are no rows."""
    buffered = io.BufferedReader(file)  # type: ignore[type-var]  # a stream of bytes is enough
    while (first := buffered.readline(LINE_BYTES)) and not first.strip():
        pass
    if not first:
        raise NoRows
    if len(first) == LINE_BYTES:
        raise exceeded("the length of a line", f"({LINE_BYTES:,} bytes)")
    require_columns(first.count(b","))
    cells = [cell.strip().strip('"') for cell in first.decode("utf-8-sig").rstrip("\r\n").split(",")]
    if not all(re.fullmatch(r"[-+.\deE]*|[Tt]rue|[Ff]alse", cell) for cell in cells):
        return cells, buffered if buffered.peek(1) else None
    if len(cells) not in _HEADERLESS:
        raise ObjectRejected(f"it has no header line and {len(cells)} columns, which no known dump has: add a header line")
    return _HEADERLESS[len(cells)], _Unread(first, buffered)


def _insert_unparsed(table: pa.Table, bad: list[pa_csv.InvalidRow], number: int) -> pa.Table:
    """Insert the rows that the parser skipped into their places in `table`, whose first row has that number."""
    count = 0
    while count < len(bad) and bad[count].number <= number + len(table) + count:
        count += 1
    if not count:
        return table
    rows = pa.table({UNPARSED: [row.text for row in bad[:count]]})
    before = [row.number - number - i for i, row in enumerate(bad[:count])]
    del bad[:count]
    order = np.insert(np.arange(len(table)), before, np.arange(len(table), len(table) + count))
    return pa.concat_tables([table, rows], promote_options="default").take(order)


class _Unread(io.RawIOBase):
    """A stream whose first line, already read, is put back in front."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # readers pass no other kind of buffer
        if self._first:
            part, self._first = self._first[: len(buffer)], self._first[len(buffer) :]
        else:
            part = self._rest.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)
