"""A store whose landing zone is a directory, and the same one on a real S3 server."""

from __future__ import annotations

from dataclasses import dataclass

import obstore
import pytest

from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import FEED, StoreUnderTest


@dataclass
class StoreOnS3(StoreUnderTest):
    """The same, with the landing zone in a bucket."""

    bucket: Bucket

    def zone(self) -> LandingZone:
        return self.bucket.zone()

    def put_key(self, path: str, data: bytes, **options: str) -> str:
        """Land one object below the feed's prefix at exactly this path; returns its URI."""
        key = f"{FEED.prefix}/{path}"
        self.bucket.server.client().put_object(Bucket=self.bucket.server.bucket, Key=f"{self.bucket.prefix}/{key}", Body=data, **options)
        return f"{self.bucket.url}/{key}"

    def delete(self, *uris: str) -> None:
        zone = self.zone()
        obstore.delete(zone.store, [zone.path(uri) for uri in uris])


@pytest.fixture
def on_s3(store: StoreUnderTest, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> StoreOnS3:
    """A store with an empty landing zone on the S3 server; the process's settings point at it."""
    monkeypatch.setenv("BTC_ASSETS_LANDING_URL", s3.url)
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    return StoreOnS3(store.dsn, store.home, store.landing, store.connection, s3)


@pytest.fixture
def on_exact_s3(store: StoreUnderTest, exact_s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> StoreOnS3:
    """A store on an S3 server that keeps every key as it is; the process's settings point at it."""
    monkeypatch.setenv("BTC_ASSETS_LANDING_URL", exact_s3.url)
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", exact_s3.server.endpoint)
    return StoreOnS3(store.dsn, store.home, store.landing, store.connection, exact_s3)


@pytest.fixture(params=["directory", "s3"])
def on_each_zone(request: pytest.FixtureRequest) -> StoreUnderTest:
    """A store with an empty landing zone: once in a directory, once on S3."""
    return request.getfixturevalue("store" if request.param == "directory" else "on_s3")
