"""Small objects that unfold to something huge."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from btc_assets_tests.support.producers import parquet, zipped

HEADER = b"trade_time,symbol,trade_id,price,quantity,is_market_maker\n"
ROW = b"1704888000000,BTCUSDT,1,42000.5,0.25,true\n"
MESSAGE = b'{"e":"trade","E":1704888000000,"T":1704888000000,"s":"BTCUSDT","t":1,"p":"42000.5","q":"1","m":true}\n'


def _rows(count: int, **columns: pa.Array) -> pa.Table:
    rows = {
        "trade_time": pa.repeat(1704888000000, count), "symbol": pa.repeat("BTCUSDT", count), "trade_id": pa.repeat(1, count),
        "price": pa.repeat(42000.5, count), "quantity": pa.repeat(0.25, count), "is_market_maker": pa.repeat(True, count),
    }  # fmt: skip
    return pa.table(rows | columns)


def _gzip_of(line: bytes, size: int, start: bytes = b"") -> bytes:
    return gzip.compress(start + line * (size // len(line)))


def _zip_of(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        archive.writestr("a.csv", content)
    return sink.getvalue()


def _of_unsaid_size(size: int) -> bytes:
    """A member of line ends, by bzip2, whose directory says that it is short."""
    packer, line_ends = bz2.BZ2Compressor(), b"\n" * (1 << 20)
    packed = b"".join([packer.compress(HEADER), *(packer.compress(line_ends) for _ in range(size >> 20)), packer.flush()])
    data = bytearray(_zip_of(packed, zipfile.ZIP_STORED))
    for signature, method, unpacked in ((b"PK\3\4", 8, 22), (b"PK\1\2", 10, 24)):
        at = data.rindex(signature)
        struct.pack_into("<H", data, at + method, zipfile.ZIP_BZIP2)
        struct.pack_into("<I", data, at + unpacked, 1_000)
    return bytes(data)


def _overlapping(entries: int) -> bytes:
    """Many entries of the directory for one and the same member."""
    data = _zip_of(HEADER + ROW * 50_000)
    at = data.rindex(b"PK\1\2")
    end = data.rindex(b"PK\5\6")
    directory = data[at:end] * entries
    record = bytearray(data[end:])
    struct.pack_into("<HHI", record, 8, entries, entries, len(directory))
    return data[:at] + directory + bytes(record)


def _differences(rows: int, length: int) -> bytes:
    return parquet(_rows(rows, symbol=pa.repeat("B" * length, rows)), use_dictionary=False, column_encoding={"symbol": "DELTA_BYTE_ARRAY"})


def _nested(depth: int) -> bytes:
    kind: pa.DataType = pa.int64()
    for _ in range(depth):
        kind = pa.list_(kind)
    return parquet(_rows(3, deep=pa.nulls(3, kind)))


def _lists(values: int) -> bytes:
    return parquet(_rows(1, venues=pa.array([[0] * values])))


def _wide(columns: int) -> bytes:
    return parquet(_rows(1, **{f"c{i}": pa.array([1]) for i in range(columns)}))


def _row_groups(count: int) -> bytes:
    sink = io.BytesIO()
    rows = _rows(1)
    with pq.ParquetWriter(sink, rows.schema) as writer:
        for _ in range(count):
            writer.write_table(rows)
    return sink.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "a zip of a header of 360,000 columns": lambda: _zip_of(b"," * 360_000 + b"\n" + b"," * 360_000),
    "a gzip of 100 MB of equal rows": lambda: _gzip_of(ROW, 100 << 20, HEADER),
    "a gzip of 100 MB of equal messages": lambda: _gzip_of(MESSAGE, 100 << 20),
    "a gzip of 100 MB in one line": lambda: _gzip_of(b"1", 100 << 20, HEADER),
    "a gzip of one JSON string of 100 MB": lambda: _gzip_of(b"x", 100 << 20, b'{"t":"'),
    "a gzip of a JSON array of 100 MB": lambda: _gzip_of(MESSAGE.strip() + b",", 100 << 20, b"["),
    "a gzip of 100 MB of line ends": lambda: _gzip_of(b"\n", 100 << 20, HEADER),
    "a gzip of a gzip": lambda: gzip.compress(_gzip_of(ROW, 100 << 20, HEADER)),
    "a zip of 80 MB of equal rows, by LZMA": lambda: _zip_of(HEADER + ROW * 2_000_000, zipfile.ZIP_LZMA),
    "a zip of 14 MB of equal rows, by bzip2": lambda: _zip_of(HEADER + ROW * 350_000, zipfile.ZIP_BZIP2),
    "a zip of 400 MB of line ends, by bzip2, that says 1 kB": lambda: _of_unsaid_size(400 << 20),
    "a zip of twenty thousand members": lambda: zipped(*((f"{i}.csv", b"x") for i in range(20_000))),
    "a zip whose 5,000 entries overlap": lambda: _overlapping(5_000),
    "a zip of a Parquet bomb": lambda: zipped(("a.parquet", parquet(_rows(10_000_000)))),
    "a zip of a zip of 80 MB": lambda: zipped(("a.zip", _zip_of(HEADER + ROW * 2_000_000))),
    "Parquet of ten million equal rows": lambda: parquet(_rows(10_000_000)),
    "Parquet of 200,000 references to a text of 1 MB": lambda: parquet(
        _rows(200_000, symbol=pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 200_000), pa.array(["x" * (1 << 20)])))
    ),
    "Parquet of 200,000 references to a text of 60 kB": lambda: parquet(
        _rows(200_000, venue=pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 200_000), pa.array(["x" * 60_000])))
    ),
    "Parquet of 2,000 differences to a text of 200 kB": lambda: _differences(2_000, 200_000),
    "Parquet of 200,000 plain texts of 2 kB": lambda: parquet(
        _rows(200_000, symbol=pa.repeat("x" * 2_000, 200_000)), use_dictionary=False, compression="zstd"
    ),
    "Parquet of 5,000 columns": lambda: _wide(5_000),
    "Parquet of 450 columns and 200,000 rows": lambda: parquet(_rows(200_000, **{f"c{i}": pa.repeat(i, 200_000) for i in range(440)})),
    "Parquet of lists in lists, 40 deep": lambda: _nested(40),
    "Parquet of a list of two million": lambda: _lists(2_000_000),
    "Parquet of 5,000 row groups": lambda: _row_groups(5_000),
    "CSV of a million columns": lambda: b"a," * 1_000_000 + b"b\n" + b"1," * 1_000_000 + b"2\n",
    "CSV of a million columns without a header": lambda: b"1," * 1_000_000 + b"2\n",
    "CSV of a name of a megabyte": lambda: HEADER.replace(b"symbol", b"s" * 1_000_000) + ROW,
    "CSV of 250,000 wrong rows": lambda: HEADER + ROW.replace(b"42000.5", b"-1") * 250_000,
    "CSV of 250,000 rows that cannot be parsed": lambda: HEADER + b"1704888000000,BTCUSDT\n" * 250_000,
    "CSV of 60,000 cells that are no numbers": lambda: HEADER + ROW.replace(b"42000.5", b"n/a").replace(b"0.25", b"?") * 60_000,
    "JSON of a new key in each of 60,000 lines": lambda: b"".join(b'{"k%d":1}\n' % i for i in range(60_000)),
    "JSON of 700 keys in 7 kB": lambda: b"{" + b",".join(b'"k%d":1' % i for i in range(700)) + b"}\n",
    "JSON of 100,000 keys in a line": lambda: b"{" + b",".join(b'"k%d":1' % i for i in range(100_000)) + b"}\n",
    "JSON of 100,000 opening brackets": lambda: b'{"t":' + b"[" * 100_000 + b"\n",
    "JSON of a number of a megabyte": lambda: MESSAGE.replace(b'"42000.5"', b"9" * 1_000_000),
    "JSON of a decimal of a megabyte": lambda: MESSAGE.replace(b"42000.5", b"0." + b"9" * 1_000_000) * 8,
}
