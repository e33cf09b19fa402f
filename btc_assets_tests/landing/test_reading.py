"""Objects are fetched in bounded groups and decoded together, and every row is traced back to its object."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.slices import SLICE
from btc_assets.landing import reading
from btc_assets.landing.decode import Decoded, decode
from btc_assets.landing.objects import LandedObject, ObjectGone
from btc_assets.landing.reading import Fetched, count_by_slice, decode_group, fetch, fetch_groups
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.landed import land, remove
from btc_assets_tests.support.producers import PRODUCERS
from btc_assets_tests.support.stores import FEED, FEEDS
from btc_assets_tests.support.trades import NOON, every, table, trade

HEADER = b"trade_time,symbol,trade_id,price,quantity,is_market_maker\n"
ROW = b"1704888000000,BTCUSDT,%d,42000.5,0.25,true\n"
BAD_ROW = b"1704888000000,BTCUSDT,%d,-5,0.25,true\n"


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path.as_uri())


def listed(name: str, size: int, prefix: str = FEED.prefix) -> LandedObject:
    return LandedObject(f"s3://landing/{prefix}/2024/01/10/12/00/{name}", "e", size, datetime(2024, 1, 10, tzinfo=UTC), prefix)


def fetched(zone: LandingZone, *contents: bytes) -> list[Fetched]:
    return [fetch(zone, land(zone, content, f"2024/01/10/12/00/{number}")) for number, content in enumerate(contents)]


def test_a_fetched_object_is_its_raw_tables_and_format(zone: LandingZone) -> None:
    (one,) = fetched(zone, HEADER + ROW % 1)
    assert (one.format, one.verified, [len(raw) for raw in one.raw]) == ("csv", "none", [1])
    assert (one.source, one.rejected, one.error) == (None, None, None)


def test_a_large_object_is_fetched_to_disk(zone: LandingZone, temporary_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btc_assets.landing.objects.LARGE_BYTES", 10)
    (one,) = fetched(zone, HEADER + ROW % 1 + BAD_ROW % 2 + ROW % 3)
    assert [one.source] == list(temporary_files.iterdir())
    (piece,) = decode_group([one], FEEDS)
    assert (piece.tick_object.tolist(), piece.rejected_row.tolist(), one.format) == ([0, 0], [2], "csv")
    assert list(temporary_files.iterdir()) == []


def test_what_is_wrong_is_in_the_answer(zone: LandingZone) -> None:
    obj = land(zone, b"x")
    remove(zone, obj)
    assert isinstance(fetch(zone, obj).error, ObjectGone)
    (empty,) = fetched(zone, b"")
    assert empty.rejected == "the object is empty (0 bytes): land it again"


def test_groups_are_bounded_by_objects_and_bytes(monkeypatch: pytest.MonkeyPatch, zone: LandingZone) -> None:
    monkeypatch.setattr(reading, "_GROUP_OBJECTS", 3)
    monkeypatch.setattr(reading, "_GROUP_BYTES", 100)
    monkeypatch.setattr(reading, "fetch", lambda zone, obj, memory: Fetched(obj))
    objects = [listed(str(i), size) for i, size in enumerate([1, 1, 1, 1, 98, 2, 500, 1])]
    groups = [[one.obj.size for one in group] for group in fetch_groups(zone, objects)]
    assert groups == [[1, 1, 1], [1, 98], [2], [500], [1]]
    assert list(fetch_groups(zone, [])) == []


def test_rows_keep_their_object_and_number_when_objects_are_decoded_together(zone: LandingZone) -> None:
    csv = [HEADER + ROW % 1 + BAD_ROW % 2 + ROW % 3, HEADER + BAD_ROW % 4 + ROW % 5]
    parquet = PRODUCERS["collector"].encode(every(1, 2, first_id=6))
    pieces = list(decode_group(fetched(zone, csv[0], parquet, csv[1]), FEEDS))
    owners = {
        trade_id: owner
        for piece in pieces
        for trade_id, owner in zip(piece.decoded.ticks["trade_id"].to_pylist(), piece.tick_object.tolist(), strict=True)
    }
    assert owners == {1: 0, 3: 0, 5: 2, 6: 1, 7: 1}
    rejected = [pair for piece in pieces for pair in zip(piece.rejected_object.tolist(), piece.rejected_row.tolist(), strict=True)]
    assert rejected == [(0, 2), (2, 1)]


def test_an_object_of_another_schema_is_rejected_and_the_others_are_decoded(zone: LandingZone) -> None:
    group = fetched(zone, b"open,close\n1,2\n", HEADER + ROW % 1)
    (piece,) = decode_group(group, FEEDS)
    assert piece.tick_object.tolist() == [1]
    assert group[0].rejected is not None and group[0].rejected.startswith("it has another schema")
    assert group[1].rejected is None


def test_an_object_that_decoding_fails_on_is_rejected_alone(zone: LandingZone) -> None:
    deep = b'{"t":' + b"[" * 300 + b"]" * 300 + b"}\n"
    messages = [PRODUCERS["jsonl"].encode(every(1, 2, first_id=first)) for first in (1, 3)]
    group = fetched(zone, messages[0], deep, messages[1])
    (piece,) = decode_group(group, FEEDS)
    assert piece.decoded.ticks["trade_id"].to_pylist() == [1, 2, 3, 4]
    assert [(one.rejected or "").partition(":")[0] for one in group] == ["", "it has another schema", ""]
    assert [one.error for one in group] == [None, None, None]


def test_of_objects_that_are_decoded_together_only_the_one_that_fails_is_rejected(
    zone: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_seven(raw: pa.Table, feeds: list[Feed], owner: np.ndarray) -> Decoded:
        if "7" in raw["trade_id"].to_pylist():
            raise KeyError("seven")
        return decode(raw, feeds, owner)

    monkeypatch.setattr(reading, "decode", fail_on_seven)
    group = fetched(zone, HEADER + ROW % 1, HEADER + ROW % 7, HEADER + ROW % 2)
    pieces = list(decode_group(group, FEEDS))
    assert [(piece.decoded.ticks["trade_id"].to_pylist(), piece.tick_object.tolist()) for piece in pieces] == [([1], [0]), ([2], [2])]
    assert [one.rejected for one in group] == [None, "it cannot be decoded (KeyError: 'seven'): land it as plain rows of trades", None]


def test_a_small_object_that_holds_much_is_decoded_piece_by_piece(zone: LandingZone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_GROUP_RAW_BYTES", 1000)
    group = fetched(zone, HEADER + ROW % 1, HEADER + b"".join(ROW % i for i in range(2, 30)) + BAD_ROW % 30)
    assert [one.source is not None for one in group] == [False, True]
    pieces = list(decode_group(group, FEEDS))
    assert sorted(pa.concat_tables([piece.decoded.ticks for piece in pieces])["trade_id"].to_pylist()) == list(range(1, 30))
    assert [piece.rejected_row.tolist() for piece in pieces] == [[29], []]


def test_a_full_disk_is_not_the_fault_of_the_object(zone: LandingZone, tmp_path: Path) -> None:
    one = Fetched(land(zone, HEADER + ROW % 1), source=tmp_path / "lost")
    with pytest.raises(UserError, match="The temporary copy of an object cannot be read or written \\(No such file or directory\\)"):
        list(decode_group([one], FEEDS))
    assert one.rejected is None


def test_ticks_are_counted_by_object_symbol_and_slice() -> None:
    ticks = pa.concat_tables([every(100, 6), table([trade(1, NOON, symbol="ETHUSDT")])])
    counted = count_by_slice(ticks, np.array([0, 0, 0, 1, 1, 1, 1]))
    assert sorted(tuple(row.values()) for row in counted.to_pylist()) == [
        (0, "BTCUSDT", NOON, 3, NOON, NOON + timedelta(seconds=200), 1, 3, 3),
        (1, "BTCUSDT", NOON + SLICE, 3, NOON + timedelta(seconds=300), NOON + timedelta(seconds=500), 4, 6, 3),
        (1, "ETHUSDT", NOON, 1, NOON, NOON, 1, 1, 1),
    ]


def test_objects_of_several_prefixes_in_one_group_are_decoded_as_the_feeds_of_their_prefix(zone: LandingZone) -> None:
    other = Feed("Binance/futures", "BTCUSDT", "BTCUSDT-PERP")
    places = (FEED.prefix, other.prefix, FEED.prefix, "Binance/ETHUSDT")
    feeds = Feeds([FEED, other, Feed("Binance/ETHUSDT", "ETHUSDT", "ETHUSDT")])
    group = [
        fetch(zone, land(zone, HEADER + ROW % number, f"2024/01/10/12/00/{number}", prefix))
        for number, prefix in enumerate(places, start=1)
    ]
    pieces = list(decode_group(group, feeds))
    assert [
        (piece.decoded.ticks["symbol"].to_pylist(), piece.tick_object.tolist(), piece.rejected_object.tolist()) for piece in pieces
    ] == [
        (["BTCUSDT", "BTCUSDT"], [0, 2], []),
        (["BTCUSDT-PERP"], [1], []),
        ([], [], [3]),  # BTCUSDT is no symbol of that prefix
    ]
