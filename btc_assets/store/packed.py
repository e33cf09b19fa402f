"""Rows packed by the server: all values of a column as one value, in the server's own binary form, which NumPy takes apart at once.

A row costs a message, a call of libpq and one of Python; a value costs a call of its type's send function whatever is done with it. So
one row is sent for many: `string_agg(int8send(x), '')` of a column without nulls, `array_send(array_agg(x))` of any other. That costs
the server what COPY costs it, and the client almost nothing. Numerics come in PostgreSQL's digits to base 10000 and become decimals of
Arrow without a value of Python in between, exact or refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.domain.ticks import decimal128
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_EPOCH_US, _EPOCH_DAYS = 946_684_800_000_000, 10_957  # PostgreSQL counts from 2000-01-01
_ARRAY_HEADER, _ELEMENT_HEADER, _VECTOR_HEADER, _NUMERIC_HEADER = 20, 4, 4, 4  # bytes; of a numeric, words of 16 bits
_NEGATIVE = 0x4000
_FEW_DIGITS = 10  # to base 10000: the numerics of a Decimal128 have no more
_PLACES = np.array([1, 10**4, 10**8, 10**12])  # of the digits to base 10000 in an int64, a limb
_LIMB_DIGITS, _LIMB = 4, 10**16


@dataclass(frozen=True)
class Wire:
    """How a type travels.

    Attributes:
        sql_type: what the column is cast to, which fixes the form of its values.
        send: the server's function for one value.
        decode: makes an Arrow array of a type from values that are not null.
        fixed: whether the sent values of a column tell where each of them ends, so that they may follow each other without lengths.
    """

    sql_type: str
    send: str
    decode: Callable[[Sent, pa.DataType], pa.Array]
    fixed: bool = True


@dataclass(frozen=True)
class Sent:
    """The values of a column that are not null, one after the other, as the server sent them.

    Attributes:
        data: bytes of the values.
        lengths: of each value in bytes; None if the type tells.
        valid: which rows have a value; None if all have.
        rows: number of rows.
    """

    data: np.ndarray
    lengths: np.ndarray | None
    valid: np.ndarray | None
    rows: int

    @property
    def count(self) -> int:
        """Number of values."""
        return self.rows if self.valid is None else int(self.valid.sum())

    def numbers(self, dtype: str) -> np.ndarray:
        """Values of one width, in the order of bytes of this machine."""
        values = self.data.view(dtype)
        return values.astype(values.dtype.newbyteorder("="))

    def require(self, found: int) -> None:
        """Require that as many values were found as there are."""
        if found != self.count:
            raise pa.ArrowInvalid(f"{found} values in {self.count} rows; a null?")

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        """The same values with a zero for each row that has none."""
        if self.valid is None:
            return values
        spread = np.zeros(self.rows, values.dtype)
        spread[self.valid] = values
        return spread

    @property
    def validity(self) -> pa.Buffer | None:
        """Arrow's bitmap of `valid`."""
        return None if self.valid is None else pa.py_buffer(np.packbits(self.valid, bitorder="little"))

    def offsets(self, lengths: np.ndarray) -> pa.Buffer:
        """Arrow's offsets of values that have lengths."""
        return pa.py_buffer(np.concatenate([[0], np.cumsum(self.of_rows(lengths))]).astype(np.int32))


def pack_columns(schema: pa.Schema) -> sql.Composed:
    """The expressions that pack the columns of a schema, each named as its field."""
    return sql.SQL(", ").join(_pack(field) for field in schema)


def unpack_columns(schema: pa.Schema, pieces: Sequence[Sequence[bytes]], counts: Sequence[int]) -> list[pa.Array]:
    """The columns of a schema.

    Args:
        schema: as for `pack_columns`; a field that is not nullable may hold no null.
        pieces: for each field, what was sent for it, once a packed row.
        counts: rows of each packed row.

    Raises:
        UserError: a value has no equal in Arrow's type.
    """
    return [_unpack(field, sent, counts) for field, sent in zip(schema, pieces, strict=True)]


