"""Converting single columns of any type to integers, times, decimals and booleans, exactly.

Whole columns are converted at once. Only if that fails, a slow path converts value by value and says which values are
unreadable; nothing here raises for a bad value.

What text may be is a list of patterns, here and in docs/landing.md. Arrow and Python read more than that (hexadecimal numbers, `1_0`, a
date without a clock), and Arrow's cast to decimals ends the process for some exponents. So Arrow gets a column of text only if its bytes
show that none of these can be in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.ticks import TIME, decimal128

_INT64_MAX = (1 << 63) - 1

# How programs write that there is no value, in lower case.
_NO_VALUE = ("", "nan", "null", "(null)", "none", "nil", "nat", "na", "n/a", "#n/a", "<na>", "\\n", "-", "undefined")

_LONGEST_NUMBER = 40  # characters of a number in text that Arrow is trusted with

# Other types that may hold text; each is cast to plain strings.
_TEXT = (
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)


class Converted(NamedTuple):
    """A converted column: its values, null if missing or unreadable, and by position why a value is unreadable."""

    values: pa.Array
    unreadable: dict[int, str]


def plain_array(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array, with text of any type as plain strings."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_primitive(array.type) and any(is_text(array.type) for is_text in _TEXT):
        with suppress(pa.ArrowInvalid):  # some bytes are not UTF-8: the conversion looks at each value
            array = array.cast(pa.string())
    return array


def python_value(scalar: pa.Scalar) -> object:
    """The value as a Python object, or as text if Python cannot represent it (the year 20000, an unknown time zone)."""
    try:
        value = scalar.as_py()
        return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    except (ValueError, OverflowError, LookupError):
        return " ".join(pa.repeat(scalar, 1).to_string().split())[2:-2]


def _convert_by_value(column: pa.Array, convert: Callable[[object], object], type: pa.DataType, expected: str) -> Converted:
    """The slow path: one value at a time."""
    values: list[object] = []
    unreadable: dict[int, str] = {}
    for i, value in enumerate(map(python_value, column)):
        try:
            values.append(None if value is None or str(value).strip().lower() in _NO_VALUE else convert(value))
        except (ValueError, ArithmeticError, TypeError):
            values.append(None)
            unreadable[i] = f"{repr(value) if isinstance(value, str) else str(value):.100} is not {expected}"
    return Converted(pa.array(values, type), unreadable)


# ---- text


def to_text(column: pa.Array) -> Converted:
    """Plain strings."""
    return Converted(column, {}) if pa.types.is_string(column.type) else _convert_by_value(column, str, pa.string(), "text")


def _as_found_and_tidied(texts: pa.Array) -> Iterator[pa.Array]:
    """The texts as they are, and then without white space around them, and null where one says that there is no value."""
    yield texts
    trimmed = pc.utf8_trim_whitespace(texts)
    yield pc.if_else(pc.is_in(pc.utf8_lower(trimmed), pa.array(_NO_VALUE)), None, trimmed)


def _cast_numbers(texts: pa.Array, type: pa.DataType) -> pa.Array | None:
    """Arrow's cast of text; None if it fails, or if a text may be a number that Arrow does not read as it must be read."""
    for plain in _as_found_and_tidied(texts):
        if _is_short_and_without_letters(plain):
            with suppress(pa.ArrowInvalid):
                return plain.cast(type)
    return None


def _is_short_and_without_letters(texts: pa.Array) -> bool:
    """Whether no text is long, hexadecimal or has an exponent."""
    return (pc.max(pc.binary_length(texts)).as_py() or 0) <= _LONGEST_NUMBER and not (_bytes(texts) > ord("9")).any()


def _bytes(texts: pa.Array) -> np.ndarray:
    """The bytes of all texts, one after another."""
    buffer, offsets = texts.buffers()[2], _offsets(texts)
    return np.empty(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)[offsets[0] : offsets[-1]]


