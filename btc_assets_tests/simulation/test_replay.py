"""Replayed trades land as the collector lands them, and come back to the last digit."""

from __future__ import annotations

import gzip
import io
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed
from btc_assets.domain.ticks import TICK_SCHEMA
from btc_assets.landing.decode import decode
from btc_assets.landing.formats import ObjectRejected, read_object
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.replay import Landed, _batches, encode_batch, land, read_trades
from btc_assets_tests.support.stores import FEED, real_data
from btc_assets_tests.support.trades import NOON, every, table, trade

FUTURES = Feed("Binance/BTCUSDT_UM", "BTCUSDT", "BTCUSDT_UM")


@pytest.fixture
def zone() -> LandingZone:
    return memory_zone()


def memory_zone() -> LandingZone:
    return LandingZone(f"memory:///{uuid.uuid4().hex}")


def objects(zone: LandingZone, feed: Feed = FEED) -> dict[str, bytes]:
    """Every object by its path below the prefix, in order."""
    found = sorted(zone.list_all(feed.prefix))
    return {zone.path(obj.uri).removeprefix(f"{feed.prefix}/"): data for obj in found if isinstance(data := zone.read(obj)[0], bytes)}


def decoded(data: bytes, feed: Feed = FEED) -> pa.Table:
    parts = [decode(raw, [feed]) for raw in read_object(data)[1]]
    assert not any(len(part.rejected) for part in parts)
    return pa.concat_tables([part.ticks for part in parts])


def ids(ticks: pa.Table) -> list[int]:
    return ticks["trade_id"].to_pylist()


# ---- batches


def test_a_batch_closes_when_its_time_is_over(zone: LandingZone) -> None:
    land(zone, FEED, iter([every(5, 7)]), Landed(), batch_seconds=15)
    assert sorted(ids(decoded(data)) for data in objects(zone).values()) == [[1, 2, 3], [4, 5, 6], [7]]


def test_a_batch_closes_when_it_is_full(zone: LandingZone) -> None:
    land(zone, FEED, iter([every(60, 7)]), Landed(), batch_seconds=3600, batch_rows=3)
    assert sorted(ids(decoded(data)) for data in objects(zone).values()) == [[1, 2, 3], [4, 5, 6], [7]]


def test_a_batch_lies_in_the_minute_of_its_first_trade(zone: LandingZone) -> None:
    land(zone, FEED, iter([every(20, 12, start=NOON + timedelta(seconds=50))]), Landed(), batch_seconds=60)
    folders = ["2024/01/10/12/00", "2024/01/10/12/01", "2024/01/10/12/02", "2024/01/10/12/03"]
    assert [path.rsplit("/", 1)[0] for path in objects(zone)] == folders
    assert all(re.fullmatch(r"batch-[0-9a-f]{32}\.parquet", path.rsplit("/", 1)[1]) for path in objects(zone))


def test_a_trade_never_lies_far_from_its_folder_whatever_the_order(zone: LandingZone) -> None:
    ticks = every(1, 600)
    shuffled = ticks.take(pa.array(np.random.default_rng(1).permutation(600)))
    land(zone, FEED, iter([shuffled]), Landed(), batch_seconds=15)
    for path, data in objects(zone).items():
        folder = datetime.strptime(path.rsplit("/", 1)[0], "%Y/%m/%d/%H/%M").replace(tzinfo=UTC)
        for time in decoded(data)["event_time"].to_pylist():
            assert timedelta(seconds=-15) < time - folder < timedelta(seconds=75)


steps = st.lists(st.one_of(st.integers(0, 10**7), st.integers(-(10**8), 10**9)), max_size=60)
lengths = st.lists(st.integers(0, 12), max_size=20)