def fetch_packed(connection: psycopg.Connection, select: sql.Composable, schema: pa.Schema) -> pa.Table:
    """All rows of a query that returns little, by a session that is there already: an ADBC session takes ten times as long to open.

    Args:
        connection: to the store.
        select: the query; its columns are named as the schema's fields. A gigabyte at most in one column.
        schema: of the rows, as for `pack_columns`.

    Raises:
        UserError: a value has no equal in Arrow's type, or the server refuses the query.
        TransientError: the server ends the session.
    """
    statement = sql.SQL("SELECT count(*), {} FROM ({}) AS packed").format(pack_columns(schema), select)
    with server_errors(), connection.transaction(), connection.cursor(binary=True) as cursor:
        count, *sent = only_row(cursor.execute(statement))
    if not count:
        return schema.empty_table()
    return pa.Table.from_arrays(unpack_columns(schema, [[each] for each in sent], [count]), schema=schema)


def pack_value(field: pa.Field) -> sql.Composed:
    """The expression that sends one value of a column of numbers or times, for `repeat_each`."""
    wire = _wire(field.type)
    return sql.SQL("{}({}::{})").format(sql.SQL(wire.send), sql.Identifier(field.name), sql.SQL(wire.sql_type))


def repeat_each(field: pa.Field, sent: Sequence[bytes], counts: Sequence[int]) -> pa.Array:
    """A column in which each value is repeated, from what `pack_value` sent."""
    values = _wire(field.type).decode(Sent(np.frombuffer(b"".join(sent), np.uint8), None, None, len(sent)), field.type)
    places = np.repeat(np.arange(len(sent)), counts)
    return values.take(pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)]))


def repeat_text(value: str, count: int) -> pa.Array:
    """A column in which a text is repeated; `pa.scalar` imports pandas, which takes longer than a hundred thousand rows."""
    data = value.encode()
    alone = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, len(data)], np.int32)), pa.py_buffer(data)])
    return pa.repeat(alone[0], count)


def _pack(field: pa.Field) -> sql.Composed:
    wire = _wire(field.type)
    value = sql.SQL("{}::{}").format(sql.Identifier(field.name), sql.SQL(wire.sql_type))
    if _in_sequence(field):
        return sql.SQL("string_agg({}({}), ''::bytea)").format(sql.SQL(wire.send), value)
    if wire.sql_type == "vector":  # its type of array is the extension's
        value = sql.SQL("vector_send({})").format(value)
    return sql.SQL("array_send(array_agg({}))").format(value)


def _unpack(field: pa.Field, pieces: Sequence[bytes], counts: Sequence[int]) -> pa.Array:
    wire, rows = _wire(field.type), sum(counts)
    if _in_sequence(field):
        sent = [Sent(np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), np.uint8), None, None, rows)]
    else:
        sent = [_take_apart(piece, count) for piece, count in zip(pieces, counts, strict=True)]
    try:
        arrays = [wire.decode(each, field.type) for each in sent]
    except (pa.ArrowInvalid, ArithmeticError) as error:
        raise UserError(f"The column {field.name} holds a value that {field.type} cannot hold ({error}).") from None
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _in_sequence(field: pa.Field) -> bool:
    return _wire(field.type).fixed and not field.nullable


def _take_apart(array: bytes, rows: int) -> Sent:
    """The elements of an array of one dimension: a header, then the length of each element and its bytes; a length of -1 is a null."""
    lengths = np.frombuffer(array, ">i4", 1, _ARRAY_HEADER) if len(array) > _ARRAY_HEADER else np.empty(0, ">i4")
    body = np.frombuffer(array, np.uint8, offset=_ARRAY_HEADER)
    width = max(int(lengths[0]), 0) if len(lengths) else 0
    if len(body) == rows * (_ELEMENT_HEADER + width):  # the common case: all elements are of one length, or null
        table = body.reshape(rows, -1)
        lengths = np.ascontiguousarray(table[:, :_ELEMENT_HEADER]).view(">i4").ravel()
        if (lengths == lengths[:1]).all():
            valid = None if lengths[0] >= 0 else np.zeros(rows, bool)
            return Sent(table[:, _ELEMENT_HEADER:].ravel(), lengths if valid is None else lengths[:0], valid, rows)
    return _walk_elements(array, rows)


