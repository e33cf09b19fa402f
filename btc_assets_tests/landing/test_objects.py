"""A listed object knows its version, when the collector opened it, and the slice that it probably belongs to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from btc_assets.domain.objects import ObjectVersion
from btc_assets.landing.objects import LARGE_BYTES, LandedObject
from btc_assets_tests.support.landed import PREFIX

NOON = datetime(2024, 1, 10, 12, tzinfo=UTC)


def listed(path: str, *, size: int = 1, last_modified: datetime = NOON + timedelta(hours=1)) -> LandedObject:
    return LandedObject(f"s3://landing/feeds/{PREFIX}/{path}", '"e"', size, last_modified, PREFIX)


def test_a_version_is_the_uri_and_the_etag() -> None:
    obj = listed("2024/01/10/12/07/o")
    assert obj.version == ObjectVersion(obj.uri, '"e"') == (obj.uri, '"e"')


@pytest.mark.parametrize(
    ("path", "time"),
    [
        ("2024/01/10/12/07/o", NOON + timedelta(minutes=7)),
        ("2024/01/10/12/o", NOON),
        ("2024/01/10/o", NOON - timedelta(hours=12)),
        ("2024/13/10/o", None),
        ("latest/o", None),
        ("2024/01/10/12/07/deeper/o", None),
    ],
)
def test_the_folders_tell_when_the_object_was_opened(path: str, time: datetime | None) -> None:
    assert listed(path).folder_time == time


def test_the_home_slice_is_that_of_the_folder_or_of_the_last_change_whichever_is_earlier() -> None:
    assert listed("2024/01/10/12/07/o").home_slice == NOON + timedelta(minutes=5)
    assert listed("2024/01/10/12/07/o", last_modified=NOON + timedelta(minutes=3)).home_slice == NOON
    assert listed("latest/o", last_modified=NOON + timedelta(minutes=3)).home_slice == NOON


def test_less_than_a_second_does_not_make_an_object_newer() -> None:
    obj = listed("2024/01/10/12/07/o", last_modified=NOON)
    assert not obj.is_newer_than(NOON - timedelta(milliseconds=999))
    assert obj.is_newer_than(NOON - timedelta(seconds=1))


def test_an_object_is_large_above_the_limit() -> None:
    assert [listed("2024/01/10/12/07/o", size=size).is_large for size in (LARGE_BYTES, LARGE_BYTES + 1)] == [False, True]
