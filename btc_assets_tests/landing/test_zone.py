"""A landing zone is opened by its URL, names objects by URIs, and reports what is wrong with its settings in one sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.landed import PREFIX, land, listed_paths, put, window
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import NOON, every


@pytest.mark.parametrize("name", ["plain", "with space", "100%41", "ü", "a#b", "q?x=1", "a+b&c=d", "[x]{y}", "~tilde"])
def test_a_uri_leads_back_to_its_object_whatever_its_name(zone: LandingZone, name: str) -> None:
    obj = land(zone, b"content", f"2024/01/10/12/05/{name}")
    assert zone.path(obj.uri) == f"{PREFIX}/2024/01/10/12/05/{name}"
    assert zone.read(obj)[0] == b"content"
    assert zone.head(obj.uri, PREFIX) == obj
    assert obj.folder_time == datetime(2024, 1, 10, 12, 5, tzinfo=UTC)


@pytest.mark.parametrize("name", ["plain", "with space", "100%41", "ü", "a#b", "q?x=1"])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    zone = LandingZone(root.as_uri())
    put(zone, "2024/01/10/12/05/o")
    assert (root / PREFIX / "2024/01/10/12/05/o").read_bytes() == b"x"
    assert listed_paths(zone, window("10T12:00", "10T13:00")) == ["2024/01/10/12/05/o"]


def test_a_directory_has_one_url_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    urls = {LandingZone(f"file://{host}{tmp_path}/{name}").url for host in ("", "localhost") for name in ("a b", "a%20b", "a b/")}
    assert urls == {(tmp_path / "a b").as_uri()}


def test_a_directory_may_hold_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/linked-folder").write_bytes(b"1")
    (tmp_path / "linked-file").write_bytes(b"2")
    zone = LandingZone(tmp_path.as_uri())
    hour = tmp_path / PREFIX / "2024/01/10/12"
    hour.mkdir(parents=True)
    (hour / "05").symlink_to(tmp_path / "elsewhere")
    (hour / "object").symlink_to(tmp_path / "linked-file")
    (hour / "broken").symlink_to(tmp_path / "nowhere")
    found = zone.list_window(PREFIX, window("10T12:00", "10T13:00"))
    assert {Path(obj.uri).name: zone.read(obj)[0] for obj in found} == {"linked-folder": b"1", "object": b"2"}


def test_the_landing_zones_url_may_contain_the_prefix(tmp_path: Path, s3: Bucket) -> None:
    root = tmp_path / PREFIX
    root.mkdir(parents=True)
    for zone in (LandingZone(root.as_uri()), LandingZone(f"{s3.url}/{PREFIX}", endpoint=s3.server.endpoint)):
        put(zone, "2024/01/10/12/05/o")
        assert listed_paths(zone, window("10T12:00", "10T13:00")) == ["2024/01/10/12/05/o"]


def test_a_bucket_without_a_prefix_is_listed_from_its_root(s3: Bucket) -> None:
    zone = LandingZone(f"s3://{s3.server.bucket}", endpoint=s3.server.endpoint)
    inside = f"{s3.prefix}/{PREFIX}"  # a prefix of this test's own
    uri = zone.put(f"{inside}/2024/01/10/12/05/o", b"x")
    assert uri == f"{s3.url}/{PREFIX}/2024/01/10/12/05/o"
    assert [obj.uri for obj in zone.list_window(inside, window("10T12:00", "10T13:00"))] == [uri]


@pytest.mark.parametrize(
    "url", ["s3://", "s3:bucket", "file:landing", "file://landing", "file://host/landing", "/landing", "gs://bucket", ""]
)
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(UserError) as refused:
        LandingZone(url)
    assert str(refused.value) == f"The landing zone {url!r} must be s3://bucket/prefix or file:///directory."


def test_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        LandingZone((tmp_path / "no such").as_uri())
    assert str(refused.value) == (
        f"The landing zone {tmp_path}/no such is not a directory: create it, or set BTC_ASSETS_LANDING_URL to where objects land."
    )


def test_a_failed_write_is_one_sentence(tmp_path: Path) -> None:
    zone = LandingZone(tmp_path.as_uri())
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as failed:
        zone.put("file/below", b"x")
    advice = "check BTC_ASSETS_LANDING_URL and the permissions of that directory."
    assert str(failed.value) == f"Writing {zone.url}/file/below failed (Not a directory): {advice}"


def test_the_newest_minute_is_the_last_one_that_holds_an_object(store: StoreUnderTest) -> None:
    zone = store.zone()
    assert zone.newest_minute(FEED.prefix) is None
    (old, new) = store.land(every(3600, 2))
    assert zone.newest_minute(FEED.prefix) == NOON + timedelta(hours=1)
    store.delete(new)  # its directories stay
    assert zone.newest_minute(FEED.prefix) == NOON
    store.delete(old)
    assert zone.newest_minute(FEED.prefix) is None
