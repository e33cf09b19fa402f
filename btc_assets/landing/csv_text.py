"""CSV: text becomes raw tables, a bounded block of lines at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from btc_assets.landing.bounds import LINE_BYTES, exceeded, require_columns
from btc_assets.landing.raw import AGGREGATES, KLINES, NULLS, UNPARSED, NoRows, ObjectRejected

BLOCK = 4 << 20  # bytes of text in a table
_QUOTED_LINES = 100  # that one row may have
_DELIMITERS = ",;\t|"

_Text: TypeAlias = "io.BufferedReader[BinaryIO]"

# The columns of the exchange's own dumps without a header (Binance "trades"), by the number of columns.
_HEADERLESS = {
    6: ["trade_id", "price", "quantity", "quote_qty", "trade_time", "is_market_maker"],
    7: ["trade_id", "price", "quantity", "quote_qty", "trade_time", "is_market_maker", "is_best_match"],
}
_NUMBER = re.compile(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?", re.ASCII)
# What every header line of trades names, and the lines that may be one.
_PRICES, _IDS = {"price", "p"}, {"trade_id", "id", "t"}
_WITH_PRICE = re.compile(rb"^[^\r\n]*p(?:rice)?\b[^\r\n]*", re.MULTILINE)
_EPOCH = re.compile(r"\d{12,}(?:\.0)?")  # milliseconds or finer; a trade of a flag has 0 or 1 there


def read_csv(file: BinaryIO) -> Iterator[pa.Table]:
    """The raw tables of CSV text, each of about `BLOCK` bytes; all columns are text."""
    text: _Text = io.BufferedReader(file)  # type: ignore[type-var]  # a stream of bytes is enough
    head = text.peek()
    if b"\r" in head and b"\n" not in head:
        text = io.BufferedReader(_CarriageReturns(text))  # type: ignore[assignment]  # a reader as well
    layout, first = _read_header(text)
    empty = True
    for block in _blocks(text, first):
        for table in layout.tables(block):
            empty = False
            yield table
    if empty:
        yield pa.table({name: pa.array([], pa.string()) for name in layout.names})


def _read_header(file: _Text) -> tuple[_Layout, bytes]:
    """How the text is laid out, and its first row if that was read already."""
    delimiter, first = None, b""
    while line := file.readline(LINE_BYTES):
        if len(line) == LINE_BYTES:
            raise exceeded("the length of a line", f"({LINE_BYTES:,} bytes)")
        first = line.removeprefix(b"\xef\xbb\xbf").strip()
        if match := re.fullmatch(rb'"?sep=(.)"?', first, re.IGNORECASE):
            delimiter = match[1].decode("latin-1") if match[1] != b'"' else None
        elif first and not first.startswith((b"#", b"//")):
            break
    else:
        raise NoRows
    header = first.decode("utf-8")
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=lambda each: (header.count(each), each == ","))
    require_columns(header.count(delimiter))
    cells = _cells(header, delimiter)
    if 2 * sum(_NUMBER.fullmatch(cell) is not None for cell in cells) <= len(cells):  # a first row may be broken
        return _Layout(cells, delimiter), b""
    if len(cells) in (7, 8) and _EPOCH.fullmatch(cells[5]):
        raise ObjectRejected(AGGREGATES)
    if len(cells) == 12 and _EPOCH.fullmatch(cells[0]) and _EPOCH.fullmatch(cells[6]):
        raise ObjectRejected(KLINES)
    if len(cells) not in _HEADERLESS:
        raise ObjectRejected(f"it has no header line and {len(cells)} columns, which no known dump has: add a header line")
    return _Layout(_HEADERLESS[len(cells)], delimiter), first + b"\n"


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(delimiter)]


def _blocks(file: _Text, first: bytes) -> Iterator[tuple[bytes, bool]]:
    """The rest of the text in blocks of whole lines, and whether a block is the last one."""
    rest = first
    while part := file.read(BLOCK):
        end = part.rfind(b"\n") + 1
        if not end:
            rest += part
            if len(rest) > max(LINE_BYTES, 2 * BLOCK):
                raise exceeded("the length of a line", f"({LINE_BYTES:,} bytes)")
            continue
        yield rest + part[:end], False
        rest = part[end:]
    yield rest, True


class _CarriageReturns(io.RawIOBase):
    """Text whose lines end with a carriage return alone, with line ends as everywhere else."""

    def __init__(self, file: _Text) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # readers pass no other kind of buffer
        part = self._file.read(len(buffer))
        buffer[: len(part)] = part.replace(b"\r", b"\n")
        return len(part)


class _Layout:
    """Reads blocks of lines.

    Attributes:
        names: of the columns.
    """

    def __init__(self, names: list[str], delimiter: str) -> None:
        self.names = names
        self._delimiter = delimiter
        self._separator = delimiter.encode()
        self._open = b""  # the lines of a row that the next block may go on with

    def tables(self, block: tuple[bytes, bool]) -> Iterator[pa.Table]:
        """The rows of a block, unless it holds none."""
        text, last = block
        text = self._open + text
        text.decode()  # the parser would drop a row that it cannot parse and that is not UTF-8
        self._open = b""
        if re.search(rb"(?:^|\n)(?:#|//)", text):
            text = re.sub(rb"(?m)^(?:#|//).*\n?", b"", text)
        for part, is_last in self._between_headers(text, last):
            if part.strip(b"\r\n"):
                yield from self._rows(part, is_last)

    def _between_headers(self, text: bytes, last: bool) -> Iterator[tuple[bytes, bool]]:
        """The rows before, between and behind further header lines: of files that were put together to one."""
        start = 0
        if any(sign in text for sign in (b"price", b'"p"', self._separator + b"p" + self._separator)):
            for line in _WITH_PRICE.finditer(text):
                names = _cells(line[0].removeprefix(b"\xef\xbb\xbf").decode(), self._delimiter)
                if not (_PRICES & set(names) and _IDS & set(names)):
                    continue
                yield text[start : line.start()], True
                require_columns(len(names))
                self.names, start = names, line.end()
        yield text[start:], last

    def _rows(self, text: bytes, last: bool) -> Iterator[pa.Table]:
        rows, bad = self._parse(text)
        if b'"' in text and self._joins_lines(text, len(rows) + len(bad)):
            yield from self._take_apart(text, last)
        else:
            yield _insert_unparsed(rows, {row.number - 1: row.text for row in bad})

    def _joins_lines(self, text: bytes, rows: int) -> bool:
        """Whether quotes make fewer rows than there are lines, or go on behind the end of the text."""
        lines = [line for line in text.splitlines() if line]
        return rows != len(lines) or self._is_open(lines[-1])

    def _parse(self, text: bytes) -> tuple[pa.Table, list[pa_csv.InvalidRow]]:
        bad: list[pa_csv.InvalidRow] = []
        if not text:
            return pa.table({name: pa.array([], pa.string()) for name in self.names}), bad

        def set_aside(row: pa_csv.InvalidRow) -> str:
            bad.append(row)
            return "skip"

        rows = pa_csv.read_csv(
            pa.BufferReader(text),
            read_options=pa_csv.ReadOptions(column_names=self.names, block_size=max(len(text), 1) + 1, use_threads=False),
            parse_options=pa_csv.ParseOptions(delimiter=self._delimiter, invalid_row_handler=set_aside),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.string()), strings_can_be_null=True, null_values=NULLS
            ),
        )
        return rows, bad

    def _take_apart(self, text: bytes, last: bool) -> Iterator[pa.Table]:
        """The rows of a block in which quotes join lines: those that a stray quote joined are taken apart again."""
        records: list[bytes] = []
        broken: dict[int, str] = {}
        lines = text.splitlines(keepends=True)
        at = 0
        while at < len(lines):
            if not lines[at].strip(b"\r\n"):
                at += 1
                continue
            end = self._end_of_row(lines, at)
            if end is None and not last and len(lines) - at <= _QUOTED_LINES:
                self._open = b"".join(lines[at:])
                break
            if end is None:
                broken[len(records) + len(broken)] = lines[at].decode(errors="replace").strip("\r\n")
            else:
                records.append(b"".join(lines[at:end]))
            at = at + 1 if end is None else end
        rows, bad = self._parse(b"".join(each if each.endswith(b"\n") else each + b"\n" for each in records))
        places = [place for place in range(len(records) + len(broken)) if place not in broken]
        broken |= {places[row.number - 1]: row.text for row in bad}
        if len(rows) or broken:
            yield _insert_unparsed(rows, broken)

    def _end_of_row(self, lines: list[bytes], at: int) -> int | None:
        """Behind the last line of the row that begins in a line; None if a quote in that line is never closed as it should be."""
        row = lines[at]
        for end in range(at + 1, min(at + _QUOTED_LINES, len(lines)) + 1):
            if not self._is_open(row):
                return end
            if end == len(lines) or lines[end].count(self._separator) == len(self.names) - 1:
                return None  # what follows is a row of its own
            row += lines[end]
        return None

    def _is_open(self, row: bytes) -> bool:
        """Whether a row ends within quotes. Quotes count at the start of a field only, and two of them are one within it."""
        delimiter, at = self._separator, 0
        while True:
            if row[at : at + 1] == b'"':
                at += 1
                while (at := row.find(b'"', at)) >= 0 and row[at + 1 : at + 2] == b'"':
                    at += 2
                if at < 0:
                    return True
            at = row.find(delimiter, at)
            if at < 0:
                return False
            at += 1


def _insert_unparsed(rows: pa.Table, broken: dict[int, str]) -> pa.Table:
    """Insert rows that could not be parsed, by their places among all rows."""
    if not broken:
        return rows
    places = sorted(broken)
    texts = pa.table({UNPARSED: pa.array([broken[place] for place in places], pa.string())})
    order = np.insert(np.arange(len(rows)), np.array(places) - np.arange(len(places)), np.arange(len(rows), len(rows) + len(places)))
    return pa.concat_tables([rows, texts], promote_options="default").take(order)
