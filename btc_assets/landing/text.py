"""Text formats: which one a text is in, and its raw tables. Containers such as gzip and zip are in `formats.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from btc_assets.landing.csv_text import read_csv
from btc_assets.landing.json_text import read_json_lines
from btc_assets.landing.raw import ObjectRejected

HEAD_BYTES = 4096  # of a text that tell its format


def find_text_format(head: bytes) -> str:
    """The name of the format of a text, `csv` or `jsonl`.

    Args:
        head: the first `HEAD_BYTES` of the text.

    Raises:
        ObjectRejected: it is no text.
    """
    if b"\0" in head:
        raise ObjectRejected("its format is unknown: land Parquet, CSV or JSON lines, plain, gzipped or (CSV) zipped")
    # Search all lines, because the first one may be broken.
    return "jsonl" if re.search(rb"^(\xef\xbb\xbf)?\s*(\d+\s+)?\{", head, re.MULTILINE) else "csv"


def read_text(format: str, file: BinaryIO) -> Iterator[pa.Table]:
    """The raw tables of a text in the format that `find_text_format` found."""
    yield from read_json_lines(file) if format == "jsonl" else read_csv(file)