@given(steps, lengths, st.floats(1e-7, 100), st.integers(1, 10))
@example([0] * 10, [3, 0, 7], 15.0, 5)
def test_batches_are_the_trades_in_their_order_however_they_come_in(
    steps: list[int], lengths: list[int], seconds: float, rows: int
) -> None:
    times = [NOON + timedelta(microseconds=int(us)) for us in np.cumsum(steps)]
    ticks = table([trade(i, at) for i, at in enumerate(times)])
    batches = list(_batches(pieces(ticks, lengths), seconds, rows))
    assert pa.concat_tables([ticks.slice(0, 0), *batches]).equals(ticks)  # none is lost, none comes twice
    assert [ids(batch) for batch in batches] == [ids(batch) for batch in _batches(iter([ticks]), seconds, rows)]
    width = max(timedelta(seconds=seconds), timedelta(microseconds=1))
    for batch in batches:
        times = batch["event_time"].to_pylist()
        assert 1 <= len(times) <= rows
        assert all(abs(time - times[0]) < width for time in times)
    for batch, following in pairwise(batches):
        first, closing = batch["event_time"][0].as_py(), following["event_time"][0].as_py()
        assert len(batch) == rows or abs(closing - first) >= width - timedelta(microseconds=1)  # none closes early


def pieces(ticks: pa.Table, lengths: Sequence[int]) -> Iterator[pa.Table]:
    start = 0
    for length in lengths:
        yield ticks.slice(start, length)
        start += length
    yield ticks.slice(start)


# ---- what an object looks like


def collector_rows(ticks: pa.Table) -> pa.Table:
    return pq.read_table(io.BytesIO(encode_batch(ticks, FEED)[1]))


def test_an_object_has_the_collector_s_columns() -> None:
    at = datetime(2024, 1, 10, 12, 0, 1, tzinfo=UTC)
    rows = collector_rows(
        table(
            [
                trade(7, at, price="42000.01", quantity="0.00015", made=at - timedelta(milliseconds=1), maker=True),
                trade(8, at + timedelta(microseconds=123), made=at),
            ]
        )
    )
    assert rows.to_pylist() == [
        {
            "event_time": "2024-01-10T12:00:01+00:00", "trade_time": "2024-01-10T12:00:00.999000+00:00", "symbol": "BTCUSDT", "trade_id": 7,
            "price": 42000.01, "quantity": 0.00015, "buyer_order_id": None, "seller_order_id": None, "is_market_maker": True,
        },
        {
            "event_time": "2024-01-10T12:00:01.000123+00:00", "trade_time": "2024-01-10T12:00:01+00:00", "symbol": "BTCUSDT", "trade_id": 8,
            "price": 42000.5, "quantity": 0.25, "buyer_order_id": None, "seller_order_id": None, "is_market_maker": False,
        },
    ]  # fmt: skip
    types = {field.name: str(field.type) for field in rows.schema}
    assert types == {
        "event_time": "string", "trade_time": "string", "symbol": "string", "trade_id": "int64", "price": "double", "quantity": "double",
        "buyer_order_id": "null", "seller_order_id": "null", "is_market_maker": "bool",
    }  # fmt: skip


def test_order_ids_are_integers_where_a_batch_has_any() -> None:
    rows = collector_rows(table([trade(1, NOON, buyer=2**62), trade(2, NOON)]))
    assert rows["buyer_order_id"].to_pylist() == [2**62, None]
    assert str(rows.schema.field("seller_order_id").type) == "null"


@given(st.lists(st.datetimes(datetime(2009, 1, 4), datetime(2099, 12, 31)), min_size=1))
def test_times_are_written_as_python_writes_them(times: list[datetime]) -> None:
    utc = [time.replace(tzinfo=UTC) for time in times]
    assert collector_rows(table([trade(1, time) for time in utc]))["event_time"].to_pylist() == [time.isoformat() for time in utc]


@given(st.lists(st.integers(1, 10**15), min_size=1))
def test_prices_and_quantities_are_the_floats_nearest_to_them(units: list[int]) -> None:
    values = [Decimal(unit).scaleb(-8) for unit in units]
    rows = collector_rows(table([trade(1, NOON, price=str(value), quantity=str(value)) for value in values]))
    assert rows["price"].to_pylist() == rows["quantity"].to_pylist() == [float(value) for value in values]


