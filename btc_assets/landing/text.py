"""Text formats: which one a text is in, and its raw tables. Containers such as gzip and zip are in `formats.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from btc_assets.landing.csv_text import read_csv
from btc_assets.landing.json_text import read_json
from btc_assets.landing.raw import ObjectRejected

HEAD_BYTES = 4096  # of a text that tell its format


# An object or an array of objects, behind what may stand before it. Look at all lines, because the first one may be broken.
_JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?[\s\0\x1e]*(?:\[\s*[{\]]|(?:\d+(?:\.\d+)?\s+)?\{)")
_OBJECT_LINE = re.compile(rb"^[\s\x1e]*(\d+\s+)?\{", re.MULTILINE)
_ARRAYS = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\[")
_FORMATS = "land Parquet, CSV or JSON lines, plain, gzipped or (CSV) zipped"

# What others compress or write with, by its first bytes.
_NOT_READ_HERE = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "LZ4",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"ARROW1": "Arrow",
    b"ORC": "ORC",
    b"Obj\x01": "Avro",
    b"%PDF": "PDF",
}
_UTF_16_OR_32 = re.compile(rb"\xff\xfe|\xfe\xff|\0\0\xfe\xff|(?:[\t\n\r -~]\0){4}|(?:\0[\t\n\r -~]){4}")


def find_text_format(head: bytes) -> str:
    """The name of the format of a text, `csv` or `jsonl`.

    Args:
        head: the first `HEAD_BYTES` of the text.

    Raises:
        ObjectRejected: it is no text, or one that cannot be read.
    """
    unread = next((name for first, name in _NOT_READ_HERE.items() if head.startswith(first)), None)
    if unread is not None:
        raise ObjectRejected(f"its format is {unread}, which cannot be read here: {_FORMATS}")
    if _UTF_16_OR_32.match(head):
        raise ObjectRejected("its text is UTF-16 or UTF-32, as Windows writes it: land it as UTF-8")
    if _ARRAYS.match(head):
        raise ObjectRejected("it holds JSON arrays whose values have no names, as of klines: land trades as objects with names")
    if _JSON_START.match(head):
        return "jsonl"
    if b"\0" in head:
        raise ObjectRejected(f"its format is unknown: {_FORMATS}")
    lines = sum(1 for line in head.splitlines() if line.strip())
    return "jsonl" if 2 * len(_OBJECT_LINE.findall(head)) >= max(lines, 1) else "csv"


def read_text(format: str, file: BinaryIO, notes: dict[str, Any]) -> Iterator[pa.Table]:
    """The raw tables of a text in the format that `find_text_format` found; `notes` gets what its messages of other kinds are."""
    yield from read_json(file, notes) if format == "jsonl" else read_csv(file)
