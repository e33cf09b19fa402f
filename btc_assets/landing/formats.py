"""Formats: the bytes of an object become a stream of raw Arrow tables, with the columns as the producer named them.

The content decides the format, never the name. `decode.py` decides what the columns mean.
"""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

BATCH_ROWS = 65_536  # the most rows of a table that is read from Parquet on disk or from JSON lines
_CSV_BLOCK = 4 << 20  # bytes of CSV in a table

# The columns of the exchange's own dumps without a header (Binance "trades"), by the number of columns.
_HEADERLESS = {
    6: ["trade_id", "price", "quantity", "quote_qty", "trade_time", "is_market_maker"],
    7: ["trade_id", "price", "quantity", "quote_qty", "trade_time", "is_market_maker", "is_best_match"],
}

# How producers write a missing value.
NULLS = ["", "NaN", "nan", "null", "None"]

# The column that holds the text of a row that could not be parsed.
UNPARSED = "__unparsed__"

# What the parsers raise for damaged content.
_DAMAGE = (pa.ArrowException, OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


class ObjectRejected(Exception):
    """The content of the object is unusable; the message says why and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(without_nul(reason))


def without_nul(text: str) -> str:
    """The text with NUL replaced, which PostgreSQL cannot store in text or jsonb."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def join_names(names: list[str]) -> str:
    """Column names for a message, shortened."""
    return ", ".join(name[:40] for name in names[:12]) or "none"


def read_object(source: bytes | Path) -> tuple[str, Iterator[pa.Table]]:
    """Detect the format and return its name with the object's raw tables, in order, each of bounded size.

    Args:
        source: the bytes of the object, or the path of a file that holds them.

    Raises:
        ObjectRejected: the object is empty, damaged or of no known format; also raised later, while the tables are read.
    """
    with _open(source) as file:
        magic = file.read(4)
    if not magic:
        raise ObjectRejected("the object is empty (0 bytes): land it again")
    if magic == b"PAR1":
        return "parquet", _checked("Parquet", _read_parquet(source))
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        return "csv.zip", _checked("zip", _read_zip(source))
    if magic[:2] == b"\x1f\x8b":
        name = _detect_text_format(lambda: _gunzip(source), "gzip")
        return f"{name}.gz", _checked(f"{name}.gz", _read_text(name, lambda: _gunzip(source)))
    name = _detect_text_format(lambda: _open(source), "text")
    return name, _checked(name, _read_text(name, lambda: _open(source)))


def _open(source: bytes | Path) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _gunzip(source: bytes | Path) -> BinaryIO:
    return gzip.open(io.BytesIO(source) if isinstance(source, bytes) else source)  # type: ignore[return-value]  # it reads bytes as one


def _checked(name: str, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The tables, with the errors of the parsers translated and repeated column names refused."""
    try:
        for table in tables:
            names = table.column_names
            if len(set(names)) < len(names):
                raise ObjectRejected(f"it has several columns with the same name (its columns: {join_names(names)}): keep one of each")
            yield table
    except _DAMAGE as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: BaseException) -> ObjectRejected:
    text = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return ObjectRejected(f"its {name} content is damaged or truncated ({text[:200]}): land it again")


def _detect_text_format(open_file: Callable[[], BinaryIO], what: str) -> str:
    try:
        with open_file() as file:
            head = file.read(4096)
    except _DAMAGE as error:
        raise _damaged(what, error) from error
    if b"\0" in head:
        raise ObjectRejected("its format is unknown: land Parquet, CSV or JSON lines, plain, gzipped or (CSV) zipped")
    # Search all lines, because the first one may be broken.
    return "jsonl" if re.search(rb"^(\xef\xbb\xbf)?\s*(\d+\s+)?\{", head, re.MULTILINE) else "csv"


def _read_text(name: str, open_file: Callable[[], BinaryIO]) -> Iterator[pa.Table]:
    with open_file() as file:
        yield from _read_json_lines(file) if name == "jsonl" else _read_csv(file)


def _read_parquet(source: bytes | Path) -> Iterator[pa.Table]:
    reader = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(reader, page_checksum_verification=True, pre_buffer=False) as file:
        if isinstance(source, bytes):  # small, so one call is faster
            tables = iter([file.read(use_threads=False)])
        else:
            batches = file.iter_batches(BATCH_ROWS, use_threads=False)
            tables = itertools.chain((pa.Table.from_batches([batch]) for batch in batches), [file.schema_arrow.empty_table()])
        for table in tables:
            table.validate(full=True)  # the reader checks neither that text is UTF-8 nor that dictionary indices are in range
            yield table


def _read_zip(source: bytes | Path) -> Iterator[pa.Table]:
    with _open(source) as file, zipfile.ZipFile(file) as archive:
        members = [m for m in archive.infolist() if m.filename.lower().endswith(".csv") and "__MACOSX" not in m.filename]
        if not members:
            raise ObjectRejected("the zip file holds no .csv file: land the dump as the exchange publishes it")
        for member in members:
            with archive.open(member) as content:
                yield from _read_csv(content)  # type: ignore[arg-type]  # a stream of bytes is enough


def _read_csv(file: BinaryIO) -> Iterator[pa.Table]:
    names, rows = _read_csv_header(file)
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
            read_options=pa_csv.ReadOptions(column_names=names, block_size=_CSV_BLOCK, use_threads=False),
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


def _read_csv_header(file: BinaryIO) -> tuple[list[str], io.IOBase | None]:
    """The names of the columns, and the stream from the first row on; None if there are no rows."""
    buffered = io.BufferedReader(file)  # type: ignore[type-var]  # a stream of bytes is enough
    first = next((line for line in buffered if line.strip()), b"")
    if not first:
        raise ObjectRejected("the object holds no rows, not even a header: land it again")
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


def _read_json_lines(file: BinaryIO) -> Iterator[pa.Table]:
    lines = (line for line in io.BufferedReader(file) if line.strip())  # type: ignore[type-var]  # as above
    names: dict[str, None] = {}  # of all blocks so far: a field that one block happens to lack is null there, not missing
    while block := list(itertools.islice(lines, BATCH_ROWS)):
        records = [_parse_message(line) for line in block]
        names.update(dict.fromkeys(itertools.chain.from_iterable(filter(None, records))))
        table = {name: pa.array([_as_text((record or {}).get(name)) for record in records], pa.string()) for name in names}
        if None in records or not names:
            texts = [line.decode("utf-8", "replace").strip() for line in block]
            table[UNPARSED] = pa.array(texts, pa.string(), mask=np.array([record is not None for record in records]))
        yield pa.table(table)


def _parse_message(line: bytes) -> dict[str, object] | None:
    """The trade in a line, `[receive time] {...}` or `{"stream": ..., "data": {...}}`; None if it holds none."""
    start = line.find(b"{")
    try:
        record = orjson.loads(line[start:]) if start >= 0 else None
    except orjson.JSONDecodeError:
        return None
    if isinstance(record, dict) and isinstance(record.get("data"), dict):
        record = record["data"]
    if not isinstance(record, dict) or record.get("e", "trade") != "trade":
        return None
    return record


def _as_text(value: object) -> str | None:
    if isinstance(value, float):
        value = round(value, 8)  # the same rounding as of a float in Parquet
    return None if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