def test_the_symbol_is_the_exchange_s_and_the_label_comes_back(zone: LandingZone) -> None:
    ticks = table([trade(1, NOON, symbol="BTCUSDT_UM")])
    land(zone, FUTURES, iter([ticks]), Landed())
    (data,) = objects(zone, FUTURES).values()
    assert pq.read_table(io.BytesIO(data))["symbol"].to_pylist() == ["BTCUSDT"]
    assert decoded(data, FUTURES).equals(ticks)


def test_a_flipped_byte_in_an_object_never_gives_other_trades() -> None:
    ticks = every(1, 300)
    _, data = encode_batch(ticks, FEED)
    noticed = 0
    for at in range(4, len(data), len(data) // 150):
        try:
            (raw,) = read_object(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])[1]
            assert decode(raw, [FEED]).ticks.equals(ticks)
        except ObjectRejected:
            noticed += 1
    assert noticed > 100


# ---- there and back


order_ids = st.none() | st.integers(0, 2**63 - 1)


@st.composite
def ticks_of_any_kind(draw: st.DrawFn) -> pa.Table:
    times = draw(st.lists(st.datetimes(datetime(2024, 1, 9, 23, 59), datetime(2024, 1, 10, 0, 1)), min_size=1, max_size=30))
    trade_ids = draw(st.lists(st.integers(0, 2**63 - 1), unique=True, min_size=len(times), max_size=len(times)))
    return table(
        [
            trade(
                trade_id,
                time.replace(tzinfo=UTC),
                price=str(Decimal(draw(st.integers(1, 10**15))).scaleb(-8)),
                quantity=str(Decimal(draw(st.integers(1, 10**15))).scaleb(-8)),
                made=time.replace(tzinfo=UTC) - timedelta(microseconds=draw(st.integers(0, 5_000_000))),
                maker=draw(st.booleans()),
                buyer=draw(order_ids),
                seller=draw(order_ids),
            )
            for trade_id, time in zip(trade_ids, times, strict=True)
        ]
    )


@hypothesis_settings(max_examples=50)
@given(ticks_of_any_kind(), lengths, st.integers(5, 30))
def test_what_landed_decodes_to_the_same_ticks_to_the_last_digit(ticks: pa.Table, lengths: list[int], rows: int) -> None:
    zone = memory_zone()
    landed = land(zone, FEED, pieces(ticks, lengths), Landed(), batch_rows=rows)
    found = objects(zone)
    back = pa.concat_tables([decoded(data) for data in found.values()])
    assert back.sort_by("trade_id").equals(ticks.sort_by("trade_id"))
    times = ticks["event_time"].to_pylist()
    assert (landed.ticks, landed.first_event_time, landed.last_event_time) == (len(ticks), min(times), max(times))


def test_landing_the_same_trades_again_gives_the_same_objects(zone: LandingZone) -> None:
    ticks = every(0.5, 2000)
    first = land(zone, FEED, iter([ticks]), Landed())
    before = objects(zone)
    again = land(zone, FEED, pieces(ticks, [1, 700, 0, 13]), Landed())
    assert objects(zone) == before
    assert first == again == Landed(len(before), 2000, sum(map(len, before.values())), NOON, NOON + timedelta(seconds=999.5))


def test_a_batch_of_the_same_trades_replaces_the_earlier_one(zone: LandingZone) -> None:
    for price in ("1", "2"):  # faulty, corrected
        land(zone, FEED, iter([table([trade(i, NOON, price=price) for i in range(10)])]), Landed())
    (data,) = objects(zone).values()
    assert set(decoded(data)["price"].to_pylist()) == {Decimal(2)}


def test_symbols_that_share_a_prefix_do_not_share_objects(zone: LandingZone) -> None:
    for symbol in ("BTCUSDT", "BTCUSDC"):
        land(zone, Feed(FEED.prefix, symbol, symbol), iter([every(1, 3)]), Landed())
    assert len(objects(zone)) == 2


