"""Arrow tables as pandas data frames and as NumPy arrays, and decimals as floats: nothing is lost without being told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from btc_assets.domain.ticks import float64


def float_schema(schema: pa.Schema) -> pa.Schema:
    """A schema with float64 instead of decimals."""
    return pa.schema([field.with_type(pa.float64()) if pa.types.is_decimal(field.type) else field for field in schema])


def floats(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches in `float_schema`: each decimal becomes the float that is nearest to it."""
    for batch in batches:
        columns = [_as_floats(column) if pa.types.is_decimal(column.type) else column for column in batch.columns]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _as_floats(column: pa.Array) -> pa.Array:
    if not column.null_count:
        return pa.Array.from_buffers(pa.float64(), len(column), [None, pa.py_buffer(float64(pa.chunked_array([column])))])
    there = column.is_valid().to_numpy(zero_copy_only=False)
    values = np.zeros(len(column))
    values[there] = float64(pa.chunked_array([column.drop_null()]))
    return pa.array(values, mask=~there)


def whole_vectors(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """A stream whose vectors that may be missing are no slices of longer arrays: Polars 2.1 refuses these."""
    places = [place for place, field in enumerate(reader.schema) if field.nullable and pa.types.is_fixed_size_list(field.type)]
    if not places:
        return reader
    batches = (
        batch.take(pa.array(np.arange(len(batch)))) if any(batch.column(one).null_count for one in places) else batch for batch in reader
    )
    return pa.RecordBatchReader.from_batches(reader.schema, batches)


def fixed_lists(lists: pa.ListArray, type: pa.FixedSizeListType) -> pa.Array:
    """Lists of one length, nested or not, from flat lists; a null stays one."""
    sizes, inner = [], type
    while pa.types.is_fixed_size_list(inner):
        sizes.append(inner.list_size)
        inner = inner.value_type
    values = lists.drop_null().flatten()
    for size in reversed(sizes):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    if lists.null_count:
        there = lists.is_valid().to_numpy(zero_copy_only=False)
        values = values.take(pa.array(np.cumsum(there) - 1, mask=~there))
    return values.cast(type)


def to_pandas(pandas: Any, table: pa.Table) -> Any:
    """A data frame; decimals keep their Arrow type, integers that may be missing are `Int64`."""
    frame = table.to_pandas(types_mapper=lambda type: pandas.ArrowDtype(type) if pa.types.is_decimal(type) else None)
    for field in table.schema:
        if field.nullable and pa.types.is_integer(field.type):
            values = to_array(table[field.name])
            frame[field.name] = pandas.arrays.IntegerArray(np.array(values.data), np.array(np.ma.getmaskarray(values)))
    return frame


def to_numpy(table: pa.Table) -> dict[str, np.ndarray]:
    """An array for each column, as `Relation.numpy` documents them."""
    return {name: to_array(table[name]) for name in table.column_names}


def to_array(column: pa.ChunkedArray) -> np.ndarray:
    """One column as an array."""
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        return _vectors(column)
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy().view(f"datetime64[{kind.unit}]")
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        if not column.null_count:
            return column.to_numpy()
        missing = column.is_null().to_numpy()
        return np.ma.masked_array(column.fill_null(False if pa.types.is_boolean(kind) else 0).to_numpy(), missing)
    if pa.types.is_decimal(kind) or pa.types.is_nested(kind):
        values = np.empty(len(column), object)
        values[:] = column.to_pylist()
        return values
    return column.to_numpy()


def _vectors(column: pa.ChunkedArray) -> np.ndarray:
    """Vectors of one length as [rows, length]; a missing one is NaN throughout."""
    shape, kind = [len(column)], column.type
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    there = column.is_valid().to_numpy()
    values = column.drop_null().combine_chunks()
    while pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    result = np.full(shape, np.nan, kind.to_pandas_dtype())
    result[there] = values.to_numpy().reshape(-1, *shape[1:])
    return result
