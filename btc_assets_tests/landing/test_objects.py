"""A landing zone lists what landed and gives back exactly those bytes, or says why not, wherever it is."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import obstore
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window, parse_time
from btc_assets.landing import objects
from btc_assets.landing.objects import SPOOL_BYTES, LandedObject, LandingZone, ObjectChanged, ObjectCorrupt, ObjectGone
from btc_assets_tests.support.fault_proxy import FaultProxy
from btc_assets_tests.support.s3 import Bucket

PREFIX = "Binance/BTCUSDT"
DAY = datetime(2024, 1, 10, tzinfo=UTC)
S3_ADVICE = "check the bucket in BTC_ASSETS_LANDING_URL, BTC_ASSETS_S3_ENDPOINT, BTC_ASSETS_S3_REGION and the AWS credentials."


@pytest.fixture(params=["directory", "memory", "s3"])
def zone(request: pytest.FixtureRequest, tmp_path: Path) -> LandingZone:
    """An empty landing zone of each kind."""
    if request.param == "s3":
        return request.getfixturevalue("s3").zone()
    if request.param == "memory":
        return LandingZone(f"memory:///{uuid.uuid4().hex}")
    (tmp_path / "landing").mkdir()
    return LandingZone((tmp_path / "landing").as_uri())


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    directory = tmp_path / "spool"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def window(start: str, end: str) -> Window:
    return Window(parse_time(f"2024-01-{start}"), parse_time(f"2024-01-{end}"))


def put(zone: LandingZone, *paths: str) -> None:
    for path in paths:
        zone.put(f"{PREFIX}/{path}", b"x")


def listed(zone: LandingZone, window: Window) -> list[str]:
    return [zone.path(obj.uri).removeprefix(f"{PREFIX}/") for obj in zone.list_window(PREFIX, window)]


def landed(zone: LandingZone, data: bytes = b"some bytes", path: str = "2024/01/10/00/00/batch.parquet") -> LandedObject:
    """An object as a listing shows it after it was put."""
    obstore.put(zone.store, f"{PREFIX}/{path}", data, use_multipart=False)
    (found,) = (obj for obj in zone.list_all(PREFIX) if obj.uri == f"{zone.url}/{PREFIX}/{path}")
    return found


def remove(zone: LandingZone, obj: LandedObject) -> None:
    obstore.delete(zone.store, zone.path(obj.uri))


# ---- listing


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
    assert listed(zone, window("10T12:05", "10T12:15")) == ["2024/01/10/12/05/a", "2024/01/10/12/05/b", "2024/01/10/12/14/c"]


def test_a_window_may_cross_hours_and_days_and_cover_whole_ones(zone: LandingZone) -> None:
    paths = [f"2024/01/{day:02}/{hour:02}/55/o" for day in (9, 10, 11, 12) for hour in (0, 12, 23)]
    put(zone, *paths)
    assert listed(zone, window("09T23:55", "12T00:55")) == paths[2:9]
    assert listed(zone, window("09", "13")) == paths
    assert listed(zone, window("09T12:00", "09T13:00")) == ["2024/01/09/12/55/o"]
    assert listed(zone, window("13", "14")) == []


def test_an_object_in_an_hour_or_day_folder_counts_as_landed_at_its_start(zone: LandingZone) -> None:
    put(zone, "2024/01/10/dump.zip", "2024/01/10/07/dump.zip")
    assert listed(zone, window("10T00:00", "10T00:05")) == ["2024/01/10/dump.zip"]
    assert listed(zone, window("10T07:00", "10T07:05")) == ["2024/01/10/07/dump.zip"]
    assert listed(zone, window("10T07:05", "10T08:00")) == []
    assert listed(zone, window("10", "11")) == ["2024/01/10/07/dump.zip", "2024/01/10/dump.zip"]


def test_other_prefixes_and_objects_without_time_folders_are_not_listed(zone: LandingZone) -> None:
    put(zone, "README", "2024/01/10/12/05/deeper/o", "2024/13/10/12/05/o", "2024/01/10/12/65/o", "latest/12/05/o")
    for path in ("Binance/BTCUSDT_UM/2024/01/10/12/05/o", "Binance/2024/01/10/12/05/o", "BTCUSDT/2024/01/10/12/05/o"):
        zone.put(path, b"x")
    assert listed(zone, window("10", "11")) == []
    assert listed(zone, window("10T12:00", "10T13:00")) == []


def test_files_that_are_not_whole_yet_and_markers_of_folders_are_not_listed(zone: LandingZone) -> None:
    put(zone, "2024/01/10/12/05/.batch-1.parquet.Xa81bc", "2024/01/10/12/05/batch-1.parquet")  # the first is rsync's
    zone.put(f"{PREFIX}/2024/01/10/13", b"")  # how a marker such as the S3 console's comes out of the store
    assert listed(zone, window("10T12:00", "10T14:00")) == ["2024/01/10/12/05/batch-1.parquet"]
    assert [zone.path(obj.uri) for obj in zone.list_all(PREFIX)] == [f"{PREFIX}/2024/01/10/12/05/batch-1.parquet"]


def test_a_folder_made_in_the_s3_console_is_not_an_object(s3: Bucket) -> None:
    for key in ("", "12/", "12/05/"):
        s3.server.client().put_object(Bucket=s3.server.bucket, Key=f"{s3.prefix}/{PREFIX}/2024/01/10/{key}", Body=b"")
    assert s3.zone().list_window(PREFIX, window("10", "11")) == []


def test_a_file_that_is_being_put_into_a_directory_is_not_listed(tmp_path: Path) -> None:
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


def test_a_listing_has_every_page(s3: Bucket) -> None:
    zone = s3.zone()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: put(zone, f"2024/01/10/12/{i % 60:02}/{i:04}"), range(1200)))
    assert len(listed(zone, window("10T12:00", "10T13:00"))) == len(listed(zone, window("10", "11"))) == 1200


def test_a_listing_survives_files_that_disappear_meanwhile(tmp_path: Path) -> None:
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
def test_a_listing_is_what_one_would_find_by_looking_at_every_object(names: list[str], window: Window) -> None:
    zone = LandingZone(f"memory:///{uuid.uuid4().hex}")
    put(zone, *(f"{name}/object" for name in names))
    opened = {name: datetime.strptime(name, "%Y/%m/%d/%H/%M"[: 3 * name.count("/") + 2]).replace(tzinfo=UTC) for name in names}
    assert listed(zone, window) == sorted(f"{name}/object" for name in names if opened[name] in window)


@given(st.lists(st.integers(-3 * 1440, 3 * 1440), unique=True, max_size=40), windows)
def test_the_range_of_uris_holds_the_same_objects_as_the_listing(minutes: list[int], window: Window) -> None:
    zone = LandingZone(f"memory:///{uuid.uuid4().hex}")
    put(zone, *((DAY + timedelta(minutes=minute)).strftime("%Y/%m/%d/%H/%M/object") for minute in minutes))
    first, end = (uri.encode() for uri in zone.uri_range(PREFIX, window))
    inside = sorted(obj.uri for obj in zone.list_all(PREFIX) if first <= obj.uri.encode() < end)
    assert [obj.uri for obj in zone.list_window(PREFIX, window)] == inside


# ---- URIs


@pytest.mark.parametrize("name", ["plain", "with space", "100%41", "ü", "a#b", "q?x=1", "a+b&c=d", "[x]{y}", "~tilde"])
def test_a_uri_leads_back_to_its_object_whatever_its_name(zone: LandingZone, name: str) -> None:
    obj = landed(zone, b"content", f"2024/01/10/12/05/{name}")
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
    assert listed(zone, window("10T12:00", "10T13:00")) == ["2024/01/10/12/05/o"]


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


def test_the_landing_zone_s_own_url_may_hold_the_prefix_as_well(tmp_path: Path, s3: Bucket) -> None:
    root = tmp_path / PREFIX
    root.mkdir(parents=True)
    for zone in (LandingZone(root.as_uri()), LandingZone(f"{s3.url}/{PREFIX}", endpoint=s3.server.endpoint)):
        put(zone, "2024/01/10/12/05/o")
        assert listed(zone, window("10T12:00", "10T13:00")) == ["2024/01/10/12/05/o"]


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


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    zone = LandingZone(tmp_path.as_uri())
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as failed:
        zone.put("file/below", b"x")
    advice = "check BTC_ASSETS_LANDING_URL and the rights on that directory."
    assert str(failed.value) == f"Writing {zone.url}/file/below failed (Not a directory): {advice}"


# ---- reading


@pytest.mark.parametrize("size", [0, 1, 100_000, SPOOL_BYTES])
def test_an_object_is_read_as_it_was_put(zone: LandingZone, spool: Path, size: int) -> None:
    data = os.urandom(size)
    obj = landed(zone, data)
    assert (obj.size, obj.prefix, obj.folder_time) == (size, PREFIX, DAY)
    assert zone.read(obj) == (data, "md5" if zone.scheme == "s3" else "none")
    assert zone.head(obj.uri, PREFIX) == obj
    assert not list(spool.iterdir())


@pytest.mark.parametrize("size", [SPOOL_BYTES + 1, 2 * SPOOL_BYTES, 2 * SPOOL_BYTES + 1])
def test_a_large_object_comes_as_a_file_of_the_caller_s(zone: LandingZone, spool: Path, size: int) -> None:
    data = os.urandom(size)
    path, verified = zone.read(landed(zone, data))
    assert isinstance(path, Path)
    assert (path.read_bytes() == data, verified) == (True, "md5" if zone.scheme == "s3" else "none")
    assert list(spool.iterdir()) == [path]


def test_an_overwritten_object_is_not_the_one_that_was_listed(zone: LandingZone) -> None:
    obj = landed(zone)
    landed(zone, b"other data")
    with pytest.raises(ObjectChanged) as changed:
        zone.read(obj)
    assert str(changed.value) == obj.uri
    now = zone.head(obj.uri, PREFIX)
    assert now is not None
    assert zone.read(now)[0] == b"other data"


def test_a_deleted_object_is_gone(zone: LandingZone) -> None:
    obj = landed(zone)
    remove(zone, obj)
    with pytest.raises(ObjectGone) as gone:
        zone.read(obj)
    assert str(gone.value) == obj.uri
    assert zone.head(obj.uri, PREFIX) is None


def between_requests(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen once, after the first request for an object is answered and before its bytes are read."""
    real, waiting = obstore.get, [happens]

    def get(*args: Any, **options: Any) -> Any:
        answer = real(*args, **options)
        if waiting:
            waiting.pop()()
        return answer

    monkeypatch.setattr(obstore, "get", get)


