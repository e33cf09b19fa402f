"""Record batches as Parquet, Arrow IPC, CSV or JSON, a batch at a time into any binary stream.

What the text formats write, so that nothing is lost:

* times as ISO 8601 in UTC, with a fraction if the column's unit is smaller than a second: `2024-01-10T12:00:00.123000Z`;
* decimals in full and never in scientific notation, in JSON as strings, because most readers of JSON make floats of numbers;
* lists as arrays; in CSV, as the text of a JSON array;
* what is not known as nothing in CSV, as `null` in JSON. Floats that are no number are `nan` and `inf` in CSV, and `null` in JSON.

Text is UTF-8 whatever the locale says. CSV has a line of headings, JSON is one array with an object on each line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc

# A row group of Parquet: large enough to compress well, small enough to be held in memory, also with vectors in it.
_GROUP_ROWS, _GROUP_BYTES = 250_000, 32 << 20

_TEXT_ROWS = 10_000  # written at once as text

_SPECIAL = '[",\r\n]'  # what makes quotes necessary in CSV
_DECIMALS = 8  # of the exchange's figures; a product of two of them has up to twenty, most of them zeros
_SUPERFLUOUS_ZEROS = r"^(-?\d+\.\d{8}\d*?)0+$"


class BatchWriter(Protocol):
    """Writes batches of one schema into a stream, which stays open; made by `writing`."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one batch."""

    def close(self) -> None:
        """Write what belongs to the end."""