def _offsets(texts: pa.Array) -> np.ndarray:
    """Where each text begins in the buffer of all, and where the last one ends."""
    buffer = texts.buffers()[1]
    return np.zeros(1, np.int32) if buffer is None else np.frombuffer(buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]


WORD_LENGTH = 40  # characters


def to_words(column: pa.Array, convert: Callable[[str], str]) -> Converted:
    """Words of at most 40 characters, which repeat: each distinct one is stripped and converted once."""
    texts, unreadable = to_text(column)
    encoded = texts.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    words = [word.strip() for word in found]
    odd = pa.array([len(word) > WORD_LENGTH or not word.isprintable() for word in words], pa.bool_())
    none = [word.lower() in _NO_VALUE and word != "NA" for word in words]  # NA is a word of the exchange
    kept = [None if nothing or is_odd else convert(word) for word, nothing, is_odd in zip(words, none, odd.to_pylist(), strict=True)]
    if pc.any(odd).as_py():
        rows = np.flatnonzero(pc.fill_null(odd.take(encoded.indices), False).to_numpy(zero_copy_only=False))
        unreadable = unreadable | dict.fromkeys(rows.tolist(), f"is not a word of at most {WORD_LENGTH} characters")
    return Converted(texts if kept == found else pa.array(kept, pa.string()).take(encoded.indices), unreadable)


# ---- integers

# Leading zeros and a sign do no harm, and `.0` is how a float is written. With an exponent, every digit of the integer must be there:
# 1.795140123456E+12 is exact, 1.79514E+12 was another number before somebody rounded it.
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}(?:\.(?P<fraction>[0-9]{0,40}))?(?:[eE](?P<exponent>[-+]?[0-9]{1,2}))?")


def to_int64(column: pa.Array) -> Converted:
    """64-bit integers, of integers, text, or floats that are exact."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        with suppress(pa.ArrowInvalid):
            return Converted(column.cast(pa.int64()), {})
    if pa.types.is_string(kind) and (integers := _cast_numbers(column, pa.int64())) is not None:
        return Converted(integers, {})
    exact = 1 << 53
    if pa.types.is_floating(kind):
        # pandas turns integers with gaps into floats: NaN is a gap, and below 2^53 (2^24 for float32) every integer is exact.
        exact = 1 << (np.finfo(kind.to_pandas_dtype()).nmant + 1)
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
        if pc.all(pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), float(exact)))).as_py():
            return Converted(column.cast(pa.int64()), {})
    return _convert_by_value(column, partial(_parse_int64, exact=exact), pa.int64(), "a 64-bit integer")


def _parse_int64(value: object, exact: int = 1 << 53) -> int:
    number = _exact_integer(str(value).strip()) if isinstance(value, str) else _number(value)
    if number != number.to_integral_value() or abs(number) > _INT64_MAX or (isinstance(value, float) and abs(value) >= exact):
        raise ValueError
    return int(number)


def _exact_integer(text: str) -> Decimal:
    match = _INTEGER.fullmatch(text)
    if match is None or int(match["exponent"] or 0) > len(match["fraction"] or ""):
        raise ValueError
    return Decimal(text)


def _number(value: object) -> Decimal:
    """A number that is none of text."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


# ---- times

# A date and a clock with something between them: a lenient parser takes the digit of 20261120120000 for it.
_TIME = re.compile(
    r"""
    (?P<year>\d{4}) (?P<dash>[-/]?) (?P<month>\d\d) (?P=dash) (?P<day>\d\d)
    [Tt\ ]
    (?P<hour>\d\d) (?P<colon>:?) (?P<minute>\d\d) (?: (?P=colon) (?P<second>\d\d) (?: [.,] (?P<fraction>\d{1,9}) )? )?
    (?: \ ?(?:[Zz]|UTC|GMT) | \ ?[-+]00:?00\ (?:UTC|GMT) | \ ?(?P<zone>[-+]\d\d (?: :?\d\d )?) )?
    """,
    re.ASCII | re.VERBOSE,
)
_COLON_AT = 13  # in a time such as 2024-01-10T12:00