def test_nothing_lands_from_nothing(zone: LandingZone) -> None:
    assert land(zone, FEED, iter([TICK_SCHEMA.empty_table()]), Landed()) == land(zone, FEED, iter([]), Landed()) == Landed()


def test_progress_tells_the_objects_so_far(zone: LandingZone) -> None:
    told: list[int] = []
    land(zone, FEED, iter([every(15, 150)]), Landed(), progress=told.append)
    assert told[-1] == 150
    assert told == sorted(set(told))
    assert len(told) > 1


def test_what_cannot_be_landed_ends_it(tmp_path: Path) -> None:
    zone = LandingZone(tmp_path.as_uri())
    (tmp_path / "Binance").touch()
    with pytest.raises(UserError, match=r"^Writing file://.* failed "):
        land(zone, FEED, iter([every(1, 100)]), Landed())


# ---- a file of trades


CSV = "trade_id,symbol,trade_time,price,quantity,is_market_maker\n"


def test_a_file_in_any_landing_format_is_read(tmp_path: Path) -> None:
    ticks = every(1, 100)
    parquet, csv = tmp_path / "trades.parquet", tmp_path / "trades.csv.gz"
    parquet.write_bytes(encode_batch(ticks, FEED)[1])
    rows = ticks.to_pylist()
    csv.write_bytes(
        gzip.compress(
            b"event_time,trade_time,symbol,trade_id,price,quantity,is_market_maker\n"
            + b"".join(
                f"{r['event_time'].isoformat()},{r['trade_time'].isoformat()},BTCUSDT,{r['trade_id']},{r['price']},{r['quantity']},{r['is_market_maker']}\n".encode()
                for r in rows
            )
        )
    )
    for path in (parquet, csv):
        assert pa.concat_tables(read_trades(path, FEED, Landed())).equals(ticks)


def test_rows_that_are_no_trades_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(CSV + "".join(f"{i},BTCUSDT,1704888001000,{'0' if i % 2 else '1'},1,true\n" for i in range(1, 101)))
    landed = Landed()
    (ticks,) = (ticks for ticks in read_trades(path, FEED, landed) if len(ticks))
    assert ids(ticks) == list(range(2, 101, 2))
    assert landed.rejected_rows == 50
    assert landed.rejected[:2] == ["row 1: price 0 is not above zero", "row 3: price 0 is not above zero"]
    assert len(landed.rejected) == 20


def test_a_file_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError) as missing:
        list(read_trades(tmp_path / "none.csv", FEED, Landed()))
    assert (
        str(missing.value)
        == f"The trades file {tmp_path}/none.csv does not exist: give the path of a CSV, JSON lines, Parquet or zip file."
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the object is empty"),
        (b"\0\1\2\3", "its format is unknown"),
        (b"a,b\n1,2\n", "it has another schema: no column for trade_time"),
        (b"PAR1 and no more", "its Parquet content is damaged or truncated"),
    ],
)
def test_a_file_that_holds_no_trades_is_one_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        list(read_trades(path, FEED, Landed()))
    assert str(refused.value).startswith(f"The trades file {path} cannot be read: {reason}")
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


# ---- real trades


@pytest.mark.parametrize(
    ("name", "trades"), [("spot_BTCUSDT_2023-04-05_ws_trades.csv.gz", 3_144), ("um_BTCUSDT_2024-07-18_19_ws_trades.csv.gz", 10_701)]
)
def test_real_trades_come_back_to_the_last_digit(zone: LandingZone, name: str, trades: int) -> None:
    landed = Landed()
    ticks = pa.concat_tables(read_trades(real_data(name), FEED, landed))
    land(zone, FEED, iter([ticks]), landed)
    back = pa.concat_tables([decoded(data) for data in objects(zone).values()])
    assert landed.ticks == trades
    assert back.sort_by("trade_id").equals(ticks.sort_by("trade_id"))
