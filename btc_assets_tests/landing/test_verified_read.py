"""An object is read as it was written, whole and verified, or the error says why not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.landing import s3 as s3_access
from btc_assets.landing.objects import LARGE_BYTES, ObjectChanged, ObjectCorrupt, ObjectGone
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.fault_proxy import FaultProxy
from btc_assets_tests.support.landed import DAY, PREFIX, S3_ADVICE, after_the_first_request, land, remove
from btc_assets_tests.support.s3 import Bucket

ETAGS = pytest.mark.parametrize("etag", ["md5", "opaque"])


SIZES = pytest.mark.parametrize("size", [50_000, LARGE_BYTES + 50_000])


@pytest.mark.parametrize("size", [0, 1, 100_000, LARGE_BYTES])
def test_an_object_is_read_as_it_was_written(zone: LandingZone, temporary_files: Path, size: int) -> None:
    data = os.urandom(size)
    obj = land(zone, data)
    assert (obj.size, obj.prefix, obj.folder_time) == (size, PREFIX, DAY)
    assert zone.read(obj) == (data, "md5" if zone.scheme == "s3" else "none")
    assert zone.head(obj.uri, PREFIX) == obj
    assert not list(temporary_files.iterdir())


@pytest.mark.parametrize("size", [LARGE_BYTES + 1, 2 * LARGE_BYTES, 2 * LARGE_BYTES + 1])
def test_a_large_object_comes_as_a_temporary_file(zone: LandingZone, temporary_files: Path, size: int) -> None:
    data = os.urandom(size)
    path, verified = zone.read(land(zone, data))
    assert isinstance(path, Path)
    assert (path.read_bytes() == data, verified) == (True, "md5" if zone.scheme == "s3" else "none")
    assert list(temporary_files.iterdir()) == [path]


def test_an_overwritten_object_has_changed(zone: LandingZone) -> None:
    obj = land(zone)
    land(zone, b"other data")
    with pytest.raises(ObjectChanged) as changed:
        zone.read(obj)
    assert str(changed.value) == obj.uri
    now = zone.head(obj.uri, PREFIX)
    assert now is not None
    assert zone.read(now)[0] == b"other data"


def test_a_deleted_object_is_gone(zone: LandingZone) -> None:
    obj = land(zone)
    remove(zone, obj)
    with pytest.raises(ObjectGone) as gone:
        zone.read(obj)
    assert str(gone.value) == obj.uri
    assert zone.head(obj.uri, PREFIX) is None


@pytest.mark.parametrize("size", [10, LARGE_BYTES + 1, 3 * LARGE_BYTES])
def test_a_large_object_never_mixes_two_versions(
    zone: LandingZone, temporary_files: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    obj = land(zone, b"1" * (2 * LARGE_BYTES))
    after_the_first_request(monkeypatch, lambda: land(zone, b"2" * size))
    with pytest.raises(ObjectChanged):
        zone.read(obj)
    assert not list(temporary_files.iterdir())


@pytest.mark.parametrize("size", [10, LARGE_BYTES, 3 * LARGE_BYTES])
def test_a_file_overwritten_in_place_during_the_read_has_changed(
    tmp_path: Path, temporary_files: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    zone = LandingZone(tmp_path.as_uri())
    obj = land(zone, b"1" * size)
    after_the_first_request(monkeypatch, lambda: (tmp_path / zone.path(obj.uri)).write_bytes(b"2" * (size // 2)))
    with pytest.raises(ObjectChanged):
        zone.read(obj)
    assert not list(temporary_files.iterdir())


def test_a_large_object_that_disappears_during_the_read_is_gone(
    zone: LandingZone, temporary_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = land(zone, b"1" * (2 * LARGE_BYTES))
    after_the_first_request(monkeypatch, lambda: remove(zone, obj))
    with pytest.raises(ObjectGone):
        zone.read(obj)
    assert not list(temporary_files.iterdir())


def test_a_missing_directory_for_temporary_files_is_one_sentence(
    zone: LandingZone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = land(zone, b"1" * (LARGE_BYTES + 1))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UserError) as failed:
        zone.read(obj)
    assert str(failed.value) == (
        f"A large object cannot be written to {tmp_path}/missing while it is read (No such file or directory): "
        "make room there, or set TMPDIR to a directory with more."
    )


@pytest.mark.parametrize("size", [0, 100_000, LARGE_BYTES + 1])
def test_with_opaque_etags_the_checksum_that_s3_stored_is_compared(s3: Bucket, size: int) -> None:
    data = os.urandom(size)
    obj = land(s3.zone(), data)
    s3.server.client().put_object(Bucket=s3.server.bucket, Key=obj.uri.split("/", 3)[3], Body=data, ChecksumAlgorithm="SHA256")
    got, verified = s3.zone(etag="opaque").read(obj)
    assert (got.read_bytes() if isinstance(got, Path) else got) == data
    assert verified == "s3"
    if isinstance(got, Path):
        got.unlink()


def test_an_object_without_a_stored_checksum_is_not_verified(s3: Bucket) -> None:
    assert s3.zone(etag="opaque").read(land(s3.zone())) == (b"some bytes", "none")


def test_a_multipart_object_is_read_without_a_checksum_of_the_whole(s3: Bucket, temporary_files: Path) -> None:
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
    land(zone, b"something else", "2024/01/10/00/00/o")
    with pytest.raises(ObjectChanged, match=obj.uri):
        zone.read(obj)
    remove(zone, obj)
    with pytest.raises(ObjectGone, match=obj.uri):
        zone.read(obj)
    assert not list(temporary_files.iterdir())


@ETAGS
@SIZES
@pytest.mark.parametrize(("fault", "times"), [("flip", 2), ("cut", 2), ("503", 2), ("reset", 2)])
def test_a_transient_fault_is_retried(
    s3: Bucket, proxy: FaultProxy, temporary_files: Path, etag: str, size: int, fault: Any, times: int
) -> None:
    data = os.urandom(size)
    obj = land(s3.zone(), data)
    s3.server.client().put_object(Bucket=s3.server.bucket, Key=obj.uri.split("/", 3)[3], Body=data)
    zone = s3.zone(endpoint=proxy.endpoint, etag=etag)
    proxy.fail(fault, times=times)
    got, verified = zone.read(obj)
    assert (got.read_bytes() if isinstance(got, Path) else got) == data
    assert verified == ("md5" if etag == "md5" else "s3")
    assert len(list(temporary_files.iterdir())) == isinstance(got, Path)
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
    s3: Bucket, proxy: FaultProxy, temporary_files: Path, size: int, etag: str, reason: str
) -> None:
    data = os.urandom(size)
    obj = land(s3.zone(), data)
    s3.server.client().put_object(Bucket=s3.server.bucket, Key=obj.uri.split("/", 3)[3], Body=data)
    proxy.fail("flip")
    with pytest.raises(ObjectCorrupt) as corrupt:
        s3.zone(endpoint=proxy.endpoint, etag=etag).read(obj)
    assert str(corrupt.value) == reason
    assert not list(temporary_files.iterdir())


@ETAGS
@pytest.mark.parametrize("fault", ["503", "cut", "reset"])
def test_a_lasting_fault_is_one_sentence(s3: Bucket, proxy: FaultProxy, temporary_files: Path, etag: str, fault: Any) -> None:
    obj = land(s3.zone(), b"x" * (LARGE_BYTES + 1))
    proxy.fail(fault)
    with pytest.raises(UserError) as failed:
        s3.zone(endpoint=proxy.endpoint, etag=etag, retries=1).read(obj)
    sentence = str(failed.value)
    assert sentence.startswith(f"Reading {obj.uri} failed (")
    assert sentence.endswith(f"): {S3_ADVICE}")
    assert "\n" not in sentence
    assert not list(temporary_files.iterdir())
    if fault == "503":
        assert "Please reduce your request rate" in sentence
        assert proxy.requests == 2


@ETAGS
def test_a_request_that_gets_no_answer_is_repeated(s3: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, etag: str) -> None:
    monkeypatch.setattr(s3_access, "REQUEST_SECONDS", 1)
    obj = land(s3.zone())
    proxy.fail("stall", times=1)
    assert s3.zone(endpoint=proxy.endpoint, etag=etag, retries=5).read(obj)[0] == b"some bytes"
    proxy.fail("stall")
    with pytest.raises(UserError, match=f"^Reading {obj.uri} failed "):
        s3.zone(endpoint=proxy.endpoint, etag=etag, retries=1).read(obj)
