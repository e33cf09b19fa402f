"""Columns of any type convert exactly, and a value that does not convert says why."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btc_assets.domain.ticks import PRICE, QUANTITY, TIME
from btc_assets.landing.convert import Converted, plain_array, python_value, to_booleans, to_decimals, to_int64, to_text, to_times
from btc_assets_tests.support.trades import NOON, eight_decimals

MS = timedelta(milliseconds=1)


# ---- decimals


def decimals(column: pa.Array, type: pa.Decimal128Type) -> list[Decimal]:
    """The readable values of a column as decimals."""
    return [value for value in to_decimals(column, type).values.to_pylist() if value is not None]


@given(st.lists(eight_decimals(1 << 26), min_size=1), st.sampled_from([PRICE, QUANTITY]))
@example([Decimal("33554432.00000001"), Decimal("67108863.99999999"), Decimal("1e-8")], PRICE)
def test_a_float_gives_back_the_decimal_that_it_was_made_of(values: list[Decimal], type: pa.Decimal128Type) -> None:
    """To the eighth decimal up to 2^26 (67 million), where floats lie further apart than that."""
    assert decimals(pa.array(map(float, values)), type) == values


@given(st.lists(st.integers(1, 9 * 10**9).map(lambda n: Decimal(n) / 100), min_size=1))
def test_a_price_of_two_decimals_is_exact_as_a_float_up_to_90_million(values: list[Decimal]) -> None:
    assert decimals(pa.array(map(float, values)), PRICE) == values


@given(st.lists(eight_decimals(1 << 26), min_size=1))
def test_other_values_of_a_column_do_not_change_how_a_float_is_rounded(values: list[Decimal]) -> None:
    floats = [*map(float, values), float("nan"), 1e300, None]
    assert decimals(pa.array(floats, pa.float64()), PRICE) == values


@given(st.lists(st.integers(1, 9_999_999).map(lambda n: Decimal(n) / 100), min_size=1))
def test_a_float32_means_the_shortest_decimal_that_it_can_be(values: list[Decimal]) -> None:
    assert decimals(pa.array(map(float, values), pa.float32()), PRICE) == values


@example(["5.4034171390605992365125723557528511E-33"])  # Arrow's own cast makes zero of it
@given(
    st.lists(
        st.decimals(allow_nan=True, allow_infinity=True).map(str) | st.from_regex(r"[-+]?\d{0,14}(\.\d{0,14})?(e-?\d)?", fullmatch=True)
    )
)
def test_text_is_a_decimal_exactly_where_python_and_the_column_say_so(texts: list[str]) -> None:
    def expected(type: pa.Decimal128Type) -> list[Decimal]:
        context = Context(prec=60, rounding=ROUND_HALF_EVEN)
        values = []
        for text in texts:
            try:
                value = Decimal(text)
                fits = value.is_finite() and value == value.quantize(Decimal(1).scaleb(-type.scale), context=context)
            except InvalidOperation:
                continue
            if fits and abs(value) < Decimal(10) ** (type.precision - type.scale):
                values.append(value)
        return values

    for type in (PRICE, QUANTITY):
        assert decimals(pa.array(texts, pa.string()), type) == expected(type)


# ---- integers


@given(st.lists(st.none() | st.integers(-(2**53) + 1, 2**53 - 1), min_size=1))
def test_float_ids_are_exact_below_2_to_the_53_and_nan_is_null(ids: list[int | None]) -> None:
    column = pa.array([float("nan") if value is None else float(value) for value in ids], pa.float64())
    assert to_int64(column) == Converted(pa.array(ids, pa.int64()), {})


@pytest.mark.parametrize(
    ("column", "values", "unreadable"),
    [
        (pa.array([1, None], pa.uint64()), [1, None], {}),
        (pa.array(["1", " 2 ", "3.0", "", "NaN", None]), [1, 2, 3, None, None, None], {}),
        (pa.array([2.0**53, 1.0]), [None, 1], {0: "9007199254740992.0 is not a 64-bit integer"}),
        (pa.array([True]), [None], {0: "True is not a 64-bit integer"}),
        (pa.array([str(2**63), "-9223372036854775807", "x"]), [None, -(2**63) + 1, None],
         {0: "'9223372036854775808' is not a 64-bit integer", 2: "'x' is not a 64-bit integer"}),
        (pa.nulls(2), [None, None], {}),
    ],
)  # fmt: skip
def test_only_exact_integers_are_integers(column: pa.Array, values: list[int | None], unreadable: dict[int, str]) -> None:
    converted = to_int64(column)
    assert (converted.values.to_pylist(), converted.unreadable) == (values, unreadable)


# ---- times


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-01-10T12:00:00+00:00", NOON),
        ("2024-01-10T12:00:00.123+00:00", NOON + 123 * MS),
        ("2024-01-10 12:00:00.123456Z", NOON + timedelta(microseconds=123_456)),
        ("2024-01-10T12:00:00.123456789Z", NOON + timedelta(microseconds=123_456)),
        ("2024-01-10T17:30:00+05:30", NOON),
        ("2024-01-10T12:00:00", NOON),
        (" 2024-01-10T12:00Z ", NOON),
        ("1704888000000", NOON),
        ("1704888000000.0", NOON),
        ("1704888000000000", NOON),
        ("1704888000000000123", NOON),
    ],
)
def test_a_time_is_read_in_any_spelling_beside_others_too(text: str, time: datetime) -> None:
    for others in ([text, text], ["2024-01-10T12:00:01+00:00", "1704888002000"]):
        converted = to_times(pa.array([text, *others]))
        assert converted.values[0].as_py() == time
        assert converted.unreadable == {}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo", "+05:30", "No/Where"])
def test_a_timestamp_of_any_unit_and_zone_is_the_same_time(unit: str, zone: str | None) -> None:
    times = pa.array([NOON + timedelta(seconds=i) for i in range(40)], pa.timestamp(unit, "UTC"))
    assert to_times(times.cast(pa.int64()).cast(pa.timestamp(unit, zone))).values == times.cast(TIME)


def test_a_float_of_nanoseconds_means_the_nearest_microsecond() -> None:
    assert to_times(pa.array([1_704_888_000_000_123_100.0])).values[0].as_py() == NOON + timedelta(microseconds=123)


def test_text_that_is_no_time_says_so() -> None:
    converted = to_times(pa.array(["2024-01-10T12:00Z", "yesterday", None]))
    assert converted.values.to_pylist() == [NOON, None, None]
    assert converted.unreadable == {1: "'yesterday' is not a time"}


# ---- booleans and text


@pytest.mark.parametrize(
    "column",
    [pa.array([True, False, None]), pa.array(["t", "FALSE", None]), pa.array([1, 0, None]), pa.array([1.0, 0.0, float("nan")])],
    ids=lambda column: str(column.type),
)
def test_booleans_have_many_spellings(column: pa.Array) -> None:
    assert to_booleans(column) == Converted(pa.array([True, False, None]), {})


def test_other_values_are_no_booleans() -> None:
    assert to_booleans(pa.array(["true", "yes"])).unreadable == {1: "'yes' is not true or false"}


def test_any_value_has_a_text() -> None:
    assert to_text(pa.array(["x", None])).values.to_pylist() == ["x", None]
    assert to_text(pa.array([5, None])).values.to_pylist() == ["5", None]


# ---- columns and values of any type


@pytest.mark.parametrize(
    "type", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1)], ids=str
)
def test_text_of_any_type_becomes_plain_strings_in_one_piece(type: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(["a"]).cast(type), pa.array(["b", None]).cast(type)])
    assert plain_array(column) == pa.array(["a", "b", None])


def test_bytes_that_are_not_utf8_stay_bytes() -> None:
    assert plain_array(pa.chunked_array([[b"a", b"\xff"]])).type == pa.binary()


def test_a_dictionary_becomes_its_values() -> None:
    assert plain_array(pa.chunked_array([pa.array(["a", None, "a"]).dictionary_encode()])) == pa.array(["a", None, "a"])


def test_a_value_that_python_cannot_represent_is_text() -> None:
    assert python_value(pa.scalar(b"a\xff")) == "a\\xff"
    assert python_value(pa.scalar(2**62, pa.timestamp("ns", "No/Where"))) == "2116-02-20 23:53:38.427387904Z"
    assert python_value(pa.scalar(5)) == 5
