"""Folders are settled when no object in them is still to be read, of whatever prefix and however it is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from btc_assets.domain.slices import DAY, Window
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.settled_folders import SettledFolders

MIDNIGHT = datetime(2024, 1, 10, tzinfo=UTC)
FIRST, SECOND = Window(MIDNIGHT, MIDNIGHT + DAY), Window(MIDNIGHT + DAY, MIDNIGHT + 2 * DAY)


def landed(path: str, prefix: str = "Binance/BTCUSDT") -> LandedObject:
    return LandedObject(f"file:///landing/{prefix}/{path}", "etag", 1, MIDNIGHT, prefix)


def at(hour: int, minute: int = 0) -> datetime:
    return MIDNIGHT + timedelta(hours=hour, minutes=minute)


def test_what_is_settled_ends_at_the_first_folder_with_an_unread_object() -> None:
    told: list[datetime] = []
    objects = [landed(f"2024/01/10/{time}/batch.parquet") for time in ("00/05", "00/06", "03/00")]
    settled = SettledFolders(1, told.append)
    assert settled.begin(FIRST, 1, objects) == objects
    for group in (objects[1:2], objects[:1], objects[2:]):
        settled.read(group)
    assert told == [at(0, 5), at(0, 5), at(3), FIRST.end]


def test_a_day_without_anything_to_read_is_settled_at_once() -> None:
    told: list[datetime] = []
    settled = SettledFolders(1, told.append)
    assert settled.begin(FIRST, 1, []) == []
    assert settled.begin(SECOND, 1, []) == []
    assert told == [FIRST.end, SECOND.end]


def test_objects_of_a_whole_day_or_hour_come_first_and_hold_up_what_they_may_belong_to() -> None:
    told: list[datetime] = []
    minutes = [landed("2024/01/10/01/30/batch.parquet"), landed("2024/01/10/02/30/batch.parquet")]
    hour, day = landed("2024/01/10/02/hour.zip"), landed("2024/01/10/day.zip")
    settled = SettledFolders(1, told.append)
    ordered = settled.begin(FIRST, 1, [*minutes, hour, day])
    assert ordered == [day, minutes[0], minutes[1], hour]
    for one in ordered:
        settled.read([one])
    assert told == [at(0), at(1, 30), at(2), at(2), FIRST.end]


def test_a_day_is_settled_only_as_far_as_it_is_in_every_prefix() -> None:
    told: list[datetime] = []
    first = [landed("2024/01/10/01/00/batch.parquet")]
    others = [landed(f"2024/01/10/{time}/batch.parquet", prefix) for prefix in ("Binance/A", "Binance/B") for time in ("00/01", "04/00")]
    settled = SettledFolders(3, told.append)
    settled.begin(FIRST, 1, first)
    settled.read(first)
    assert told == []  # two prefixes are not even listed
    ordered = settled.begin(FIRST, 2, others)
    assert ordered == [others[0], others[2], others[1], others[3]]
    settled.read(ordered[:2])
    assert told == [at(0, 1), at(4)]
    settled.begin(SECOND, 1, [])
    assert told == [at(0, 1), at(4)]  # of the next day, two prefixes are missing


def test_an_object_in_folders_without_a_time_holds_up_its_day() -> None:
    told: list[datetime] = []
    objects = [landed("2024/01/10/01/00/batch.parquet"), landed("odd/batch.parquet")]
    settled = SettledFolders(1, told.append)
    settled.begin(FIRST, 1, objects)
    settled.read(objects[:1])
    settled.read(objects[1:])
    assert told == [FIRST.start, FIRST.start, FIRST.end]
