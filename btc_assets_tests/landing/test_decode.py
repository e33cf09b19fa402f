"""The same trades give the same ticks, to the last digit, whoever lands them; a row that is no trade says why."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import EPOCH, SLICE, floor_slice
from btc_assets.domain.ticks import DECODED_SCHEMA, TICK_SCHEMA
from btc_assets.landing.decode import decode
from btc_assets.landing.raw import ObjectRejected
from btc_assets_tests.support import trades
from btc_assets_tests.support.producers import (
    DECIMALS,
    FLAGS,
    IDS,
    PRODUCERS,
    TIMES,
    csv,
    parquet,
    read,
    table,
    text_table,
    without,
    zipped,
)
from btc_assets_tests.support.stores import FEED, real_data

MS = timedelta(milliseconds=1)
DAY = timedelta(days=1)
NOON = trades.NOON
MS_NOON = 1_704_888_000_000
SAMPLE = trades.table(
    [
        trades.trade(
            2**53 - 40 + i,
            NOON + i * 37_777 * MS,
            made=NOON + (i * 37_777 - i % 3 * 500) * MS,
            price=f"{28_000 + i}.{i:02d}00000{i % 7}",
            quantity=f"{i % 5}.0000000{i % 9 + 1}",
            maker=i % 3 == 0,
            buyer=None if i % 4 == 0 else 20_720_542_158 + i,
            seller=None if i % 5 == 0 else i,
            kind=(None, "MARKET", "ADL", "INSURANCE_FUND", "NEW_KIND")[i % 11 % 5],
        )
        for i in range(40)
    ]
)


@st.composite
def any_trades(draw: st.DrawFn) -> pa.Table:
    order_ids = st.none() | st.integers(0, 2**53 - 1)
    kinds = st.none() | st.sampled_from(["MARKET", "INSURANCE_FUND", "ADL", "NA", "market maker's"])
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        made = datetime(2009, 1, 3, tzinfo=UTC) + draw(st.integers(0, 24 * 365) | st.integers(28 * 365, 90 * 365)) * DAY
        made += draw(st.integers(0, 86_399_999)) * MS
        late = draw(st.integers(0, 3) | st.integers(0, 10_000))
        row = trades.trade(draw(st.integers(0, 2**53 - 1)), made + late * MS, made=made, maker=draw(st.booleans()))
        row |= {"price": draw(trades.eight_decimals(10_000_000)), "quantity": draw(trades.eight_decimals(10_000_000))}
        rows.append(row | {"buyer_order_id": draw(order_ids), "seller_order_id": draw(order_ids), "trade_kind": draw(kinds)})
    return trades.table(rows)


# ---- the same trades


@pytest.mark.parametrize("name", PRODUCERS)
def test_every_producer_lands_the_same_table(name: str) -> None:
    result = read(PRODUCERS[name].encode(SAMPLE))
    assert result.rejected == []
    assert result.ticks.schema == DECODED_SCHEMA
    assert result.ticks == without(SAMPLE, PRODUCERS[name].lost)


@given(any_trades(), st.sampled_from(sorted(PRODUCERS)))
@hypothesis_settings(max_examples=400)
def test_any_trades_come_back_from_any_producer_to_the_last_digit(ticks: pa.Table, name: str) -> None:
    assert read(PRODUCERS[name].encode(ticks)).ticks == without(ticks, PRODUCERS[name].lost)


@given(any_trades(), *map(st.sampled_from, (sorted(TIMES), sorted(DECIMALS), sorted(IDS), sorted(FLAGS))))
@hypothesis_settings(max_examples=300)
def test_any_mixture_of_column_types_decodes(ticks: pa.Table, time: str, decimal: str, ids: str, flag: str) -> None:
    decoded = decode(table(ticks, time=time, decimal=decimal, ids=ids, flag=flag), [FEED])
    assert decoded.ticks == without(ticks)
    assert decoded.index.tolist() == list(range(len(ticks)))


def test_real_trades_are_one_table_as_csv_raw_messages_parquet_and_zip() -> None:
    day = real_data("spot_BTCUSDT_2023-04-05_ws_trades.csv.gz").read_bytes()
    ticks = read(day).ticks
    assert len(ticks) == 3_144
    assert read(real_data("spot_BTCUSDT_2023-04-05_ws_trades.raw.jsonl.gz")).ticks == ticks
    assert read(parquet(table(ticks))).ticks == ticks
    assert read(zipped(("spot.csv", csv(text_table(ticks))))).ticks == ticks


def test_real_futures_trades_are_one_table_as_csv_and_raw_messages_which_tell_their_kind_as_well() -> None:
    ticks = read(real_data("um_BTCUSDT_2024-07-18_19_ws_trades.csv.gz")).ticks
    messages = read(real_data("um_BTCUSDT_2024-07-18_19_ws_trades.raw.jsonl.gz")).ticks
    assert len(ticks) == 10_701
    assert messages.drop_columns(["trade_kind"]) == ticks.drop_columns(["trade_kind"])
    assert messages["trade_kind"].unique().to_pylist() == ["MARKET"] and ticks["trade_kind"].null_count == len(ticks)


def test_a_trade_belongs_to_the_slice_of_its_event_time() -> None:
    first = read(real_data("spot_BTCUSDT_2023-04-05_ws_trades.csv.gz")).ticks.slice(0, 1).to_pylist()[0]
    assert first["trade_time"] == datetime(2023, 4, 4, 23, 59, 59, 999_000, tzinfo=UTC)
    assert first["event_time"] == first["bucket_5m"] == datetime(2023, 4, 5, tzinfo=UTC)


@given(st.lists(st.integers(1_231_000_000_000_000, 2_008_999_999_999_999) | st.integers(21 * 10**14, 4_102_444_799_999_999), min_size=1))
def test_a_slice_is_half_open_and_aligned(times_us: list[int]) -> None:
    columns = {"event_time": times_us, "trade_time": times_us, "trade_id": times_us, "price": 1, "quantity": 1, "is_market_maker": True}
    ticks = decode(pa.table({name: [v] * len(times_us) if not isinstance(v, list) else v for name, v in columns.items()}), [FEED]).ticks
    for tick, us in zip(ticks.to_pylist(), times_us, strict=True):
        assert tick["event_time"] == EPOCH + timedelta(microseconds=us)
        assert tick["bucket_5m"] == floor_slice(tick["event_time"])
        assert tick["bucket_5m"] <= tick["event_time"] < tick["bucket_5m"] + SLICE


@pytest.mark.parametrize("times", [None, pa.nulls(40), pa.nulls(40, pa.string()), pa.array([float("nan")] * 40), pa.array([""] * 40)])
def test_without_an_event_time_a_tick_has_none_and_belongs_to_the_slice_of_its_trade_time(times: pa.Array | None) -> None:
    raw = table(SAMPLE).drop_columns(["event_time"])
    ticks = decode(raw if times is None else raw.append_column("event_time", times), [FEED]).ticks
    assert ticks == without(SAMPLE, frozenset({"event_time"}))


def test_rows_of_old_and_new_files_may_be_mixed_in_one() -> None:
    raw = table(SAMPLE)
    old = pa.array([i % 2 == 0 for i in range(len(raw))])
    vent_time = pc.if_else(old, raw["event_time"], None)
    event_time = pc.if_else(old, None, TIMES["timestamp[ns, UTC]"](SAMPLE["event_time"]))
    mixed = raw.drop_columns(["event_time"]).append_column("vent_time", vent_time).append_column("event_time", event_time)
    assert decode(mixed, [FEED]).ticks == without(SAMPLE)


def test_a_spelling_of_another_producer_is_somebodys_own_column_beside_the_right_one() -> None:
    raw = table(SAMPLE).add_column(0, "id", [list(range(40))]).add_column(0, "time", [[1] * 40])
    assert decode(raw, [FEED]).ticks == without(SAMPLE)


def test_a_dump_that_has_only_trade_times_in_microseconds_or_nanoseconds_decodes() -> None:
    raw = table(SAMPLE, time="epoch us").drop_columns(["event_time"])
    assert decode(raw, [FEED]).ticks == without(SAMPLE, frozenset({"event_time"}))


def test_a_column_may_be_cut_from_a_longer_one_and_come_in_pieces() -> None:
    for spelling in ({}, {"time": "ISO text as dictionary", "ids": "float64 with NaN", "decimal": "text as large_string", "flag": "int8"}):
        whole = table(SAMPLE, **spelling)
        pieces = pa.concat_tables([whole.slice(3, 9), whole.slice(12, 1), whole.slice(13, 0), whole.slice(13)])
        assert decode(pieces, [FEED]).ticks == without(SAMPLE).slice(3)


def test_a_dictionary_may_hold_null_among_its_values() -> None:
    ids = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0] * 10, pa.int8()), pa.array(["7", None]))
    ticks = decode(table(SAMPLE).set_column(6, "buyer_order_id", ids), [FEED]).ticks
    assert ticks["buyer_order_id"].to_pylist() == [7, None, None, 7] * 10


# ---- rows that are no trade of the feed

TOO_LONG = "is not a decimal with at most 10 digits before and 8 after the point"
TOO_LONG_QUANTITY = "is not a decimal with at most 12 digits before and 12 after the point"
NOT_BTC = "is not BTCUSDT, which this prefix is for"

# Field, type of its column, a good value where such a column can hold one, a bad value, and the reason.
BAD_VALUES: list[tuple[str, pa.DataType, object, object, str]] = [
    ("price", pa.float64(), 1.5, None, "price is null"),
    ("price", pa.float64(), 1.5, float("nan"), "price is null"),
    ("price", pa.float64(), 1.5, float("inf"), f"price inf {TOO_LONG}"),
    ("price", pa.float64(), 1.5, 1e10, f"price 10000000000.0 {TOO_LONG}"),
    ("price", pa.float64(), 1.5, -0.0, "price 0 is not above zero"),
    ("price", pa.float64(), 1.5, -42000.5, "price -42000.5 is not above zero"),
    ("price", pa.float32(), 1.5, float("nan"), "price is null"),
    ("price", pa.float32(), 1.5, float("-inf"), f"price '-inf' {TOO_LONG}"),
    ("price", pa.string(), "1.5", "", "price is null"),
    ("price", pa.string(), "1.5", "NaN", "price is null"),
    ("price", pa.string(), "1.5", "Infinity", f"price 'Infinity' {TOO_LONG}"),
    ("price", pa.string(), "1.5", "0.000000001", f"price '0.000000001' {TOO_LONG}"),
    ("price", pa.string(), "1.5", "1e999999999", f"price '1e999999999' {TOO_LONG}"),
    ("price", pa.string(), "1.5", "-0.00", "price 0 is not above zero"),
    ("price", pa.string(), "1.5", "cheap", f"price 'cheap' {TOO_LONG}"),
    ("price", pa.binary(), b"1.5", b"\xff", f"price '\\\\xff' {TOO_LONG}"),
    ("price", pa.int64(), 2, 10**10, f"price 10000000000 {TOO_LONG}"),
    ("price", pa.uint64(), 2, 2**64 - 1, f"price 18446744073709551615 {TOO_LONG}"),
    ("price", pa.decimal128(38, 9), Decimal("1.5"), Decimal("1.000000001"), f"price 1.000000001 {TOO_LONG}"),
    ("price", pa.decimal256(60, 2), Decimal("1.5"), Decimal("1e40"), f"price 1{'0' * 40}.00 {TOO_LONG}"),
    ("price", pa.list_(pa.float64()), None, [1.0], f"price [1.0] {TOO_LONG}"),
    ("price", pa.struct({"value": pa.int64()}), None, {"value": 1}, f"price {{'value': 1}} {TOO_LONG}"),
    ("price", pa.bool_(), None, True, f"price True {TOO_LONG}"),
    ("price", pa.date32(), None, date(2024, 1, 10), f"price 2024-01-10 {TOO_LONG}"),
    ("price", pa.time32("s"), None, time(12), f"price 12:00:00 {TOO_LONG}"),
    ("quantity", pa.float64(), 1.5, 0.0, "quantity 0 is not above zero"),
    ("quantity", pa.float64(), 1.5, -1.5, "quantity -1.5 is not above zero"),
    ("quantity", pa.float64(), 1.5, 1e12, f"quantity 1000000000000.0 {TOO_LONG_QUANTITY}"),
    ("quantity", pa.string(), "999999999999.999999999999", "1000000000000", f"quantity '1000000000000' {TOO_LONG_QUANTITY}"),
    ("quantity", pa.string(), "1e-12", "1e-13", f"quantity '1e-13' {TOO_LONG_QUANTITY}"),
    ("trade_id", pa.int64(), 5, None, "trade_id is null"),
    ("trade_id", pa.float64(), 5.0, float("nan"), "trade_id is null"),
    ("trade_id", pa.float64(), 5.0, 7.5, "trade_id 7.5 is not a 64-bit integer"),
    ("trade_id", pa.float64(), 5.0, 2.0**53, "trade_id 9007199254740992.0 is not a 64-bit integer"),
    ("trade_id", pa.float32(), 5.0, 2.0**24, "trade_id 16777216.0 is not a 64-bit integer"),
    ("trade_id", pa.uint64(), 5, 2**63, "trade_id 9223372036854775808 is not a 64-bit integer"),
    ("trade_id", pa.string(), "5", "9223372036854775808", "trade_id '9223372036854775808' is not a 64-bit integer"),
    ("trade_id", pa.bool_(), None, True, "trade_id True is not a 64-bit integer"),
    ("buyer_order_id", pa.string(), "5", "abc", "buyer_order_id 'abc' is not a 64-bit integer"),
    ("seller_order_id", pa.float64(), 5.0, 0.5, "seller_order_id 0.5 is not a 64-bit integer"),
    ("trade_kind", pa.string(), "ADL", "A" * 41, "trade_kind is not a word of at most 40 characters"),
    ("trade_kind", pa.string(), "A" * 40, "ADL\0", "trade_kind is not a word of at most 40 characters"),
    ("trade_kind", pa.binary(), b"ADL", b"\xff" * 11, "trade_kind is not a word of at most 40 characters"),
    ("trade_time", pa.string(), "2024-01-10T12:00:00Z", None, "trade_time is null"),
    ("trade_time", pa.string(), "2024-01-10T12:00:00Z", "yesterday", "trade_time 'yesterday' is not a time"),
    ("trade_time", pa.string(), str(MS_NOON), "1704888000", "trade_time 1970-01-20T17:34:48Z lies outside 2009 to 2100"),
    ("trade_time", pa.int64(), MS_NOON, 1_704_888_000, "trade_time 1970-01-20T17:34:48Z lies outside 2009 to 2100"),
    ("trade_time", pa.int64(), MS_NOON, -(2**63), "trade_time -1199-02-15T14:13:20Z lies outside 2009 to 2100"),
    ("trade_time", pa.float64(), float(MS_NOON), float("inf"), "trade_time inf is not a 64-bit integer"),
    ("trade_time", pa.timestamp("us"), MS_NOON * 1000, 2**62, "trade_time 148108-07-06T14:00:27Z lies outside 2009 to 2100"),
    ("trade_time", pa.timestamp("ms", "UTC"), MS_NOON, 2**62, "trade_time '<value out of range: 4611686018427387904>' is not a time"),
    ("trade_time", pa.timestamp("ns", "No/Where"), MS_NOON * 10**6, 1, "trade_time 1970-01-01T00:00:00Z lies outside 2009 to 2100"),
    ("trade_time", pa.time32("s"), None, time(12), "trade_time 12:00:00 is not a time"),
    ("trade_time", pa.date32(), None, date(2026, 11, 20), "trade_time 2026-11-20 is not a time"),
    ("trade_time", pa.date64(), None, date(2026, 11, 20), "trade_time 2026-11-20 is not a time"),
    ("trade_time", pa.string(), str(MS_NOON), "1.79514E+12", "trade_time '1.79514E+12' is not a time"),
    ("trade_time", pa.string(), str(MS_NOON), "20261120120000Z", "trade_time '20261120120000Z' is not a time"),
    ("trade_time", pa.int64(), MS_NOON, 2026112012000000, "trade_time 2026112012000000 is not a time"),
    ("trade_id", pa.string(), "5", "5.803e+09", "trade_id '5.803e+09' is not a 64-bit integer"),
    ("trade_id", pa.string(), "5", "NULL", "trade_id is null"),
    ("event_time", pa.string(), "2024-01-10T12:00:00Z", "soon", "event_time 'soon' is not a time"),
    ("event_time", pa.timestamp("s"), MS_NOON // 1000, 0, "event_time 1970-01-01T00:00:00Z lies outside 2009 to 2100"),
    ("event_time", pa.timestamp("ms"), MS_NOON, 4_102_444_800_000, "event_time 2100-01-01T00:00:00Z lies outside 2009 to 2100"),
    ("symbol", pa.string(), "BTCUSDT", "ETHUSDT", f"symbol ETHUSDT {NOT_BTC}"),
    ("symbol", pa.string(), "BTCUSDT", "btcusdt", f"symbol btcusdt {NOT_BTC}"),
    ("symbol", pa.string(), "BTCUSDT", None, "symbol is null"),
    ("symbol", pa.string(), "\u00a0 BTCUSDT\t", "BTC USDT", f"symbol BTC USDT {NOT_BTC}"),
    ("symbol", pa.string(), "BTCUSDT", "\u0412TCUSDT", f"symbol '\\u0412TCUSDT' {NOT_BTC}"),
    ("symbol", pa.string(), "BTCUSDT     ", "   ", "symbol is null"),
    ("symbol", pa.binary(9), b"BTCUSDT\0\0", b"ETHUSDT\0\0", f"symbol ETHUSDT {NOT_BTC}"),
    ("symbol", pa.int64(), None, 5, f"symbol 5 {NOT_BTC}"),
    ("symbol", pa.binary(), b"BTCUSDT", b"\xff", f"symbol \\xff {NOT_BTC}"),
    ("symbol", pa.list_(pa.string()), None, ["BTCUSDT"], f"symbol ['BTCUSDT'] {NOT_BTC}"),
    ("is_market_maker", pa.bool_(), True, None, "is_market_maker is null"),
    ("is_market_maker", pa.string(), "True", "yes", "is_market_maker 'yes' is not true or false"),
    ("is_market_maker", pa.int64(), 1, 2, "is_market_maker 2 is not true or false"),
]


@pytest.mark.parametrize(("name", "type", "good", "bad", "reason"), BAD_VALUES, ids=[f"{case[4][:50]}-{case[1]}" for case in BAD_VALUES])
def test_a_bad_value_rejects_its_row_and_says_why_and_the_others_survive(
    name: str, type: pa.DataType, good: object, bad: object, reason: str
) -> None:
    raw = table(SAMPLE.slice(0, 3))
    values = [good, bad, good] if good is not None else [None, bad, None]
    decoded = decode(raw.set_column(raw.column_names.index(name), name, pa.array(values, type)), [FEED])
    assert dict(zip(*decoded.rejected.select(["index", "reason"]).to_pydict().values(), strict=True))[1] == reason
    assert decoded.index.tolist() == ([0, 2] if good is not None else [])
    survivor = table(SAMPLE).set_column(raw.column_names.index(name), name, pa.array([good] * 40, type))
    assert good is None or decoded.ticks == decode(survivor, [FEED]).ticks.take([0, 2])


@pytest.mark.parametrize("missing", ["trade_time", "trade_id", "price", "quantity", "is_market_maker"])
def test_without_a_column_that_every_trade_has_the_object_is_rejected(missing: str) -> None:
    raw = table(SAMPLE).drop_columns([missing])
    with pytest.raises(ObjectRejected) as caught:
        decode(raw, [FEED])
    assert str(caught.value) == (
        f"it has another schema: no column for {missing} (its columns: {', '.join(raw.column_names)}); "
        "move it out of the landing zone or land it as trades"
    )


def test_a_row_is_rejected_for_the_first_thing_that_is_wrong_with_it() -> None:
    line = b'{"s":"ETHUSDT","t":null,"T":0,"p":"0","q":"-1","m":"?"}'
    assert read(line).rejected == [(1, f"symbol ETHUSDT {NOT_BTC}")]


@pytest.mark.parametrize("marker", ["NULL", r"\N", "<NA>", "NA", "N/A", "NaN", "None", "-", "Infinity", "-inf", "inf"])
@pytest.mark.parametrize("name", ["event_time", "buyer_order_id", "seller_order_id"])
def test_no_value_in_a_field_that_need_not_be_there_rejects_no_row(name: str, marker: str) -> None:
    raw = table(SAMPLE)
    at = raw.column_names.index(name)
    for column in ([marker] * 40, [*[marker] * 39, raw[name][39].as_py()]):
        result = read(csv(raw.set_column(at, name, pa.array([None if value is None else str(value) for value in column]))))
        assert result.rejected == []
        assert result.ticks[name].to_pylist()[:39] == [None] * 39


def test_an_infinite_order_id_is_as_unknown_as_one_that_is_no_number() -> None:
    raw = table(SAMPLE).set_column(6, "buyer_order_id", pa.array([float("inf"), float("-inf"), float("nan"), 5.0] * 10))
    assert decode(raw, [FEED]).ticks["buyer_order_id"].to_pylist() == [None, None, None, 5] * 10


def test_a_rejected_row_is_kept_as_json_under_the_slice_of_its_time() -> None:
    raw = table(SAMPLE.slice(0, 3), time="timestamp[ns, UTC]", decimal="decimal128")
    raw = raw.set_column(3, "trade_id", pa.array([None, 2, None], pa.int64())).append_column("note", [[b"\xff", b"", None]])
    raw = raw.set_column(1, "trade_time", pa.array([1, 2, 2**62], pa.timestamp("ns", "No/Where")))
    decoded = decode(raw, [FEED])
    first, _, last = decoded.rejected.to_pylist()
    assert first["bucket_us"] == (SAMPLE["bucket_5m"][0].as_py() - EPOCH) // timedelta(microseconds=1)
    record = orjson.loads(first["record"])
    assert (record["trade_id"], record["price"], record["note"]) == (None, str(raw["price"][0].as_py()), "\\xff")
    assert orjson.loads(last["record"])["trade_time"] == "2116-02-20 23:53:38.427387904Z"


def test_a_rejected_row_without_a_time_has_no_slice() -> None:
    raw = table(SAMPLE.slice(0, 1)).set_column(0, "event_time", pa.array([0])).set_column(1, "trade_time", pa.array(["?"]))
    assert decode(raw, [FEED]).rejected["bucket_us"].to_pylist() == [None]


def test_columns_that_no_known_producer_sends_are_named_and_do_no_harm() -> None:
    raw = table(SAMPLE).append_column("venue", [["x"] * 40]).append_column("quote_qty", [["1"] * 40])
    decoded = decode(raw, [FEED])
    assert decoded.ticks == without(SAMPLE)
    assert decoded.extra_columns == ("venue",)


# ---- symbols

SPOT = Feed("Binance/spot", "BTCUSDT", "BTCUSDT")
PERPETUAL = Feed("Binance/um", "BTCUSDT", "BTCUSDT-PERP")
TWO = (Feed("Binance/all", "BTCUSDT", "BTC"), Feed("Binance/all", "ETHUSDT", "ETH"))


def several() -> pa.Table:
    symbols = pa.array(["BTCUSDT", "ETHUSDT", "XRPUSDT", None] * 10)
    return table(SAMPLE).set_column(2, "symbol", symbols)


def test_a_tick_carries_the_label_of_its_feed() -> None:
    assert set(decode(table(SAMPLE), [SPOT]).ticks["symbol"].to_pylist()) == {"BTCUSDT"}
    assert set(decode(table(SAMPLE), [PERPETUAL]).ticks["symbol"].to_pylist()) == {"BTCUSDT-PERP"}


def test_without_a_symbol_column_the_only_feed_of_the_prefix_is_meant() -> None:
    ticks = decode(table(SAMPLE).drop_columns(["symbol"]), [PERPETUAL]).ticks
    assert set(ticks["symbol"].to_pylist()) == {"BTCUSDT-PERP"}


def test_another_symbol_in_an_object_of_one_feed_is_rejected() -> None:
    decoded = decode(several(), [SPOT])
    assert decoded.ticks["trade_id"] == SAMPLE["trade_id"].take(pa.array(range(0, 40, 4)))
    assert decoded.rejected["reason"].to_pylist()[:3] == [f"symbol ETHUSDT {NOT_BTC}", f"symbol XRPUSDT {NOT_BTC}", "symbol is null"]


def test_two_feeds_of_one_prefix_are_each_stored_under_their_own_label() -> None:
    decoded = decode(several(), TWO)
    assert decoded.ticks["symbol"].to_pylist() == ["BTC", "ETH"] * 10
    assert decoded.index.tolist() == [i for i in range(40) if i % 4 < 2]
    assert decoded.rejected["reason"].to_pylist()[:2] == [
        "symbol XRPUSDT is not BTCUSDT or ETHUSDT, which this prefix is for",
        "symbol is null",
    ]


def test_without_a_symbol_column_an_object_of_a_shared_prefix_is_rejected() -> None:
    with pytest.raises(ObjectRejected) as caught:
        decode(table(SAMPLE).drop_columns(["symbol"]), TWO)
    assert str(caught.value) == "it has no symbol column, but its prefix is shared by several symbols: land each under its own prefix"


# ---- anything at all

CELLS = (
    st.none()
    | st.text(max_size=8)
    | st.sampled_from(["1", "0", "-1", "1704888000000", "2024-01-10T12:00:00Z", "true", "BTCUSDT", "1.5", "nan"])
)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys("ETstpqbam", CELLS)), min_size=1, max_size=8))
@hypothesis_settings(max_examples=300)
def test_every_row_of_any_text_is_either_a_valid_tick_or_rejected(rows: list[dict[str, str | None]]) -> None:
    decoded = decode(pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in "ETstpqbam"}), [FEED])
    assert sorted([*decoded.index.tolist(), *decoded.rejected["index"].to_pylist()]) == list(range(len(rows)))
    for tick in decoded.ticks.to_pylist():
        assert tick["symbol"] == "BTCUSDT"
        assert tick["price"] > 0
        assert tick["quantity"] > 0
        assert all(tick[field.name] is not None for field in DECODED_SCHEMA if not field.nullable)
    for row in rows:  # alone or with others, a row is the same
        alone = decode(pa.table({name: pa.array([row[name]], pa.string()) for name in "ETstpqbam"}), [FEED])
        together = [tick for tick, i in zip(decoded.ticks.to_pylist(), decoded.index.tolist(), strict=True) if rows[i] == row]
        assert alone.ticks.to_pylist() == together[:1]


ODD: dict[str, pa.Array] = {
    "uint64": pa.array([2**64 - 1, 2**63, 0, None], pa.uint64()),
    "float64": pa.array([float("nan"), float("-inf"), 1e300, -0.0]),
    "float16": pa.array([np.float16(1.5), None, np.float16("nan"), np.float16(65504)], pa.float16()),
    "null": pa.nulls(4),
    "date64": pa.array([2**50, 0, None, 1], pa.date64()),
    "time64": pa.array([1, None, 0, 10**12], pa.time64("ns")),
    "duration": pa.array([2**62, 1, None, 0], pa.duration("s")),
    **{
        f"timestamp {unit} {zone}": pa.array([2**63 - 1, -(2**63), None, 1], pa.timestamp(unit, zone))
        for unit in ("s", "ns")
        for zone in (None, "No/Where", "../x")
    },
    "list": pa.array([[1], None, [], [2]], pa.large_list(pa.int64())),
    "map": pa.array([[("a", 1)], None, [], []], pa.map_(pa.string(), pa.int64())),
    "struct": pa.array([{"a": b"\xff"}, None, {"a": None}, {}], pa.struct({"a": pa.binary()})),
    "binary": pa.array([b"\xff", b"5", None, b""]),
    "fixed binary": pa.array([b"\xff\xff", b"55", None, b"--"], pa.binary(2)),
    "binary view": pa.array([b"\xff", b"5", None, b"a long one that is not inlined"], pa.binary_view()),
    "string view": pa.array(["x", "5", None, "a long one that is not inlined"], pa.string_view()),
    "decimal256": pa.array([Decimal("1e60"), Decimal("1.5"), None, Decimal(0)], pa.decimal256(76, 4)),
    "dictionary of binary": pa.array([b"\xff", b"5", None, b"5"]).dictionary_encode(),
    "long text": pa.array(["9" * 100_000, "\0", "1_000", "１２"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", [*TICK_SCHEMA.names[1:], "venue"])
def test_no_type_of_column_is_too_odd_for_its_rows_to_be_rejected_one_by_one(name: str, kind: str) -> None:
    raw = table(SAMPLE.slice(0, 4))
    if name in raw.column_names:
        raw = raw.drop_columns([name])
    for odd in (
        ODD[kind],
        pa.concat_arrays([ODD[kind], ODD[kind]]).slice(2, 4),
        pa.chunked_array([ODD[kind].slice(0, 1), ODD[kind].slice(1)]),
    ):
        decoded = decode(raw.append_column(name, odd), [FEED])
        decoded.ticks.validate(full=True)
        assert len(decoded.ticks) + len(decoded.rejected) + len(decoded.left_out) == 4
        assert max(map(len, decoded.rejected["reason"].to_pylist()), default=0) < 200


@pytest.mark.parametrize(
    ("kind", "price", "quantity", "outcome"),
    [
        ("NA", "0", "0", "left out"),
        ("NA", "0.00", "1", "left out"),
        ("ADL", "5", "0", "left out"),
        ("NA", "5", "1", "tick"),
        ("NA", "-5", "1", "price -5 is not above zero"),
        ("NA", None, "0", "price is null"),
        ("MARKET", "0", "0", "price 0 is not above zero"),
        (" market ", "0", "0", "price 0 is not above zero"),
        (None, "0", "0", "price 0 is not above zero"),
    ],
)
def test_a_row_in_which_nothing_was_traded_is_left_out_only_if_its_kind_says_so(
    kind: str | None, price: str | None, quantity: str, outcome: str
) -> None:
    message = {"e": "trade", "E": MS_NOON, "T": MS_NOON, "s": "BTCUSDT", "t": 7, "p": price, "q": quantity, "m": True, "X": kind}
    result = read(orjson.dumps(message) + b"\n" + orjson.dumps(message | {"t": 8, "p": "5", "q": "1"}))
    found = (result.left_out and "left out") or (result.rejected[0][1] if result.rejected else "tick")
    assert found == outcome
    assert result.ticks["trade_id"].to_pylist() == ([7, 8] if outcome == "tick" else [8])
    assert set(result.ticks["trade_kind"].to_pylist()) == {"MARKET" if kind == " market " else kind}
