"""Parquet: files become raw tables, in memory bounded by what their footers say and by what their dictionaries hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_assets.landing.bounds import BATCH_CELLS, BATCH_ROWS, BATCH_TEXT_BYTES, TEXT_BYTES, Bounds, exceeded, require_columns

ParquetSource: TypeAlias = bytes | Path | BinaryIO

# A dictionary names a text once that every row repeats, and DELTA_BYTE_ARRAY writes only how a text differs from the one before. If
# that could make more than this of a file, its texts are measured before they are written out.
_UNMEASURED_BYTES = 96 << 20
_WRITTEN_OUT = {"PLAIN", "RLE", "BIT_PACKED"}  # encodings of a column that holds the text of every row; two of them are of levels


def read_parquet(source: ParquetSource, bounds: Bounds) -> Iterator[pa.Table]:
    """The raw tables of a Parquet file; columns of lists come as nulls."""
    with _open(source) as file:
        footer = file.metadata
        require_columns(footer.num_columns)
        bounds.expect_rows(footer.num_rows)
        sizes = [footer.row_group(i).total_byte_size for i in range(footer.num_row_groups)]
        bounds.expect_bytes(sum(sizes))
        largest = max(sizes, default=0)
        if footer.num_rows * largest > _UNMEASURED_BYTES and footer.num_rows * _largest_repeating(footer) > _UNMEASURED_BYTES:
            yield from _measured(source, footer, largest)
            return
        batch_rows, schema = _batch_rows(footer), file.schema_arrow
        columns = _flat_columns(schema)
        if footer.num_rows <= batch_rows:  # one call is faster
            yield _checked(file.read(columns, use_threads=False), schema)
            return
        for batch in file.iter_batches(batch_rows, columns=columns, use_threads=False):
            yield _checked(pa.Table.from_batches([batch]), schema)


def _open(source: ParquetSource, read_dictionary: list[str] | None = None) -> pq.ParquetFile:
    reader = pa.BufferReader(source) if isinstance(source, bytes) else source
    return pq.ParquetFile(reader, page_checksum_verification=True, pre_buffer=False, read_dictionary=read_dictionary)


def _batch_rows(footer: pq.FileMetaData) -> int:
    return max(1, min(BATCH_ROWS, BATCH_CELLS // max(1, footer.num_columns)))


def _text_chunks(footer: pq.FileMetaData) -> Iterator[tuple[int, pq.ColumnChunkMetaData]]:
    """The column chunks that hold text, each with the number of its row group."""
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        for number in range(footer.num_columns):
            if footer.schema.column(number).physical_type == "BYTE_ARRAY":
                yield group, row_group.column(number)


def _largest_repeating(footer: pq.FileMetaData) -> int:
    """The bytes of texts that rows may repeat, in the row group that has most of them."""
    sizes = Counter[int]()
    for group, column in _text_chunks(footer):
        if column.has_dictionary_page or not _WRITTEN_OUT.issuperset(column.encodings):
            sizes[group] += column.total_uncompressed_size
    return max(sizes.values(), default=0)


def _measured(source: ParquetSource, footer: pq.FileMetaData, largest: int) -> Iterator[pa.Table]:
    """The raw tables of a file whose texts are measured before they are written out."""
    by_reference, by_difference = set[str](), False
    for _, column in _text_chunks(footer):
        by_difference |= "DELTA_BYTE_ARRAY" in column.encodings
        if column.has_dictionary_page:
            by_reference.add(column.path_in_schema)
    # Pages hold many rows each, so a table of a few rows is no less memory.
    batch_rows = min(_batch_rows(footer), max(1_024, BATCH_TEXT_BYTES * footer.num_rows // largest))
    if by_difference:
        batch_rows = max(1, min(batch_rows, BATCH_TEXT_BYTES // largest))
    with _open(source, sorted(by_reference)) as file:
        none_read = True
        for batch in file.iter_batches(batch_rows, columns=_flat_columns(file.schema_arrow), use_threads=False):
            yield from _written_out(_checked(pa.Table.from_batches([batch]), file.schema_arrow))
            none_read = False
        if none_read:
            yield file.schema_arrow.empty_table()


def _written_out(table: pa.Table) -> Iterator[pa.Table]:
    """The rows with texts in place of references, as many at a time as their longest texts allow."""
    referred, plain = 0, 0
    for column in table.columns:
        if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
            referred += max((_longest(chunk.dictionary) for chunk in column.chunks), default=0)
        elif _is_text(column.type):
            plain = max([plain, *map(_longest, column.chunks)])
    if max(referred, plain) > TEXT_BYTES:
        raise exceeded("the length of a text", f"({TEXT_BYTES:,} bytes)")
    rows = max(1, BATCH_TEXT_BYTES // max(1, referred))
    for start in range(0, len(table), rows):
        part = table.slice(start, rows)
        yield pa.table(
            [
                pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
                if pa.types.is_dictionary(column.type)
                else column
                for column in part.columns
            ],
            names=part.column_names,
        )


def _is_text(type: pa.DataType) -> bool:
    return pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_binary(type) or pa.types.is_large_binary(type)


def _longest(texts: pa.Array) -> int:
    return pc.max(pc.binary_length(texts)).as_py() or 0 if len(texts) else 0


def _flat_columns(schema: pa.Schema) -> list[str] | None:
    """The columns that hold one value a row, which bounds what a row takes; None if all do."""
    flat = [field.name for field in schema if not _repeats(field.type)]
    return flat if len(flat) < len(schema) else None


def _repeats(type: pa.DataType) -> bool:
    if not pa.types.is_nested(type):
        return False
    return not pa.types.is_struct(type) or any(_repeats(type.field(i).type) for i in range(type.num_fields))


def _checked(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table after a full check, with nulls in place of the columns that were not read."""
    table.validate(full=True)  # the reader checks neither that text is UTF-8 nor that dictionary indices are in range
    if len(table.column_names) == len(schema):
        return table
    columns = {name: table[name] for name in table.column_names}
    return pa.table({name: columns.get(name, pa.nulls(len(table))) for name in schema.names})
