"""A listing shows exactly the landed objects whose folder times were asked for, on every kind of store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY as DAY_LONG
from btc_assets.domain.slices import SLICE, Window, parse_time
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.fault_proxy import FaultProxy
from btc_assets_tests.support.landed import DAY, PREFIX, land, listed_paths, put, window
from btc_assets_tests.support.s3 import Bucket


def test_a_window_lists_the_objects_in_its_folder_minutes_and_no_others(zone: LandingZone) -> None:
    put(
        zone,
        "2024/01/10/12/04/z",
        "2024/01/10/12/05/b",
        "2024/01/10/12/05/a",
        "2024/01/10/12/14/c",
        "2024/01/10/12/15/d",
        "2024/01/11/12/05/e",
    )
    assert listed_paths(zone, window("10T12:05", "10T12:15")) == ["2024/01/10/12/05/a", "2024/01/10/12/05/b", "2024/01/10/12/14/c"]


def test_a_window_may_cross_hours_and_days_and_cover_whole_ones(zone: LandingZone) -> None:
    paths = [f"2024/01/{day:02}/{hour:02}/55/o" for day in (9, 10, 11, 12) for hour in (0, 12, 23)]
    put(zone, *paths)
    assert listed_paths(zone, window("09T23:55", "12T00:55")) == paths[2:9]
    assert listed_paths(zone, window("09", "13")) == paths
    assert listed_paths(zone, window("09T12:00", "09T13:00")) == ["2024/01/09/12/55/o"]
    assert listed_paths(zone, window("13", "14")) == []


def test_an_object_in_an_hour_or_day_folder_belongs_to_all_of_that_hour_or_day(zone: LandingZone) -> None:
    put(zone, "2024/01/10/dump.zip", "2024/01/10/07/dump.zip")
    assert listed_paths(zone, window("10T00:00", "10T00:05")) == ["2024/01/10/dump.zip"]
    assert listed_paths(zone, window("10T07:55", "10T08:10")) == ["2024/01/10/07/dump.zip", "2024/01/10/dump.zip"]
    assert listed_paths(zone, window("10T08:00", "10T08:10")) == ["2024/01/10/dump.zip"]
    assert listed_paths(zone, window("09T23:50", "10T00:00")) == listed_paths(zone, window("11T00:00", "11T00:05")) == []
    assert listed_paths(zone, window("10", "11")) == ["2024/01/10/07/dump.zip", "2024/01/10/dump.zip"]


def test_other_prefixes_and_objects_without_time_folders_are_not_listed(zone: LandingZone) -> None:
    put(zone, "README", "2024/01/10/12/05/deeper/o", "2024/13/10/12/05/o", "2024/01/10/12/65/o", "latest/12/05/o")
    for path in ("Binance/BTCUSDT_UM/2024/01/10/12/05/o", "Binance/2024/01/10/12/05/o", "BTCUSDT/2024/01/10/12/05/o"):
        zone.put(path, b"x")
    assert listed_paths(zone, window("10", "11")) == []
    assert listed_paths(zone, window("10T12:00", "10T13:00")) == []


def test_unfinished_files_and_folder_markers_are_not_listed(zone: LandingZone) -> None:
    put(zone, "2024/01/10/12/05/.batch-1.parquet.Xa81bc", "2024/01/10/12/05/batch-1.parquet")  # the first is rsync's
    zone.put(f"{PREFIX}/2024/01/10/13", b"")  # how a marker such as the S3 console's comes out of the store
    assert listed_paths(zone, window("10T12:00", "10T14:00")) == ["2024/01/10/12/05/batch-1.parquet"]
    assert [zone.path(obj.uri) for obj in zone.list_all(PREFIX)] == [f"{PREFIX}/2024/01/10/12/05/batch-1.parquet"]


def test_a_folder_made_in_the_s3_console_is_not_an_object(s3: Bucket) -> None:
    for key in ("", "12/", "12/05/"):
        s3.server.client().put_object(Bucket=s3.server.bucket, Key=f"{s3.prefix}/{PREFIX}/2024/01/10/{key}", Body=b"")
    assert s3.zone().list_window(PREFIX, window("10", "11")) == []


def test_a_file_is_not_listed_while_it_is_being_written(tmp_path: Path) -> None:
    zone = LandingZone(tmp_path.as_uri())
    seen: set[str] = set()

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            with ThreadPoolExecutor(1) as pool:
                seen.update(pool.submit(lambda: [obj.uri for obj in zone.list_all(PREFIX)]).result())
            yield b"x" * 1_000_000

    obstore.put(zone.store, f"{PREFIX}/2024/01/10/12/05/batch", pieces(), use_multipart=True)
    assert seen == set()
    assert [obj.size for obj in zone.list_all(PREFIX)] == [20_000_000]


def test_a_listing_includes_every_page(s3: Bucket) -> None:
    zone = s3.zone()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: put(zone, f"2024/01/10/12/{i % 60:02}/{i:04}"), range(1200)))
    assert len(listed_paths(zone, window("10T12:00", "10T13:00"))) == len(listed_paths(zone, window("10", "11"))) == 1200


def test_files_may_disappear_during_a_listing(tmp_path: Path) -> None:
    zone = LandingZone(tmp_path.as_uri())
    folder = tmp_path / PREFIX / "2024/01/10/12/05"
    folder.mkdir(parents=True)
    for i in range(2500):
        (folder / f"{i:04}").touch()
    listing = zone.list_all(PREFIX)
    next(listing)
    for file in folder.iterdir():
        file.unlink()
    assert len(list(listing)) < 2500


folders = st.builds(
    lambda minute, depth: (DAY + timedelta(minutes=minute)).strftime("%Y/%m/%d/%H/%M"[: 8 + 3 * depth]),
    st.integers(-3 * 1440, 3 * 1440),
    st.sampled_from([0, 1, 2, 2, 2, 2]),
)


windows = st.builds(
    lambda start, length: Window(DAY + start * SLICE, DAY + (start + length) * SLICE), st.integers(-600, 600), st.integers(1, 700)
)


@given(st.lists(folders, unique=True, max_size=40), windows)
@example(["2024/01/10", "2024/01/10/00", "2024/01/10/00/00"], Window(DAY, DAY + SLICE))
def test_a_listing_equals_a_filter_over_every_object(names: list[str], window: Window) -> None:
    zone = LandingZone(f"memory:///{uuid.uuid4().hex}")
    put(zone, *(f"{name}/object" for name in names))
    opened = {name: datetime.strptime(name, "%Y/%m/%d/%H/%M"[: 3 * name.count("/") + 2]).replace(tzinfo=UTC) for name in names}
    length = {name: (DAY_LONG, timedelta(hours=1), timedelta(minutes=1))[name.count("/") - 2] for name in names}
    inside = [name for name in names if opened[name] < window.end and opened[name] + length[name] > window.start]
    assert listed_paths(zone, window) == sorted(f"{name}/object" for name in inside)


@given(st.lists(st.integers(-3 * 1440, 3 * 1440), unique=True, max_size=40), windows)
def test_the_uri_range_holds_the_same_objects_as_the_listing(minutes: list[int], window: Window) -> None:
    zone = LandingZone(f"memory:///{uuid.uuid4().hex}")
    put(zone, *((DAY + timedelta(minutes=minute)).strftime("%Y/%m/%d/%H/%M/object") for minute in minutes))
    first, end = (uri.encode() for uri in zone.uri_range(PREFIX, window))
    inside = sorted(obj.uri for obj in zone.list_all(PREFIX) if first <= obj.uri.encode() < end)
    assert [obj.uri for obj in zone.list_window(PREFIX, window)] == inside


def test_the_newest_minute_is_the_last_one_that_holds_an_object(zone: LandingZone) -> None:
    assert zone.newest_minute("A/B") is None
    for path in ("2023/12/31/23/59/a", "2024/01/09/10/05/b", "2024/01/09/09/58/c", "2024/01/09/notes/d", "2024/01/10/e"):
        zone.put(f"A/B/{path}", b"x")
    zone.put("A/BC/2025/01/01/00/00/f", b"x")
    assert zone.newest_minute("A/B") == parse_time("2024-01-09T10:05Z")


def test_failed_listings_and_head_requests_are_repeated(s3: Bucket, proxy: FaultProxy) -> None:
    obj = land(s3.zone())
    zone = s3.zone(endpoint=proxy.endpoint, retries=1)
    for ask in (lambda: list(zone.list_all(PREFIX)), lambda: [zone.head(obj.uri, PREFIX)]):
        proxy.fail("503", times=1)
        assert ask() == [obj]
        proxy.fail("503")
        with pytest.raises(UserError, match=obj.uri.removesuffix("/2024/01/10/00/00/batch.parquet")):
            ask()
        assert proxy.requests == 2
