"""Columns of any type convert exactly, and a value that does not convert says why."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
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
            if not text.isascii() or re.search(r"E[-+]?\d{4}", text):
                continue  # other digits than ours, and exponents that no program writes
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


@pytest.mark.parametrize(
    "text",
    ["1e-10000000", "1e10000000", "1e-2147483648", "1E99999999999999999999", "1e-999", "9" * 1_000_000, "0." + "0" * 100_000 + "1", "1_0",
     "1_0e1", "\uff11\uff12", "0x1F", "1,5", "1 000", "1e", "e1", ".", "+", "-.", "1.5.2", "--1", "1e1.5", "infinity", "sNaN", "1d3"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_text_that_is_no_plain_number_of_bounded_length_is_unreadable_and_harms_nothing(text: str) -> None:
    """Arrow's own cast of the first one ends the process."""
    column = pa.array([text, "1.5"])
    for type in (PRICE, QUANTITY):
        assert to_decimals(column, type).values.to_pylist() == [None, Decimal("1.5")]
        assert list(to_decimals(column, type).unreadable) == [0]
    for convert in (to_int64, to_times):
        assert convert(pa.array([text])).values.null_count == 1
        assert list(convert(pa.array([text, "1"])).unreadable) == [0]
    assert list(to_booleans(column).unreadable) == [0, 1]


@given(st.lists(st.from_regex(r"[-+]?[0-9]{0,22}(\.[0-9]{0,22})?", fullmatch=True), min_size=1))
def test_a_number_is_read_alike_alone_and_beside_one_that_takes_the_slow_path(texts: list[str]) -> None:
    for convert in (partial(to_decimals, type=PRICE), partial(to_decimals, type=QUANTITY), to_int64):
        fast, slow = convert(pa.array(texts)), convert(pa.array([*texts, "no number"]))
        assert slow.values.to_pylist() == [*fast.values.to_pylist(), None]
        assert slow.unreadable.keys() == fast.unreadable.keys() | {len(texts)}
        assert fast.unreadable.keys() == {i for i, text in enumerate(texts) if convert(pa.array([text])).unreadable}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-8", Decimal("1e-8")),
        ("1.36E8", Decimal(136_000_000)),
        ("9.124767000000000000e+04", Decimal("91247.67")),
        ("2.5e+3", Decimal(2500)),
    ],
)
def test_a_decimal_with_an_exponent_is_exact(text: str, value: Decimal) -> None:
    assert decimals(pa.array([text, "1"]), PRICE) == [value, 1]


# ---- integers


@pytest.mark.parametrize(
    "text",
    ["5.803e+09", "5.80300001E9", "1e3", "1E+1", "5803000001.5", "5_803_000_001", "5,803,000,001", "0x1F", "0X1f",
     "\u0665", "1e400", "9223372036854775808", "1.0.0", "5803000001L", "٣"],
)  # fmt: skip
def test_an_id_whose_digits_are_not_all_there_is_unreadable(text: str) -> None:
    for others in ([], ["5803000001"], ["5.803000001000e+09"]):
        converted = to_int64(pa.array([text, *others]))
        assert list(converted.unreadable) == [0]
        assert converted.values.to_pylist() == [None] + [5803000001] * len(others)


@pytest.mark.parametrize(
    "text",
    ["5803000001", "+5803000001", "005803000001", "5803000001.0", "5803000001.", "5.803000001E+09", "5.803000001000e9", "5803000001e0",
     " 5803000001 ", "\u00a05803000001\u00a0", "5803000001\t"],
)  # fmt: skip
def test_an_id_may_be_padded_signed_or_have_an_exponent_that_leaves_out_no_digit(text: str) -> None:
    for others in ([], ["1"], ["x"]):
        assert to_int64(pa.array([text, *others])).values[0].as_py() == 5803000001


@pytest.mark.parametrize(
    "marker", ["", " ", "NULL", "null", r"\N", "<NA>", "NA", "N/A", "#N/A", "NaN", "nan", "None", "NaT", "-", "(null)", "nil", "undefined"]
)
def test_a_marker_of_no_value_is_null_in_a_column_of_any_type(marker: str) -> None:
    for convert, value in (
        (to_int64, "5"), (to_times, "2024-01-10T12:00:00Z"), (partial(to_decimals, type=PRICE), "1.5"), (to_booleans, "true"),
    ):  # fmt: skip
        for others in ([value], ["?"]):
            converted = convert(pa.array([marker, *others]))
            assert converted.values[0].as_py() is None
            assert 0 not in converted.unreadable


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

