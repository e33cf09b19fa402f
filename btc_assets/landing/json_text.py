"""JSON: text becomes raw tables, a bounded number of messages at a time. What is plainly no trade is counted and left out.

The fast path reads one object a line with orjson. Whatever orjson refuses goes through `JsonValues`, until a line begins afresh.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from btc_assets.landing.bounds import BATCH_CELLS, require_columns
from btc_assets.landing.json_messages import refuse_only_others, trade_or_kind
from btc_assets.landing.json_values import Broken, JsonValues, Record, contradiction, float_text
from btc_assets.landing.raw import REASON, UNPARSED

BATCH_ROWS = 65_536  # the most rows of a table
_BATCH_BYTES = 4 << 20  # and of their text; as Python objects it takes up to a hundred times as much
_PIECE_BYTES = 16 << 10  # that are read of a line at a time
_KINDS_TOLD = 50

_COLONS = (b" :", b"\t:", b"\r:")  # behind a key that `":` does not find
_EXACT_FLOATS = 1 << 53  # below it, a float is every integer
_EXPONENT = re.compile(rb"[0-9.][eE][-+]?[0-9]")


def read_json(file: BinaryIO, notes: dict[str, Any]) -> Iterator[pa.Table]:
    """The raw tables of JSON, each of at most `BATCH_ROWS` rows; all columns are text.

    Args:
        file: the text.
        notes: gets the number of messages of each other kind that were left out.

    Raises:
        ObjectRejected: there are messages, but none that is or may be a trade.
    """
    messages = _Messages(file)
    names: dict[str, None] = {}  # of all batches so far: a field that one batch happens to lack is null there, not missing
    rows = 0
    for batch in messages.batches():
        rows += len(batch)
        yield from batch.tables(names)
    if messages.others:
        if not rows:
            refuse_only_others(messages.others)
        notes["other_messages"] = dict(messages.others + Counter(notes.get("other_messages", {})))


class _Batch:
    """Messages that are, or may be, trades.

    Attributes:
        rows: the messages.
        lines: of each message that was read with orjson, its line; else nothing.
    """

    def __init__(self) -> None:
        self.rows: list[Record | Broken] = []
        self.lines: list[bytes] = []

    def __len__(self) -> int:
        return len(self.rows)

    def tables(self, names: dict[str, None]) -> Iterator[pa.Table]:
        """The messages as tables with these columns; those that they have besides are added to `names`."""
        records = [row if isinstance(row, dict) else {} for row in self.rows]
        names.update(dict.fromkeys(itertools.chain.from_iterable(records)))
        require_columns(len(names))
        columns = {name: self._texts([record.get(name) for record in records], name) for name in names}
        if not names or any(isinstance(row, Broken) for row in self.rows):
            broken = [row if isinstance(row, Broken) else Broken(None) for row in self.rows]
            columns[UNPARSED] = pa.array([row.text for row in broken], pa.string())
            columns[REASON] = pa.array([row.reason for row in broken], pa.string())
        table, step = pa.table(columns), max(1, BATCH_CELLS // len(columns))
        return (table.slice(start, step) for start in range(0, len(table), step))

    def _texts(self, values: list[object], name: str) -> pa.Array:
        try:
            array = pa.array(values)
        except (pa.ArrowException, OverflowError):  # of several types, or too large
            array = None
        if array is not None and any(is_type(array.type) for is_type in (pa.types.is_int64, pa.types.is_boolean, pa.types.is_null)):
            return array.cast(pa.string())
        if array is not None and pa.types.is_string(array.type):
            return array
        return pa.array([self._text(value, i, name) for i, value in enumerate(values)], pa.string())

    def _text(self, value: object, i: int, name: str) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, float):
            # A float does not tell whether an exponent left out digits of an integer, nor the last digits of a large one: only its text does.
            inexact = value.is_integer() and (abs(value) >= _EXACT_FLOATS or _EXPONENT.search(self.lines[i]))
            exact = next(_read_by_value(self.lines[i]), None) if inexact else None
            return str(exact[name]) if isinstance(exact, dict) and name in exact else float_text(value)
        try:
            return orjson.dumps(value).decode()
        except TypeError:  # nested too deeply
            return "\N{HORIZONTAL ELLIPSIS}"


class _Messages:
    """Reads the messages of a text.

    Attributes:
        others: how many messages were left out, by their kind.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.others: Counter[str] = Counter()
        self._file = file

    def batches(self) -> Iterator[_Batch]:
        """All messages that are, or may be, trades."""
        values, batch, size, idle = JsonValues(), _Batch(), 0, True
        while piece := self._file.readline(_PIECE_BYTES):
            message = _read_line(piece) if idle else None
            if isinstance(message, dict):
                batch.rows.append(message)
                batch.lines.append(piece)
            elif message is not None:
                self._count(message)
            else:
                self._add(values.add(piece), batch)
                idle = values.is_idle
            size += len(piece)
            if size >= _BATCH_BYTES or len(batch) >= BATCH_ROWS:
                yield batch
                batch, size = _Batch(), 0
        self._add(values.add(b"", last=True), batch)
        if len(batch):
            yield batch

    def _add(self, values: Iterator[Record | Broken], batch: _Batch) -> None:
        for value in values:
            message = value if isinstance(value, Broken) else trade_or_kind(value)
            if isinstance(message, str):
                self._count(message)
                continue
            if message is None:
                message = value
            if isinstance(message, dict) and isinstance(value, dict):
                name = contradiction(message) or contradiction(value)  # of the trade, or of what it is wrapped in
                message = message if name is None else Broken(str(message), f"the row has several values for {name:.40}")
            batch.rows.append(message)
            batch.lines.append(b"")

    def _count(self, kind: str) -> None:
        kind = kind[:40]
        self.others[kind if kind in self.others or len(self.others) < _KINDS_TOLD else "others"] += 1


def _read_line(line: bytes) -> Record | str | None:
    """The trade in a line, `[receive time] {...}` or `{"stream": ..., "data": {...}}`, or the kind of message; None if it is not that simple."""
    start = line.find(b"{")
    if start < 0 or (start and b'"' in line[:start]):
        return None
    try:
        record = orjson.loads(line[start:] if start else line)
    except orjson.JSONDecodeError:
        return None
    message = record if record.get("e") == "trade" else trade_or_kind(record)
    if isinstance(message, dict):
        keys = len(record) if message is record else len(record) + len(message)
        return message if line.count(b'":') <= keys and not any(colon in line for colon in _COLONS) else None  # a key may be there twice
    return message if isinstance(message, str) else None


def _read_by_value(line: bytes) -> Iterator[Record | Broken]:
    for value in JsonValues().add(line, last=True):
        message = value if isinstance(value, Broken) else trade_or_kind(value)
        yield message if isinstance(message, dict) else value
