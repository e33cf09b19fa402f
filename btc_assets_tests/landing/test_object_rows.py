"""What was read of an object becomes one row of the registry for each slice that it covers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from btc_assets.domain.slices import SLICE
from btc_assets.landing.object_rows import (
    ObjectContent,
    TickCount,
    build_readings,
    collect_contents,
    reject_misread_ids,
    reject_without_valid_rows,
)
from btc_assets.landing.reading import Fetched, decode_group, fetch
from btc_assets.landing.registry import Readings
from btc_assets.landing.states import Status
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.landed import land
from btc_assets_tests.support.stores import FEED, FEEDS
from btc_assets_tests.support.trades import NOON

HEADER = b"trade_time,symbol,trade_id,price,quantity,is_market_maker\n"
FOLDER = "2024/01/10/12/06"  # the second slice of the hour


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path.as_uri())


def line(trade_id: int, seconds: float, price: str = "42000.5") -> bytes:
    return b"%d,BTCUSDT,%d,%s,0.25,true\n" % ((NOON.timestamp() + seconds) * 1000, trade_id, price.encode())


def read(zone: LandingZone, *contents: bytes) -> tuple[list[Fetched], list[ObjectContent], Readings]:
    group = [fetch(zone, land(zone, content, f"{FOLDER}/{number}.csv")) for number, content in enumerate(contents)]
    collected = collect_contents(len(group), decode_group(group, FEEDS))
    reject_without_valid_rows(group, collected)
    return group, collected, build_readings(group, collected, FEEDS)


def test_ticks_are_counted_by_slice_with_their_first_and_last_event_time_and_trade_id(zone: LandingZone) -> None:
    _, contents, readings = read(zone, HEADER + line(1, 10) + line(3, 300) + line(2, 20), HEADER + line(4, 0))
    first, second = (dict(sorted(content.slices.items())) for content in contents)
    assert first == {
        (FEED.label, NOON): TickCount(2, NOON + timedelta(seconds=10), NOON + timedelta(seconds=20), 1, 2, 0),
        (FEED.label, NOON + SLICE): TickCount(1, NOON + SLICE, NOON + SLICE, 3, 3, 0),
    }
    assert second == {(FEED.label, NOON): TickCount(1, NOON, NOON, 4, 4, 0)}
    assert sorted((row.bucket_5m, row.row_count, row.status) for row in readings.rows) == [
        (NOON, 1, Status.REGISTERED),
        (NOON, 2, Status.REGISTERED),
        (NOON + SLICE, 1, Status.REGISTERED),
    ]


def test_an_object_without_a_row_stands_under_the_slice_of_its_folder(zone: LandingZone) -> None:
    _, _, readings = read(zone, HEADER)
    (row,) = readings.rows
    assert (row.bucket_5m, row.row_count, row.first_event_time, row.status) == (NOON + SLICE, 0, None, Status.REGISTERED)


def test_an_object_without_a_valid_row_is_rejected_as_a_whole_with_its_first_reason(zone: LandingZone) -> None:
    _, _, readings = read(zone, HEADER + line(1, 10, price="-1") + line(2, 10, price="0"), HEADER + line(3, 10))
    rejected, good = sorted(readings.rows, key=lambda row: row.uri)
    assert (rejected.bucket_5m, rejected.row_count, rejected.status, rejected.reason) == (
        NOON + SLICE, 0, Status.REJECTED, "none of its 2 row(s) is a valid trade (the first, row 1: price -1 is not above zero)",
    )  # fmt: skip
    assert good.status == Status.REGISTERED
    assert readings.rejected_rows == []


def test_a_rejected_row_stands_under_its_own_slice(zone: LandingZone) -> None:
    _, _, readings = read(zone, HEADER + line(1, 310) + line(2, 10, price="-1"))
    (rejected,) = readings.rejected_rows
    assert (rejected.row_number, rejected.bucket_5m, rejected.row_count) == (2, NOON, 1)


def test_of_very_many_wrong_rows_the_first_thousand_are_kept_and_all_are_counted(zone: LandingZone) -> None:
    many = HEADER + line(1, 0) + b"".join(line(i, i % 600, price="-1") for i in range(2, 2502))
    few = HEADER + line(1, 0) + line(2, 0, price="-1")
    _, contents, readings = read(zone, few, many, few)
    assert [content.rejected_count for content in contents] == [1, 2500, 1]
    kept = [row for row in readings.rejected_rows if row.uri.endswith("/1.csv")]
    assert [row.row_number for row in kept] == list(range(2, 1002))
    assert [row.row_count for row in kept] == [1] * 999 + [1501]
    assert len(readings.rejected_rows) == 1002
    metadata = [orjson.loads(row.metadata)["rejected_rows"] for row in sorted(readings.rows, key=lambda row: row.uri)]
    assert metadata == [1, 2500, 1]


def test_the_text_of_a_rejected_row_is_bounded(zone: LandingZone) -> None:
    _, _, readings = read(zone, HEADER + line(1, 0) + line(2, 0, price="x" * 50_000) + b"y" * 50_000 + b"\n")
    assert [(len(row.record), row.record[-1]) for row in readings.rejected_rows] == [(4001, "\N{HORIZONTAL ELLIPSIS}")] * 2
    assert all(len(row.reason) < 300 for row in readings.rejected_rows)


def test_a_row_without_a_valid_time_stands_under_the_slice_of_its_objects_folder(zone: LandingZone) -> None:
    _, _, readings = read(zone, HEADER + line(1, 10) + b"never,BTCUSDT,2,1,1,true\n")
    assert [(row.row_number, row.bucket_5m) for row in readings.rejected_rows] == [(2, NOON + SLICE)]


def test_of_an_unreadable_object_nothing_but_its_reason_is_recorded(zone: LandingZone) -> None:
    group, contents, _ = read(zone, HEADER + line(1, 10) + line(2, 20, price="-1"))
    group[0].rejected = "it cannot be read"
    readings = build_readings(group, contents, FEEDS)
    assert [(row.bucket_5m, row.row_count, row.status, row.reason) for row in readings.rows] == [
        (NOON + SLICE, 0, Status.REJECTED, "it cannot be read")
    ]
    assert readings.rejected_rows == []


def test_the_metadata_tell_what_is_unusual(zone: LandingZone) -> None:
    usual, unusual = HEADER + line(1, 10), HEADER.replace(b"\n", b",venue\n") + line(2, 10).replace(b"\n", b",x\n")
    _, _, readings = read(zone, usual, unusual + line(3, 20, price="-1").replace(b"\n", b",x\n"))
    plain, extra = (orjson.loads(row.metadata) for row in sorted(readings.rows, key=lambda row: row.uri))
    assert plain == {"verified": "none"}
    assert extra == {"verified": "none", "rejected_rows": 1, "extra_columns": ["venue"]}


def rejections(zone: LandingZone, content: bytes) -> str | None:
    group = [fetch(zone, land(zone, content, f"{FOLDER}/ids.csv"))]
    reject_misread_ids(group, collect_contents(1, decode_group(group, FEEDS)))
    return group[0].rejected


def test_an_object_whose_trade_ids_are_constant_is_rejected(zone: LandingZone) -> None:
    assert rejections(zone, HEADER + b"".join(line(7, second) for second in range(100))) == (
        "99 of its 100 different rows repeat a trade id of the same object with another price, quantity, side or time, so its trade ids are "
        "none: land it with the ids that the exchange gave the trades"
    )


@pytest.mark.parametrize(
    "lines",
    [
        [line(7, 1)] * 1000,  # one trade, delivered again and again
        [line(number, number) for number in range(50)] * 3,
        [line(7, 1), line(7, 2)],  # two versions contradict each other: an asset check says so
        [line(7, 1), line(7, 2), line(8, 3), line(8, 4)] * 2,
        [line(9 - number, number) for number in range(9)],  # in any order
    ],
)
def test_an_object_that_repeats_trades_is_not(zone: LandingZone, lines: list[bytes]) -> None:
    assert rejections(zone, HEADER + b"".join(lines)) is None
