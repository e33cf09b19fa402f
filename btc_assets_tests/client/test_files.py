"""Files that are whole or not there."""

from __future__ import annotations

import os
import threading
from itertools import count
from pathlib import Path

import pytest

from btc_assets.client.files import exists, whole_file
from btc_assets.domain.errors import TransientError, UserError
from btc_assets.landing.s3 import S3Access
from btc_assets_tests.support.s3 import Bucket


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    with whole_file(tmp_path / "link") as path:
        path.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with whole_file(pipe) as path, path.open("w") as stream:
        stream.write("rows")
    reader.join()
    assert read == ["rows"] and pipe.is_fifo() and not exists(pipe)


def test_a_file_keeps_the_permissions_that_others_get(tmp_path: Path) -> None:
    with whole_file(tmp_path / "file") as path:
        path.write_text("new")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def left_of(s3: Bucket) -> list[object]:
    """Objects, and uploads that are neither complete nor taken back."""
    client, where = s3.server.client(), {"Bucket": s3.server.bucket, "Prefix": s3.prefix}
    return [*client.list_multipart_uploads(**where).get("Uploads", ()), *client.list_objects_v2(**where).get("Contents", ())]


def test_an_upload_that_fails_leaves_no_part_in_s3(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    make, parts = S3Access.client, count(1)

    def fail(**_: object) -> None:
        if next(parts) == 2:
            raise OSError("the cable was pulled")

    def breaking(access: S3Access) -> object:
        made = make(access)
        made.meta.events.register("before-call.s3.UploadPart", fail)
        return made

    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    monkeypatch.setattr(S3Access, "client", breaking)
    with pytest.raises(TransientError, match=r"Writing s3://.* failed \(the cable was pulled\)"), whole_file(f"{s3.url}/large") as path:
        path.write_bytes(bytes(24 << 20))
    assert not left_of(s3)


def test_a_url_of_s3_exists_or_not_or_is_none(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    assert not exists(f"{s3.url}/file")
    with whole_file(f"{s3.url}/file") as path:
        path.write_text("x")
    assert exists(f"{s3.url}/file")
    with pytest.raises(UserError, match="check the bucket, BTC_ASSETS_S3_ENDPOINT"), whole_file("s3://absent/file") as path:
        path.write_text("x")
    for url in ("s3://bucket", "https://host/file", "s3://bucket/folder/"):
        with pytest.raises(UserError, match="is no place for a file"):
            exists(url)