def to_times(column: pa.Array) -> Converted:
    """Times in UTC with microseconds, of timestamps of any unit and zone, numbers since 1970, or text of either kind."""
    kind = column.type
    if pa.types.is_string(kind):
        if (parsed := _cast_times(column)) is not None:
            return to_times(parsed)
    elif pa.types.is_timestamp(kind):
        with suppress(pa.ArrowInvalid):  # a time after the year 290000
            utc = column.cast(pa.int64()).cast(pa.timestamp(kind.unit, "UTC"))  # the zone affects only display, and may not exist
            return Converted(utc.cast(TIME, safe=kind.unit != "ns"), {})
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        if kind == pa.float64():  # nanoseconds exceed 2^53: round to the nearest microsecond, which was meant
            column = pc.if_else(pc.greater_equal(pc.abs(column), 1e17), pc.round(pc.divide(column, 1e3)), column)
        numbers, unreadable = to_int64(column)
        times, runs = _times_since_1970(numbers)
        return Converted(times, unreadable | {i: f"{column[i]} is not a time" for i in np.flatnonzero(runs).tolist()})
    return _convert_by_value(column, _parse_time, TIME, "a time")


def _cast_times(texts: pa.Array) -> pa.Array | None:
    """Arrow's cast of text to times or to numbers since 1970; None if it fails, or if a text has no clock."""
    for plain in _as_found_and_tidied(texts):
        for target in (TIME, pa.timestamp("us")) if _have_clocks(plain) else ():
            with suppress(pa.ArrowInvalid):
                plain.slice(0, 1).cast(target)  # the first value fails at once, a whole column would take long to fail
                return plain.cast(target)
    return _cast_numbers(texts, pa.int64())


def _have_clocks(texts: pa.Array) -> bool:
    """Whether each text has hours and minutes: Arrow takes a date, and hours alone, for a time."""
    texts = texts.drop_null()
    offsets = _offsets(texts)
    return bool((np.diff(offsets) > _COLON_AT + 2).all() and (_bytes(texts)[offsets[:-1] - offsets[0] + _COLON_AT] == ord(":")).all())


