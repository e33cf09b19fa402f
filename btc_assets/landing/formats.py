"""Formats: the bytes of an object as a stream of raw Arrow tables, with the columns as the producer named them.

The format is found from the content, never from the name. What the columns mean is decided in `decode.py`.
"""

from __future__ import annotations

import gzip
import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

BATCH_ROWS = 65_536
_CSV_BLOCK = 4 << 20

# The columns of the exchange's own dumps without a header (Binance "trades"), by their number.
_HEADERLESS = {
    6: ["trade_id", "price", "quantity", "quote_qty", "trade_time", "is_market_maker"],
    7: ["trade_id", "price", "quantity", "quote_qty", "trade_time", "is_market_maker", "is_best_match"],
}

# Column in which a format hands over a row that it could not take apart: the text of that row.
UNPARSED = "__unparsed__"


class ObjectRejected(Exception):
    """The object cannot be read; the message is one sentence for a person."""


def read_object(source: bytes | Path) -> tuple[str, Iterator[pa.Table]]:
    """Find the format and return its name with the object's raw tables, in order, a bounded piece at a time.

    Raises:
        ObjectRejected: here or while the tables are read: empty, truncated, or of no known format.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size == 0:
        raise ObjectRejected("the object is empty (0 bytes): land it again")
    with _open(source) as file:
        magic = file.read(4)
    if magic == b"PAR1":
        # A batch of our own size keeps memory bounded for large files; small ones are read in one call, which is faster.
        return "parquet", _guard("Parquet", _parquet(source, whole=isinstance(source, bytes)))
    if magic[:2] == b"\x1f\x8b":
        name = _text_format(lambda: gzip.open(_open(source)), "gzip")
        return f"{name}.gz", _guard(f"{name}.gz", _text(name, gzip.open(_open(source))))
    if magic == b"PK\x03\x04":
        return "csv.zip", _guard("zip", _zip(source))
    name = _text_format(lambda: _open(source), "text")
    return name, _guard(name, _text(name, _open(source)))


def _open(source: bytes | Path) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _guard(name: str, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    try:
        yield from tables
    except (pa.ArrowException, OSError, EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ObjectRejected(f"its {name} content is damaged or truncated ({text}): land it again") from error


def _text_format(opened: Callable[[], BinaryIO], what: str) -> str:
    try:
        with opened() as file:
            head = file.read(4096)
    except (OSError, EOFError, zlib.error) as error:
        raise ObjectRejected(f"its {what} content is damaged or truncated ({error}): land it again") from error
    if not head.strip():
        raise ObjectRejected("the object holds no rows, not even a header: land it again")
    if b"\0" in head:
        raise ObjectRejected("its format is unknown: land Parquet, CSV or JSON lines, plain, gzipped or (CSV) zipped")
    return "jsonl" if re.match(rb"\s*(\d+\s+)?\{", head) else "csv"


def _text(name: str, file: BinaryIO) -> Iterator[pa.Table]:
    with file:
        yield from _json_lines(file) if name == "jsonl" else _csv(file)


def _parquet(source: bytes | Path, whole: bool) -> Iterator[pa.Table]:
    reader = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(reader, page_checksum_verification=True, pre_buffer=False) as file:
        if whole:
            yield file.read(use_threads=False)
        else:
            schema = file.schema_arrow
            yield from (pa.Table.from_batches([b], schema) for b in file.iter_batches(BATCH_ROWS, use_threads=False))
            if file.metadata.num_rows == 0:
                yield schema.empty_table()


def _zip(source: bytes | Path) -> Iterator[pa.Table]:
    with zipfile.ZipFile(_open(source)) as archive:
        members = [m for m in archive.infolist() if not m.is_dir() and m.filename.lower().endswith(".csv") and "__MACOSX" not in m.filename]
        if not members:
            raise ObjectRejected("the zip file holds no .csv file: land the dump as the exchange publishes it")
        for member in members:
            yield from _csv(archive.open(member))  # type: ignore[arg-type]


def _csv(file: BinaryIO) -> Iterator[pa.Table]:
    buffered = io.BufferedReader(file)  # type: ignore[arg-type]  # a stream of bytes is enough
    first = buffered.readline()
    cells = [cell.strip().strip('"') for cell in first.decode("utf-8-sig").rstrip("\r\n").split(",")]
    if all(re.fullmatch(r"[-+.\deE]*|[Tt]rue|[Ff]alse", cell) for cell in cells):
        if len(cells) not in _HEADERLESS:
            raise ObjectRejected(f"it has no header line and {len(cells)} columns, which is no dump that is known: add a header")
        names, stream = _HEADERLESS[len(cells)], _Rejoined(first, buffered)
    else:
        names, stream = cells, buffered
    bad: list[str] = []

    def keep(row: pa_csv.InvalidRow) -> str:
        bad.append(row.text)
        return "skip"

    if not buffered.peek(1) and stream is buffered:
        yield pa.table({name: pa.array([], pa.string()) for name in names})
        return
    reader = pa_csv.open_csv(
        stream,
        read_options=pa_csv.ReadOptions(column_names=names, block_size=_CSV_BLOCK, use_threads=False),
        parse_options=pa_csv.ParseOptions(invalid_row_handler=keep),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=["", "NaN", "nan", "null", "None"]
        ),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch])
    if bad:
        yield pa.table({**{name: pa.nulls(len(bad), pa.string()) for name in names}, UNPARSED: bad})


class _Rejoined(io.RawIOBase):
    """A stream with the line that was read ahead put back in front."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._first:
            part, self._first = self._first[: len(buffer)], self._first[len(buffer) :]
        else:
            part = self._rest.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


def _json_lines(file: BinaryIO) -> Iterator[pa.Table]:
    lines = (line for line in io.BufferedReader(file) if line.strip())  # type: ignore[arg-type]
    while block := list(itertools.islice(lines, BATCH_ROWS)):
        records, unparsed = [], []
        for line in block:
            record = _message(line)
            records.append(record or {})
            unparsed.append(None if record is not None else line.decode("utf-8", "replace").strip())
        names = dict.fromkeys(itertools.chain.from_iterable(records))
        table = {name: pa.array([_scalar(record.get(name)) for record in records], pa.string()) for name in names}
        if any(unparsed):
            table[UNPARSED] = pa.array(unparsed, pa.string())
        yield pa.table(table)


def _message(line: bytes) -> dict[str, object] | None:
    """The trade in a line: `[receive time] {...}` or `{"stream": ..., "data": {...}}`; None where there is none."""
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


def _scalar(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