def _walk_elements(array: bytes, rows: int) -> Sent:
    at, lengths, values = _ARRAY_HEADER, [], []
    for _ in range(rows):
        (length,) = struct.unpack_from(">i", array, at)
        at += _ELEMENT_HEADER
        lengths.append(length)
        if length > 0:
            values.append(array[at : at + length])
            at += length
    all_lengths = np.array(lengths)
    valid = all_lengths >= 0
    return Sent(np.frombuffer(b"".join(values), np.uint8), all_lengths[valid], None if valid.all() else valid, rows)


def _decode_numbers(dtype: str, shift: int = 0) -> Callable[[Sent, pa.DataType], pa.Array]:
    def decode(sent: Sent, type: pa.DataType) -> pa.Array:
        values = sent.numbers(dtype)
        sent.require(len(values))
        if shift:
            limits = np.iinfo(values.dtype)
            if len(values) and (values.max() > limits.max - shift or values.min() == limits.min):
                raise pa.ArrowInvalid("an infinite time")
            values += values.dtype.type(shift)
        return pa.Array.from_buffers(type, sent.rows, [sent.validity, pa.py_buffer(sent.of_rows(values))])

    return decode


def _decode_booleans(sent: Sent, type: pa.DataType) -> pa.Array:
    sent.require(len(sent.data))
    bits = np.packbits(sent.of_rows(sent.data.view(bool)), bitorder="little")
    return pa.Array.from_buffers(type, sent.rows, [sent.validity, pa.py_buffer(bits)])


def _decode_bytes(sent: Sent, type: pa.DataType) -> pa.Array:
    assert sent.lengths is not None
    return pa.Array.from_buffers(type, sent.rows, [sent.validity, sent.offsets(sent.lengths), pa.py_buffer(sent.data)])