@pytest.mark.parametrize("size", [10, SPOOL_BYTES + 1, 3 * SPOOL_BYTES])
def test_a_large_object_is_never_made_of_two_versions(zone: LandingZone, spool: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    obj = landed(zone, b"1" * (2 * SPOOL_BYTES))
    between_requests(monkeypatch, lambda: landed(zone, b"2" * size))
    with pytest.raises(ObjectChanged):
        zone.read(obj)
    assert not list(spool.iterdir())


@pytest.mark.parametrize("size", [10, SPOOL_BYTES, 3 * SPOOL_BYTES])
def test_a_file_that_is_written_over_in_place_while_it_is_read_has_changed(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    zone = LandingZone(tmp_path.as_uri())
    obj = landed(zone, b"1" * size)
    between_requests(monkeypatch, lambda: (tmp_path / zone.path(obj.uri)).write_bytes(b"2" * (size // 2)))
    with pytest.raises(ObjectChanged):
        zone.read(obj)
    assert not list(spool.iterdir())


def test_a_large_object_that_disappears_while_it_is_read_is_gone(zone: LandingZone, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = landed(zone, b"1" * (2 * SPOOL_BYTES))
    between_requests(monkeypatch, lambda: remove(zone, obj))
    with pytest.raises(ObjectGone):
        zone.read(obj)
    assert not list(spool.iterdir())


def test_no_room_for_temporary_files_is_one_sentence(zone: LandingZone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = landed(zone, b"1" * (SPOOL_BYTES + 1))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UserError) as failed:
        zone.read(obj)
    assert str(failed.value) == (
        f"A large object cannot be kept in {tmp_path}/missing while it is read (No such file or directory): "
        "make room there, or set TMPDIR to a directory with more."
    )


# ---- an opaque ETag: boto3 compares the checksum that S3 stored


@pytest.mark.parametrize("size", [0, 100_000, SPOOL_BYTES + 1])
def test_where_etags_are_opaque_the_checksum_of_s3_is_compared(s3: Bucket, size: int) -> None:
    data = os.urandom(size)
    obj = landed(s3.zone(), data)
    s3.server.client().put_object(Bucket=s3.server.bucket, Key=obj.uri.split("/", 3)[3], Body=data, ChecksumAlgorithm="SHA256")
    got, verified = s3.zone(etag="opaque").read(obj)
    assert (got.read_bytes() if isinstance(got, Path) else got) == data
    assert verified == "s3"
    if isinstance(got, Path):
        got.unlink()


def test_a_zone_says_so_where_s3_keeps_no_checksum(s3: Bucket) -> None:
    assert s3.zone(etag="opaque").read(landed(s3.zone())) == (b"some bytes", "none")


def test_an_object_of_several_parts_is_read_without_a_checksum_of_the_whole(s3: Bucket, spool: Path) -> None:
    data = os.urandom(11 << 20)
    client, key = s3.server.client(), f"{s3.prefix}/{PREFIX}/2024/01/10/00/00/o"
    upload = client.create_multipart_upload(Bucket=s3.server.bucket, Key=key)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(Bucket=s3.server.bucket, Key=key, UploadId=upload, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in ((1, data[: 6 << 20]), (2, data[6 << 20 :]))
    ]
    client.complete_multipart_upload(Bucket=s3.server.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    zone = s3.zone()
    (obj,) = zone.list_all(PREFIX)
    assert obj.etag.endswith('-2"')
    path, verified = zone.read(obj)
    assert isinstance(path, Path)
    assert (path.read_bytes() == data, verified) == (True, "none")
    path.unlink()
    landed(zone, b"something else", "2024/01/10/00/00/o")
    with pytest.raises(ObjectChanged, match=obj.uri):
        zone.read(obj)
    remove(zone, obj)
    with pytest.raises(ObjectGone, match=obj.uri):
        zone.read(obj)
    assert not list(spool.iterdir())


def test_one_boto3_client_serves_all_threads(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = boto3.Session.client

    def client(self: boto3.Session, name: str, **options: Any) -> Any:
        made.append(name)
        time.sleep(0.05)  # long enough for others to want one as well
        return real(self, name, **options)

    monkeypatch.setattr(boto3.Session, "client", client)
    zone = s3.zone(etag="opaque")
    found = [landed(zone, str(i).encode(), f"2024/01/10/00/00/{i:02}") for i in range(40)]
    with ThreadPoolExecutor(16) as pool:
        assert [data for data, _ in pool.map(zone.read, found)] == [str(i).encode() for i in range(40)]
    assert made == ["s3"]


# ---- faults


def test_the_newest_minute_is_the_last_one_that_holds_an_object(zone: LandingZone) -> None:
    assert zone.newest_minute("A/B") is None
    for path in ("2023/12/31/23/59/a", "2024/01/09/10/05/b", "2024/01/09/09/58/c", "2024/01/09/notes/d", "2024/01/10/e"):
        zone.put(f"A/B/{path}", b"x")
    zone.put("A/BC/2025/01/01/00/00/f", b"x")
    assert zone.newest_minute("A/B") == parse_time("2024-01-09T10:05Z")


@pytest.fixture
def proxy(s3: Bucket) -> Iterator[FaultProxy]:
    with FaultProxy(s3.server.endpoint) as proxy:
        yield proxy


ETAGS = pytest.mark.parametrize("etag", ["md5", "opaque"])
SIZES = pytest.mark.parametrize("size", [50_000, SPOOL_BYTES + 50_000])


@ETAGS
@SIZES
@pytest.mark.parametrize(("fault", "times"), [("flip", 2), ("cut", 2), ("503", 2), ("reset", 2)])
def test_a_fault_that_passes_does_no_harm(s3: Bucket, proxy: FaultProxy, spool: Path, etag: str, size: int, fault: Any, times: int) -> None:
    data = os.urandom(size)
    obj = landed(s3.zone(), data)
    s3.server.client().put_object(Bucket=s3.server.bucket, Key=obj.uri.split("/", 3)[3], Body=data)
    zone = s3.zone(endpoint=proxy.endpoint, etag=etag)
    proxy.fail(fault, times=times)
    got, verified = zone.read(obj)
    assert (got.read_bytes() if isinstance(got, Path) else got) == data
    assert verified == ("md5" if etag == "md5" else "s3")
    assert len(list(spool.iterdir())) == isinstance(got, Path)
    assert proxy.requests > times


@SIZES
@pytest.mark.parametrize(
    ("etag", "reason"),
    [
        (
            "md5",
            "the bytes do not match the object's size or the MD5 in its ETag, read 3 times: upload it again "
            "(in a bucket with SSE-KMS, where an ETag is no MD5, set BTC_ASSETS_LANDING_ETAG=opaque)",
        ),
        ("opaque", "the bytes do not match the checksum that S3 stored, read 3 times: upload it again"),
    ],
)
def test_bytes_that_never_match_their_checksum_are_corrupt(
    s3: Bucket, proxy: FaultProxy, spool: Path, size: int, etag: str, reason: str
) -> None:
    data = os.urandom(size)
    obj = landed(s3.zone(), data)
    s3.server.client().put_object(Bucket=s3.server.bucket, Key=obj.uri.split("/", 3)[3], Body=data)
    proxy.fail("flip")
    with pytest.raises(ObjectCorrupt) as corrupt:
        s3.zone(endpoint=proxy.endpoint, etag=etag).read(obj)
    assert str(corrupt.value) == reason
    assert not list(spool.iterdir())


@ETAGS
@pytest.mark.parametrize("fault", ["503", "cut", "reset"])
def test_a_fault_that_stays_is_one_sentence(s3: Bucket, proxy: FaultProxy, spool: Path, etag: str, fault: Any) -> None:
    obj = landed(s3.zone(), b"x" * (SPOOL_BYTES + 1))
    proxy.fail(fault)
    with pytest.raises(UserError) as failed:
        s3.zone(endpoint=proxy.endpoint, etag=etag, retries=1).read(obj)
    sentence = str(failed.value)
    assert sentence.startswith(f"Reading {obj.uri} failed (")
    assert sentence.endswith(f"): {S3_ADVICE}")
    assert "\n" not in sentence
    assert not list(spool.iterdir())
    if fault == "503":
        assert "Please reduce your request rate" in sentence
        assert proxy.requests == 2


@ETAGS
def test_a_server_that_takes_the_request_and_stays_silent_is_asked_again(
    s3: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, etag: str
) -> None:
    monkeypatch.setattr(objects, "_REQUEST_SECONDS", 0.5)
    obj = landed(s3.zone())
    zone = s3.zone(endpoint=proxy.endpoint, etag=etag, retries=1)
    proxy.fail("stall", times=1)
    assert zone.read(obj)[0] == b"some bytes"
    proxy.fail("stall")
    with pytest.raises(UserError, match=f"^Reading {obj.uri} failed "):
        zone.read(obj)


def test_listing_and_looking_up_are_repeated_as_well(s3: Bucket, proxy: FaultProxy) -> None:
    obj = landed(s3.zone())
    zone = s3.zone(endpoint=proxy.endpoint, retries=1)
    for look in (lambda: list(zone.list_all(PREFIX)), lambda: [zone.head(obj.uri, PREFIX)]):
        proxy.fail("503", times=1)
        assert look() == [obj]
        proxy.fail("503")
        with pytest.raises(UserError, match=obj.uri.removesuffix("/2024/01/10/00/00/batch.parquet")):
            look()
        assert proxy.requests == 2


# ---- what a person must mend


@ETAGS
def test_a_wrong_secret_is_one_sentence_that_does_not_tell_it(s3: Bucket, monkeypatch: pytest.MonkeyPatch, etag: str) -> None:
    obj = landed(s3.zone())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    zone = s3.zone(etag=etag)
    for ask in (
        lambda: zone.read(obj),
        lambda: list(zone.list_all(PREFIX)),
        lambda: zone.head(obj.uri, PREFIX),
        lambda: zone.put("o", b"x"),
    ):
        with pytest.raises(UserError) as failed:
            ask()
        assert str(failed.value).endswith(f"): {S3_ADVICE}")
        assert "\n" not in str(failed.value)
        assert "secret" not in str(failed.value)


@ETAGS
def test_a_missing_bucket_is_one_sentence_and_no_object_counts_as_gone(s3: Bucket, proxy: FaultProxy, etag: str) -> None:
    missing = LandingZone("s3://missing/some/prefix", endpoint=s3.server.endpoint)
    obj = landed(s3.zone())
    zone = s3.zone(endpoint=proxy.endpoint, etag=etag)
    proxy.fail("404")  # this server has other words for it where an ETag is asked for
    for ask in (lambda: list(missing.list_all(PREFIX)), lambda: missing.list_window(PREFIX, window("10", "11")), lambda: zone.read(obj)):
        with pytest.raises(UserError, match="The specified bucket does not exist") as failed:
            ask()
        assert str(failed.value).endswith(f"): {S3_ADVICE}")


@ETAGS
def test_a_server_that_does_not_listen_is_one_sentence(s3: Bucket, etag: str) -> None:
    obj = landed(s3.zone())
    zone = s3.zone(endpoint="http://127.0.0.1:1", etag=etag, retries=1)
    for ask in (lambda: zone.read(obj), lambda: zone.list_window(PREFIX, window("10", "11")), lambda: zone.head(obj.uri, PREFIX)):
        with pytest.raises(UserError, match=r"failed \(Co.*\): ") as failed:  # Connection refused, Could not connect
            ask()
        assert str(failed.value).endswith(S3_ADVICE)


def test_an_endpoint_without_a_scheme_is_refused(s3: Bucket) -> None:
    with pytest.raises(UserError) as refused:
        s3.zone(endpoint="localhost:8333")
    assert str(refused.value) == "The S3 endpoint 'localhost:8333' must begin with http:// or https://: correct BTC_ASSETS_S3_ENDPOINT."


def test_the_endpoint_may_come_from_the_aws_variables(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = landed(s3.zone())
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{s3.server.endpoint}/")
    for etag in ("md5", "opaque"):
        assert LandingZone(s3.url, etag=etag).read(obj)[0] == b"some bytes"


def test_missing_credentials_are_one_sentence(s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError) as partial:
        s3.zone()
    assert str(partial.value) == (
        "The AWS configuration is wrong (Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY): "
        "correct the AWS_* variables or the profile."
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UserError) as none:
        s3.zone()
    assert str(none.value) == (
        "No AWS credentials were found for s3://landing: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role."
    )
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError) as profile:
        s3.zone()
    assert str(profile.value) == (
        "The AWS configuration is wrong (The config profile (nobody) could not be found): correct the AWS_* variables or the profile."
    )
