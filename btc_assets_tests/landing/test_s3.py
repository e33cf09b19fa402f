"""Access to S3 finds its endpoint and credentials as AWS tools do, and names what is missing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.landed import land
from btc_assets_tests.support.s3 import Bucket


def test_one_boto3_client_serves_all_threads(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = boto3.Session.client

    def client(self: boto3.Session, name: str, **options: Any) -> Any:
        made.append(name)
        time.sleep(0.05)  # long enough for others to want one as well
        return real(self, name, **options)

    monkeypatch.setattr(boto3.Session, "client", client)
    zone = s3.zone(etag="opaque")
    found = [land(zone, str(i).encode(), f"2024/01/10/00/00/{i:02}") for i in range(40)]
    with ThreadPoolExecutor(16) as pool:
        assert [data for data, _ in pool.map(zone.read, found)] == [str(i).encode() for i in range(40)]
    assert made == ["s3"]


def test_an_endpoint_without_a_scheme_is_refused(s3: Bucket) -> None:
    with pytest.raises(UserError) as refused:
        s3.zone(endpoint="localhost:8333")
    assert str(refused.value) == "The S3 endpoint 'localhost:8333' must begin with http:// or https://: correct BTC_ASSETS_S3_ENDPOINT."


def test_the_endpoint_may_come_from_the_aws_variables(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = land(s3.zone())
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