class ParquetWriter:
    """Parquet: zstd, times and whole numbers as differences, decimals as integers where they fit."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        counted = [field.name for field in schema if pa.types.is_int64(field.type) or pa.types.is_timestamp(field.type)]
        self._writer = pq.ParquetWriter(
            pa.PythonFile(stream, "w"), schema,
            compression="zstd",
            store_decimal_as_integer=True,
            use_dictionary=[field.name for field in schema if field.name not in counted],
            column_encoding=dict.fromkeys(counted, "DELTA_BINARY_PACKED") or None,
        )  # fmt: skip
        self._schema, self._held, self._rows, self._bytes = schema, list[pa.RecordBatch](), 0, 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._rows, self._bytes = self._rows + batch.num_rows, self._bytes + batch.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._held, self._schema), row_group_size=self._rows)
        self._held, self._rows, self._bytes = [], 0, 0


class ArrowWriter:
    """Arrow IPC: the file format, or the format of streams, which a reader understands without seeking; lz4."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema, *, seekable: bool = True) -> None:
        opener = pa.ipc.new_file if seekable else pa.ipc.new_stream
        self._writer = opener(pa.PythonFile(stream, "w"), schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class CsvWriter:
    """CSV with a line of headings."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._stream = stream
        self._write_lines([_quoted(pa.array([name])) for name in schema.names])

    def write(self, batch: pa.RecordBatch) -> None:
        for start in range(0, batch.num_rows, _TEXT_ROWS):
            self._write_lines([_csv_cells(column) for column in batch.slice(start, _TEXT_ROWS).columns])

    def close(self) -> None:
        pass

    def _write_lines(self, cells: list[pa.Array]) -> None:
        lines = pc.binary_join_element_wise(*cells, ",", null_handling="replace", null_replacement="")
        whole = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines), "\n")
        self._stream.write(whole[0].as_buffer())
        self._stream.write(b"\n")


class JsonWriter:
    """One JSON array, an object on each line."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._stream, self._names, self._between = stream, schema.names, b"[\n"

    def write(self, batch: pa.RecordBatch) -> None:
        import orjson

        for start in range(0, batch.num_rows, _TEXT_ROWS):
            rows = zip(*map(_json_values, batch.slice(start, _TEXT_ROWS).columns), strict=True)
            lines = (orjson.dumps(dict(zip(self._names, row, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY) for row in rows)
            self._stream.write(self._between + b",\n".join(lines))
            self._between = b",\n"

    def close(self) -> None:
        self._stream.write(b"[]\n" if self._between == b"[\n" else b"\n]\n")


_WRITERS: dict[str, Callable[[BinaryIO, pa.Schema], BatchWriter]] = {
    "parquet": ParquetWriter,
    "arrow": ArrowWriter,
    "arrow stream": partial(ArrowWriter, seekable=False),
    "csv": CsvWriter,
    "json": JsonWriter,
}


@contextmanager
def writing(form: str, stream: BinaryIO, schema: pa.Schema) -> Iterator[BatchWriter]:
    """Write batches into a stream. It is whole after the block; after an error, nothing but CSV can be taken for whole.

    Args:
        form: `parquet`, `arrow` (a file), `arrow stream`, `csv` or `json`.
        stream: stays open.
        schema: of the batches.
    """
    gate = _Gate(stream)
    writer = _WRITERS[form](cast(BinaryIO, gate), schema)
    try:
        yield writer
        writer.close()
    finally:
        gate.shut = True


class _Gate:
    """A stream until it is shut: a writer of Parquet that is thrown away would still write what makes the file whole."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.shut = stream, False

    def write(self, data: Any) -> int:
        return len(data) if self.shut else self._stream.write(data)

    def flush(self) -> None:
        pass


def cell_texts(column: pa.Array) -> pa.Array:
    """The text of each cell of a column as CSV shows it; null where it is not known."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        naive = pc.cast(column, pa.timestamp(kind.unit)).cast(pa.string())  # needs no list of time zones; they all count from UTC
        return pc.binary_join_element_wise(pc.binary_replace_slice(naive, 10, 11, "T"), "Z", "")
    if pa.types.is_decimal(kind):
        return _decimal_texts(column)
    if pa.types.is_nested(kind):
        return pa.array([None if value is None else _json_text(value) for value in _json_values(column)], pa.string())
    if pa.types.is_dictionary(kind):
        return cell_texts(column.dictionary_decode())
    return column.cast(pa.string())


def _decimal_texts(column: pa.Array) -> pa.Array:
    if column.type.scale <= _DECIMALS:
        return _in_full(column.cast(pa.string()))
    try:
        return _in_full(column.cast(pa.decimal128(38, _DECIMALS)).cast(pa.string()))
    except pa.ArrowInvalid:  # one of them has more, or as many digits before the point as there can be
        return pc.replace_substring_regex(_in_full(column.cast(pa.string())), _SUPERFLUOUS_ZEROS, r"\1")


def _in_full(texts: pa.Array) -> pa.Array:
    """Arrow writes 0.00000001 as 1E-8."""
    scientific = pc.match_substring(texts, "E")
    if not pc.any(scientific).as_py():
        return texts
    short = pc.filter(texts, scientific).dictionary_encode()
    in_full = pa.array([f"{Decimal(text):f}" for text in short.dictionary.to_pylist()], pa.string())
    return pc.replace_with_mask(texts, pc.fill_null(scientific, False), in_full.take(short.indices))


def _csv_cells(column: pa.Array) -> pa.Array:
    texts = cell_texts(column)
    kind = column.type
    plain = pa.types.is_primitive(kind) or pa.types.is_decimal(kind)  # numbers and times need no quotes
    return texts if plain else _quoted(texts)


def _quoted(texts: pa.Array) -> pa.Array:
    """Cells with quotes where CSV needs them; also around empty text, which would be unknown otherwise."""
    needed = pc.or_(pc.match_substring_regex(texts, _SPECIAL), pc.equal(texts, ""))
    if not pc.any(needed).as_py():
        return texts
    return pc.if_else(needed, pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', ""), texts)


def _json_values(column: pa.Array) -> list[Any]:
    """The values of a column as `orjson` takes them."""
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_decimal(kind):
        return cell_texts(column).to_pylist()
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        return _json_lists(column)
    if pa.types.is_struct(kind):
        rows = zip(*(_json_values(part) for part in column.flatten()), strict=True)
        names = [field.name for field in kind]
        return [
            dict(zip(names, row, strict=True)) if known else None for row, known in zip(rows, column.is_valid().to_pylist(), strict=True)
        ]
    return column.to_pylist()


def _json_lists(column: pa.Array) -> list[Any]:
    items, lengths = pc.list_flatten(column), pc.list_value_length(column).to_pylist()
    exact = pa.types.is_float32(items.type) and not items.null_count
    values: Any = items.to_numpy() if exact else _json_values(items)  # NumPy's text is the shortest that is this float32
    found, start = [], 0
    for length in lengths:
        found.append(None if length is None else values[start : start + length])
        start += length or 0
    return found


def _json_text(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