SPELLINGS = {
    "2024-01-10T12:00:00+00:00": NOON,
    "2024-01-10T12:00:00.123+00:00": NOON + 123 * MS,
    "2024-01-10 12:00:00.123456Z": NOON + timedelta(microseconds=123_456),
    "2024-01-10T12:00:00.123456789Z": NOON + timedelta(microseconds=123_456),
    "2024-01-10T12:00:00.1Z": NOON + 100 * MS,
    "2024-01-10T12:00:00,123Z": NOON + 123 * MS,
    "2024-01-10T17:30:00+05:30": NOON,
    "2024-01-10T17:30:00+0530": NOON,
    "2024-01-10 17:30:00 +0530": NOON,
    "2024-01-10T07:00:00-05": NOON,
    "2024-01-09T12:01:00-23:59": NOON,
    "2024-01-10T12:00:00": NOON,
    "2024-01-10 12:00:00": NOON,
    " 2024-01-10T12:00Z ": NOON,
    "2024-01-10t12:00:00z": NOON,
    "2024-01-10 12:00:00 UTC": NOON,
    "2024-01-10 12:00:00.041000 UTC": NOON + 41 * MS,
    "2024-01-10 12:00:00 GMT": NOON,
    "2024-01-10 12:00:00UTC": NOON,
    "2024-01-10 12:00:00.5 +0000 UTC": NOON + 500 * MS,
    "2024-01-10 12:00:00 +00:00 UTC": NOON,
    "2024/01/10 12:00:00.123": NOON + 123 * MS,
    "20240110T120000Z": NOON,
    "20240110T120000.123+0000": NOON + 123 * MS,
    "1704888000000": NOON,
    "1704888000000.0": NOON,
    "1.704888000000E+12": NOON,
    "1704888000000000": NOON,
    "1704888000000000123": NOON,
    "1795140123456": datetime(2026, 11, 20, 2, 2, 3, 456_000, UTC),
}
NO_TIMES = [
    "yesterday", "1.79514E+12", "1.704888e12", "1e12", "1.795140123E12", "1_704_888_000_000", "0x18cf2c2c000", "1704888000000.5",
    "20261120120000Z", "20261120120000+00:00", "20261120120000123Z", "2026112012000000", "2026112012000000000", "2026112012000012345",
    "20261120 120000123456", "202611201200Z", "2026-11-20", "2026/11/20", "2026-11-20Z", "2026-11-20T12", "2026-11-20T12Z",
    "2026-11-20T12+00:00", "2026-11-20 12", "2026-W47-5", "2026-W47-5T12:00:00", "2026W475T120000Z", "2026-324T12:00:00", "2026324T120000Z",
    "2026-11-20T24:00:00", "2026-11-20T12:00:60", "2026-11-20T12:60:00", "2026-11-31T12:00:00", "2026-13-01T12:00:00Z", "26-11-20T12:00:00",
    "20/11/2026 12:00:00", "11/20/2026 12:00:00", "2026-11/20 12:00:00", "2026-1-5 12:00:00", "2026-11-20_12:00:00", "2026-11-20-12:00:00",
    "2026-11-20T12:00:00.", "2026-11-20T12:00:00.1234567891", "2026-11-20T12:00.5Z", "2026-11-20T12:00:00+24:00", "2026-11-20T12:00:00+1",
    "2026-11-20T12:00:00+05:30 UTC", "2026-11-20T12:00:00 EST", "2026-11-20T12:00:00 PM", "2026-11-20 12:00:00 +05:30:10", "12:00:00",
    "2026-11-20T12:0000", "2026-11-20T1200:00", "20 Nov 2026 12:00:00", "２０２６-11-20T12:00:00", "46346.5", "99999-01-01T00:00:00Z",
]  # fmt: skip


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_time_is_read_in_any_spelling_alone_and_beside_others(text: str) -> None:
    for others in ([text], ["2024-01-10T12:00:01+00:00"], ["2024-01-10T12:00:01", "1704888002000"], [None, "NULL"]):
        converted = to_times(pa.array([text, *others]))
        assert converted.values[0].as_py() == SPELLINGS[text]
        assert converted.unreadable == {}


@pytest.mark.parametrize("text", NO_TIMES)
def test_any_other_spelling_is_no_time_alone_or_beside_others(text: str) -> None:
    for others in ([text], [None], ["2024-01-10T12:00:01+00:00"], ["2024-01-10T12:00:01"], ["1704888002000"]):
        converted = to_times(pa.array([text, *others]))
        assert converted.values[0].as_py() is None
        assert converted.unreadable[0].endswith(("is not a time", "is not a 64-bit integer"))


def test_a_run_of_digits_is_no_time_as_a_number_either() -> None:
    runs = [2026112012000000, 2026112012000000000, 2026112012000012345]
    for column in (pa.array(runs), pa.array([float(run) for run in runs]), pa.array(runs).cast(pa.decimal128(20, 0))):
        converted = to_times(column)
        assert converted.values.null_count == 3
        assert list(converted.unreadable) == [0, 1, 2]


@given(
    st.lists(
        st.from_regex(
            r"20[0-9]{2}[-/]?[0-9]{2}[-/]?[0-9]{2}[Tt ]?[0-9]{2}(:?[0-9]{2}){0,2}([.,][0-9]{0,10})?"
            r"([Zz]| ?UTC| ?[-+][0-9]{1,2}(:?[0-9]{2})?)?( UTC)?",
            fullmatch=True,
        ),
        min_size=1,
    )
)
@hypothesis_settings(max_examples=500)
def test_a_time_is_read_alike_alone_and_beside_one_that_takes_the_slow_path(texts: list[str]) -> None:
    """Arrow reads whole columns and Python single values: both read the same list of patterns."""
    slow = to_times(pa.array([*texts, "2024-01-10T12:00:01+00:00", "2024-01-10T12:00:01", "yesterday"]))
    for i, text in enumerate(texts):
        assert to_times(pa.array([text])).values[0] == slow.values[i]
    assert to_times(pa.array(texts)).values == slow.values[: len(texts)]


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
