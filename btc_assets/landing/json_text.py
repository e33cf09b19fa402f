"""JSON lines: text becomes raw tables, a bounded number of rows at a time."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import orjson
import pyarrow as pa

from btc_assets.landing.bounds import require_columns
from btc_assets.landing.raw import UNPARSED

BATCH_ROWS = 65_536  # the most rows of a table


def read_json_lines(file: BinaryIO) -> Iterator[pa.Table]:
    """The raw tables of JSON lines, each of at most `BATCH_ROWS` rows; all columns are text."""
    lines = (line for line in io.BufferedReader(file) if line.strip())  # type: ignore[type-var]  # a stream of bytes is enough
    names: dict[str, None] = {}  # of all blocks so far: a field that one block happens to lack is null there, not missing
    while block := list(itertools.islice(lines, BATCH_ROWS)):
        records = [_parse_message(line) for line in block]
        names.update(dict.fromkeys(itertools.chain.from_iterable(filter(None, records))))
        require_columns(len(names))
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
