"""From Arrow to PostgreSQL's binary COPY format, each column in the type that the server expects."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pgpq import ArrowToPostgresBinaryEncoder
from pgpq.encoders import StringEncoderBuilder
from pgpq.schema import Jsonb

from btc_assets.domain.errors import UserError
from btc_assets.store.tables import Target

ENCODE_ROWS = 65_536  # pgpq is three times faster on batches of this size than on small ones

_ARROW_TYPES = {
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "smallint": pa.int16(),
    "text": pa.string(),
    "jsonb": pa.string(),
    "boolean": pa.bool_(),
    "double precision": pa.float64(),
    "real": pa.float32(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "bytea": pa.binary(),
}


@dataclass(frozen=True)
class EncodedRows:
    """Rows in PostgreSQL's binary COPY format; no buffer if there is no row."""

    columns: tuple[str, ...]
    buffers: list[bytes] = field(repr=False)


def encode_rows(rows: pa.Table, target: Target) -> EncodedRows:
    """Encode rows for COPY into a table.

    Raises:
        UserError: a column is unknown, missing or not convertible.
    """
    if not len(rows):
        return EncodedRows((), [])
    rows = _without_nulls(rows, target)
    types = _column_types(rows, target)
    arrays = []
    for name, type_name in types.items():
        try:
            arrays.append(_convert(rows[name], type_name))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"Column {name} ({rows[name].type}) does not convert to {type_name} ({error}).") from error
    converted = pa.table(arrays, names=rows.column_names)
    encoders = {
        field.name: StringEncoderBuilder.new_with_output(field, Jsonb())
        if types[field.name] == "jsonb"
        else ArrowToPostgresBinaryEncoder.infer_encoder(field)
        for field in converted.schema
    }
    encoder = ArrowToPostgresBinaryEncoder.new_with_encoders(converted.schema, encoders)
    buffers = [encoder.write_header()]
    buffers += [encoder.write_batch(batch) for batch in converted.combine_chunks().to_batches(max_chunksize=ENCODE_ROWS)]
    buffers.append(encoder.finish())
    return EncodedRows(tuple(rows.column_names), buffers)


def _without_nulls(rows: pa.Table, target: Target) -> pa.Table:
    """The rows without the columns in which every value is null: COPY makes them null as well, and is faster without them."""
    optional = {column.name for column in target.columns if column.nullable and not column.has_default}
    return rows.drop_columns([name for name in rows.column_names if name in optional and rows[name].null_count == len(rows)])


def _column_types(rows: pa.Table, target: Target) -> dict[str, str]:
    """PostgreSQL's type of each Arrow column."""
    types, names = {column.name: column.type for column in target.columns}, rows.column_names
    unknown = [name for name in names if name not in types]
    missing = [column.name for column in target.columns if column.required and column.name not in names]
    if unknown or missing:
        unknown_text = [f"{target.table} has no column {', '.join(unknown)}"] * bool(unknown)
        missing_text = [f"it lacks {', '.join(missing)}"] * bool(missing)
        raise UserError(f"The Arrow data does not fit the table: {'; '.join(unknown_text + missing_text)}.")
    return {name: types[name] for name in names}


def _convert(column: pa.ChunkedArray, type_name: str) -> pa.ChunkedArray:
    if type_name == "vector":
        return pa.chunked_array([_vectors(chunk) for chunk in column.chunks], pa.binary())
    if type_name == "numeric":
        return column if pa.types.is_decimal(column.type) else column.cast(pa.decimal128(38, 12))
    if type_name not in _ARROW_TYPES:
        raise pa.ArrowNotImplementedError(f"columns of type {type_name} are not written by COPY yet")
    wanted = _ARROW_TYPES[type_name]
    return column if column.type == wanted else column.cast(wanted)


def _vectors(lists: pa.Array) -> pa.Array:
    """Lists of floats as pgvector receives them: dimension and zero as big-endian int16, then big-endian float32s."""
    if not len(lists):
        return pa.array([], pa.binary())
    lengths = pc.list_value_length(lists)
    dim = pc.max(lengths).as_py() or 0
    if pc.min(lengths).as_py() not in (dim, None):
        raise pa.ArrowInvalid("the vectors differ in length")
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    values = lists.drop_null().flatten().cast(pa.float32())
    if values.null_count or not np.isfinite(values.to_numpy(zero_copy_only=False)).all():
        raise pa.ArrowInvalid("a vector has an element that is null or not finite")
    wire = np.empty((int(valid.sum()), 4 + 4 * dim), np.uint8)
    wire[:, :4] = np.array([dim, 0], ">i2").view(np.uint8)
    wire[:, 4:] = values.to_numpy(zero_copy_only=False).astype(">f4").reshape(-1, dim).view(np.uint8) if dim else 0
    encoded: list[bytes | None] = [None] * len(lists)
    for position, row in zip(np.flatnonzero(valid).tolist(), wire, strict=True):
        encoded[position] = row.tobytes()
    return pa.array(encoded, pa.binary())
