"""Replayed trades land as the collector lands them, and come back to the last digit."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed
from btc_assets.domain.ticks import TICK_SCHEMA
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.batches import BatchLimits, encode_batch
from btc_assets.simulation.replay import Landed, land_trades, read_trades
from btc_assets_tests.support.collected import decoded, ids, memory_zone, objects, pieces
from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.stores import FEED, real_data
from btc_assets_tests.support.trades import NOON, every, table, trade


@pytest.fixture
def zone() -> LandingZone:
    return memory_zone()


def test_a_batch_lies_in_the_minute_of_its_first_trade(zone: LandingZone) -> None:
    land_trades(zone, FEED, iter([every(20, 12, start=NOON + timedelta(seconds=50))]), Landed(), limits=BatchLimits(seconds=60))
    folders = ["2024/01/10/12/00", "2024/01/10/12/01", "2024/01/10/12/02", "2024/01/10/12/03"]
    assert [path.rsplit("/", 1)[0] for path in objects(zone)] == folders
    assert all(re.fullmatch(r"batch-[0-9a-f]{32}\.parquet", path.rsplit("/", 1)[1]) for path in objects(zone))


def test_a_trade_never_lies_far_from_its_folder_whatever_the_order(zone: LandingZone) -> None:
    ticks = every(1, 600)
    shuffled = ticks.take(pa.array(np.random.default_rng(1).permutation(600)))
    land_trades(zone, FEED, iter([shuffled]), Landed(), limits=BatchLimits(seconds=15))
    for path, data in objects(zone).items():
        folder = datetime.strptime(path.rsplit("/", 1)[0], "%Y/%m/%d/%H/%M").replace(tzinfo=UTC)
        for time in decoded(data)["event_time"].to_pylist():
            assert timedelta(seconds=-15) < time - folder < timedelta(seconds=75)


lengths = st.lists(st.integers(0, 12), max_size=20)
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
    landed = land_trades(zone, FEED, pieces(ticks, lengths), Landed(), limits=BatchLimits(rows=rows))
    found = objects(zone)
    back = pa.concat_tables([decoded(data) for data in found.values()])
    assert back.sort_by("trade_id").equals(ticks.sort_by("trade_id"))
    times = ticks["event_time"].to_pylist()
    assert (landed.ticks, landed.first_event_time, landed.last_event_time) == (len(ticks), min(times), max(times))


def test_landing_the_same_trades_again_gives_the_same_objects(zone: LandingZone) -> None:
    ticks = every(0.5, 2000)
    first = land_trades(zone, FEED, iter([ticks]), Landed())
    before = objects(zone)
    again = land_trades(zone, FEED, pieces(ticks, [1, 700, 0, 13]), Landed())
    assert objects(zone) == before
    assert first == again == Landed(len(before), 2000, sum(map(len, before.values())), NOON, NOON + timedelta(seconds=999.5))


def test_a_batch_of_the_same_trades_replaces_the_earlier_one(zone: LandingZone) -> None:
    for price in ("1", "2"):  # faulty, corrected
        land_trades(zone, FEED, iter([table([trade(i, NOON, price=price) for i in range(10)])]), Landed())
    (data,) = objects(zone).values()
    assert set(decoded(data)["price"].to_pylist()) == {Decimal(2)}


def test_symbols_that_share_a_prefix_do_not_share_objects(zone: LandingZone) -> None:
    for symbol in ("BTCUSDT", "BTCUSDC"):
        land_trades(zone, Feed(FEED.prefix, symbol, symbol), iter([every(1, 3)]), Landed())
    assert len(objects(zone)) == 2


def test_no_trades_land_as_no_objects(zone: LandingZone) -> None:
    assert land_trades(zone, FEED, iter([TICK_SCHEMA.empty_table()]), Landed()) == land_trades(zone, FEED, iter([]), Landed()) == Landed()


def test_progress_reports_the_objects_so_far(zone: LandingZone) -> None:
    reported: list[int] = []
    land_trades(zone, FEED, iter([every(15, 150)]), Landed(), progress=reported.append)
    assert reported[-1] == 150
    assert reported == sorted(set(reported))
    assert len(reported) > 1


def test_an_object_that_cannot_be_written_ends_the_replay(tmp_path: Path) -> None:
    zone = LandingZone(tmp_path.as_uri())
    (tmp_path / "Binance").touch()
    with pytest.raises(UserError, match=r"^Writing file://.* failed "):
        land_trades(zone, FEED, iter([every(1, 100)]), Landed())


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


def test_rows_that_are_not_valid_trades_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(CSV + "".join(f"{i},BTCUSDT,1704888001000,{'0' if i % 2 else '1'},1,true\n" for i in range(1, 101)))
    landed = Landed()
    (ticks,) = (ticks for ticks in read_trades(path, FEED, landed) if len(ticks))
    assert ids(ticks) == list(range(2, 101, 2))
    assert landed.rejected_rows == 50
    assert landed.rejected[:2] == ["row 1: price 0 is not above zero", "row 3: price 0 is not above zero"]
    assert len(landed.rejected) == 20


def test_a_file_that_does_not_exist_is_refused_in_one_sentence(tmp_path: Path) -> None:
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
def test_a_file_without_trades_is_refused_in_one_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        list(read_trades(path, FEED, Landed()))
    assert str(refused.value).startswith(f"The trades file {path} cannot be read: {reason}")
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "trades"), [("spot_BTCUSDT_2023-04-05_ws_trades.csv.gz", 3_144), ("um_BTCUSDT_2024-07-18_19_ws_trades.csv.gz", 10_701)]
)
def test_real_trades_come_back_to_the_last_digit(zone: LandingZone, name: str, trades: int) -> None:
    landed = Landed()
    ticks = pa.concat_tables(read_trades(real_data(name), FEED, landed))
    land_trades(zone, FEED, iter([ticks]), landed)
    back = pa.concat_tables([decoded(data) for data in objects(zone).values()])
    assert landed.ticks == trades
    assert back.sort_by("trade_id").equals(ticks.sort_by("trade_id"))


def test_a_file_that_breaks_off_says_how_far_it_came_and_does_not_advise_to_land_it_again(tmp_path: Path) -> None:
    (tmp_path / "zone").mkdir()
    zone, path, landed = LandingZone((tmp_path / "zone").as_uri()), tmp_path / "trades.csv.gz", Landed()
    rows = b"".join(b"%d,BTCUSDT,%d,42000.5,0.%d,true\n" % (1704888000000 + i * 250, i, 1 + i * 7919 % 999_983) for i in range(200_000))
    path.write_bytes(gzip.compress(b"trade_time,symbol,trade_id,price,quantity,is_market_maker\n" + rows)[:-50_000])
    with pytest.raises(UserError) as caught:
        land_trades(zone, FEED, read_trades(path, FEED, landed), landed)
    objects = list(zone.list_all(FEED.prefix))
    assert 0 < landed.objects == len(objects)
    assert str(caught.value) == (
        f"The trades file {path} cannot be read: its csv.gz content is damaged or truncated (Compressed file ended before the "
        f"end-of-stream marker was reached). {landed.objects:,} objects with {landed.ticks:,} ticks, {landed.first_event_time} to "
        f"{landed.last_event_time}, were landed before that and will be loaded: mend what is wrong, and land the whole trades; those that "
        "are there are not doubled."
    )


def test_a_month_whose_second_file_is_empty_lands_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "zone").mkdir()
    zone, landed = LandingZone((tmp_path / "zone").as_uri()), Landed()
    land_trades(zone, FEED, read_trades(case_file("26-partly-landed", "month.zip"), FEED, landed), landed)
    assert (landed.ticks, landed.rejected_rows, landed.notes) == (4000, 0, {"empty_members": ["BTCUSDT-trades-2026-11-21.csv"]})


def test_trades_of_two_days_that_alternate_are_as_few_objects_as_in_order(zone: LandingZone) -> None:
    first, second = every(1, 1500), every(1, 1500, start=NOON + timedelta(days=1), first_id=2000)
    mixed = pa.concat_tables([first, second]).take(pa.array(np.arange(3000).reshape(2, 1500).T.ravel()))
    landed = land_trades(zone, FEED, iter([mixed]), Landed())
    assert landed.objects == 200  # 1,500 seconds in batches of 15, twice
    assert sorted(trade for data in objects(zone).values() for trade in ids(decoded(data))) == sorted(ids(mixed))
