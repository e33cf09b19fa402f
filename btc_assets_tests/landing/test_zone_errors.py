"""Every error of S3, SQS and the file system has one meaning, and reaches a person as one sentence."""

from __future__ import annotations

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.fault_proxy import FaultProxy
from btc_assets_tests.support.landed import PREFIX, S3_ADVICE, land, window
from btc_assets_tests.support.s3 import Bucket

ETAGS = pytest.mark.parametrize("etag", ["md5", "opaque"])


@ETAGS
def test_a_wrong_secret_is_one_sentence_that_does_not_reveal_it(s3: Bucket, monkeypatch: pytest.MonkeyPatch, etag: str) -> None:
    obj = land(s3.zone())
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
    obj = land(s3.zone())
    zone = s3.zone(endpoint=proxy.endpoint, etag=etag)
    proxy.fail("404")  # this server has other words for it where an ETag is asked for
    for ask in (
        lambda: list(missing.list_all(PREFIX)),
        lambda: missing.list_window(PREFIX, window("10", "11")),
        lambda: missing.days(PREFIX),
        lambda: missing.get(f"{PREFIX}/o"),
        lambda: zone.read(obj),
    ):
        with pytest.raises(UserError, match="The specified bucket does not exist") as failed:
            ask()
        assert str(failed.value).endswith(f"): {S3_ADVICE}")


@ETAGS
def test_an_unreachable_server_is_one_sentence(s3: Bucket, etag: str) -> None:
    obj = land(s3.zone())
    zone = s3.zone(endpoint="http://127.0.0.1:1", etag=etag, retries=1)
    for ask in (lambda: zone.read(obj), lambda: zone.list_window(PREFIX, window("10", "11")), lambda: zone.head(obj.uri, PREFIX)):
        with pytest.raises(UserError, match=r"failed \(Co.*\): ") as failed:  # Connection refused, Could not connect
            ask()
        assert str(failed.value).endswith(S3_ADVICE)