def _decode_vectors(sent: Sent, type: pa.ListType | pa.FixedSizeListType) -> pa.Array:
    """Vectors as pgvector sends them: the dimension and a zero as big-endian int16, then big-endian float32 values."""
    assert sent.lengths is not None
    starts = np.cumsum(sent.lengths) - sent.lengths
    elements = np.ones(len(sent.data), bool)
    for byte in range(_VECTOR_HEADER):
        elements[starts + byte] = False
    floats = sent.data[elements].view(">f4").astype(np.float32)
    offsets = sent.offsets((sent.lengths - _VECTOR_HEADER) // floats.itemsize)
    return pa.Array.from_buffers(type, sent.rows, [sent.validity, offsets], children=[_floats(floats)])


def _floats(values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.float32(), len(values), [None, pa.py_buffer(values)])


def _decode_numerics(sent: Sent, type: pa.Decimal128Type) -> pa.Array:
    """Numerics: number of digits to base 10000, weight of the first one, sign, decimal places shown, then the digits; words of 16 bits."""
    words = sent.numbers(">i2")
    starts = _numeric_starts(words, sent.count)
    sent.require(len(starts))
    length, weight, sign = (words[starts + word].astype(np.int64) for word in range(3))
    if ((sign != 0) & (sign != _NEGATIVE)).any():
        raise pa.ArrowInvalid("NaN or infinity")
    places = -(-type.scale // _LIMB_DIGITS)  # groups of digits behind the point
    place = np.where(length > 0, places + weight, 0)  # of the first digit, counted from the last one that the type can hold
    if (length > place + 1).any():
        raise pa.ArrowInvalid("more decimal places")
    limbs = np.zeros((max(int(place.max(initial=0)) // _LIMB_DIGITS, 0) + 1, len(starts)), np.int64)
    for digit in range(int(length.max(initial=0))):
        units = words.take(starts + (_NUMERIC_HEADER + digit), mode="clip") * _PLACES[(place - digit) % _LIMB_DIGITS]
        units[digit >= length] = 0
        if len(limbs) == 1:
            limbs[0] += units
        else:
            for number, limb in enumerate(limbs):
                limb += np.where((place - digit) // _LIMB_DIGITS == number, units, 0)
    limbs[:, sign == _NEGATIVE] *= -1
    return _decimals(sent, limbs, type, places * _LIMB_DIGITS)


def _numeric_starts(words: np.ndarray, count: int) -> np.ndarray:
    """Where each numeric begins.

    Each tells its length, so that one must be read before the next one is found. Instead, all words that may be the first of one are
    found at once, and it is proved that they are: each one ends where the next begins. If not, they are walked through.
    """
    if len(words) >= _NUMERIC_HEADER:
        sign = words[2:-1]
        starts = np.flatnonzero((words[3:] == words[3]) & ((sign == 0) | (sign == _NEGATIVE)) & (words[:-3].view(np.uint16) < _FEW_DIGITS))
        if (
            len(starts) == count
            and starts[0] == 0
            and (starts + _NUMERIC_HEADER + words[starts] == np.append(starts[1:], len(words))).all()
        ):
            return starts
    all_words, at, walked = words.tolist(), 0, []
    while at < len(all_words):
        walked.append(at)
        at += _NUMERIC_HEADER + all_words[at]
    return np.array(walked, np.int64)


def _decimals(sent: Sent, limbs: np.ndarray, type: pa.Decimal128Type, scale: int) -> pa.Array:
    """Decimals from limbs of 16 digits, the lowest first, which count units of a scale that is at least the type's."""
    units = sent.of_rows(limbs[0])
    if len(limbs) == 1 and scale == type.scale and type.precision >= 4 * _LIMB_DIGITS:
        return decimal128(units, type, sent.valid)
    if len(limbs) > 2:
        numbers = [sum(int(limb) * _LIMB**number for number, limb in enumerate(column)) for column in limbs.T]
        surplus: int = 10 ** (scale - type.scale)
        if any(number % surplus for number in numbers):
            raise pa.ArrowInvalid("more decimal places")
        found = iter([Decimal(f"{number // surplus}E-{type.scale}") for number in numbers])
        valid = np.ones(sent.rows, bool) if sent.valid is None else sent.valid
        return pa.array([next(found) if one else None for one in valid], type)
    total: pa.Array = decimal128(units, pa.decimal128(16, 0), sent.valid)
    if len(limbs) == 2:
        high = pa.array(sent.of_rows(limbs[1])).cast(pa.decimal128(19, 0))
        total = pc.add(pc.multiply(high, pa.scalar(Decimal(_LIMB), pa.decimal128(17, 0))), total)
    return pa.Array.from_buffers(pa.decimal128(38, scale), len(total), total.buffers(), offset=total.offset).cast(type)


_WIRES = {
    pa.int64(): Wire("bigint", "int8send", _decode_numbers(">i8")),
    pa.int32(): Wire("integer", "int4send", _decode_numbers(">i4")),
    pa.int16(): Wire("smallint", "int2send", _decode_numbers(">i2")),
    pa.float64(): Wire("double precision", "float8send", _decode_numbers(">f8")),
    pa.float32(): Wire("real", "float4send", _decode_numbers(">f4")),
    pa.bool_(): Wire("boolean", "boolsend", _decode_booleans),
    pa.date32(): Wire("date", "date_send", _decode_numbers(">i4", _EPOCH_DAYS)),
    pa.timestamp("us", "UTC"): Wire("timestamptz", "timestamptz_send", _decode_numbers(">i8", _EPOCH_US)),
    pa.string(): Wire("text", "textsend", _decode_bytes, fixed=False),
    pa.binary(): Wire("bytea", "byteasend", _decode_bytes, fixed=False),
    pa.list_(pa.float32()): Wire("vector", "vector_send", _decode_vectors, fixed=False),
}
_NUMERIC = Wire("numeric", "numeric_send", _decode_numerics)


def _wire(type: pa.DataType) -> Wire:
    return _NUMERIC if pa.types.is_decimal128(type) else _WIRES[type]