def _times_since_1970(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Milli-, micro- or nanoseconds since 1970, told apart by their size: no two of them overlap between 1973 and 5138.

    Returns:
        The times, and which of them are none: see `_are_runs_of_digits`.
    """
    value = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    size = np.abs(value)
    us = np.where(size < 10**14, np.clip(value, -(10**14), 10**14) * 1000, np.where(size < 10**17, value, value // 1000))
    runs = _are_runs_of_digits(us)
    return pa.array(us, pa.int64(), mask=column.is_null().to_numpy(zero_copy_only=False) | runs).cast(TIME), runs


def _are_runs_of_digits(us: np.ndarray) -> np.ndarray:
    """Which microseconds are dates and clocks without anything between their digits: 2026112012000000 is a day in 2034 otherwise.

    Of 1000 real times in the years 2033 to 2036, three look like that. They are told apart by not being in the future.
    """
    if not len(us) or us.max() < 2009 * 10**12:
        return np.zeros(len(us), bool)
    month, day, hour, minute, second = (us // 10**at % 100 for at in (10, 8, 6, 4, 2))
    is_date = (us < 2100 * 10**12) & (us >= 2009 * 10**12) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    return is_date & (hour < 24) & (minute < 60) & (second < 60) & (us > (time.time() + 86_400) * 1e6)


def _parse_time(value: object) -> datetime:
    text = str(value).strip()
    if (match := _TIME.fullmatch(text)) is None:
        (moment,), runs = _times_since_1970(pa.array([_parse_int64(value if isinstance(value, Decimal) else text)]))
        if runs[0]:
            raise ValueError
        return moment.as_py()
    year, month, day, hour, minute, second = (int(match[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second"))
    us = int((match["fraction"] or "").ljust(6, "0")[:6])
    return datetime(year, month, day, hour, minute, second, us, UTC) - _offset_from_utc(match["zone"])


def _offset_from_utc(zone: str | None) -> timedelta:
    if zone is None:
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[-2:] if len(zone) > 3 else 0)
    if hours > 23 or minutes > 59:
        raise ValueError
    return timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)


# ---- decimals

# An exponent is exact here: floats below 0.0001 and prices above ten million are written with one by Python and Java.
_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})(?:[eE][-+]?[0-9]{1,3})?")


def to_decimals(column: pa.Array, type: pa.Decimal128Type) -> Converted:
    """Decimals of `type`, of decimals, integers, text, or floats, which are rounded to the decimal that they were made of."""
    if column.type == pa.float64():
        return _doubles_to_decimals(column, type)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.string())  # the shortest text that gives the same float32 is what was meant
    if pa.types.is_string(column.type):
        decimals = _cast_numbers(column, type)
        return _decimals_by_value(column, type) if decimals is None else Converted(decimals, {})
    try:
        # Arrow demands that a decimal has room for any integer of the type, so integers go through a wide one.
        wide = column.cast(pa.decimal128(38, type.scale)) if pa.types.is_integer(column.type) else column
        return Converted(wide.cast(type), {})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # one bad value fails the whole cast: find it, and reject it alone
        return _decimals_by_value(column, type)


def _doubles_to_decimals(column: pa.Array, type: pa.Decimal128Type) -> Converted:
    """Round to 8 decimals, which recovers the exchange's own decimal; with integers, 10 times faster than Arrow's cast.

    The product is off by less than half a unit up to 2^51 units (22.5 million). Above, each float's shortest text is taken.
    """
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    step = 10 ** (type.scale - 8)
    with np.errstate(over="ignore"):
        units = np.rint(pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False) * 1e8)
    exact = np.abs(units) < min(1 << 51, (1 << 63) // step)  # False for NaN and infinities as well
    if exact.all():
        return Converted(decimal128(units.astype(np.int64) * step, type, valid), {})
    rest = np.flatnonzero(~exact)
    slow, unreadable = _decimals_by_value(column.take(rest), type)
    fast = decimal128(np.where(exact, units, 0).astype(np.int64) * step, type, valid)
    return Converted(pc.replace_with_mask(fast, ~exact, slow), {int(rest[i]): reason for i, reason in unreadable.items()})


def _decimals_by_value(column: pa.Array, type: pa.Decimal128Type) -> Converted:
    expected = f"a decimal with at most {type.precision - type.scale} digits before and {type.scale} after the point"
    return _convert_by_value(column, partial(_parse_decimal, type=type), type, expected)


def _parse_decimal(value: object, type: pa.Decimal128Type) -> Decimal:
    if isinstance(value, str):
        if _DECIMAL.fullmatch(text := value.strip()) is None:
            raise InvalidOperation
        number = Decimal(text)
    else:
        number = round(_number(value), 8) if isinstance(value, float) else _number(value)
    exact = number.quantize(Decimal(1).scaleb(-type.scale))
    if exact != number or abs(number) >= Decimal(10) ** (type.precision - type.scale):
        raise InvalidOperation
    return exact


# ---- booleans

_TRUE, _FALSE = {"true", "t", "1", "1.0"}, {"false", "f", "0", "0.0"}


def to_booleans(column: pa.Array) -> Converted:
    """Booleans, of booleans, text such as `true`, `t` and `1`, or the numbers 0 and 1."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
        with suppress(pa.ArrowInvalid):
            return Converted(column.cast(pa.bool_()), {})
    return _convert_by_value(column, _parse_boolean, pa.bool_(), "true or false")


def _parse_boolean(value: object) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE
