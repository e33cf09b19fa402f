"""Trades of a generated day are told by the name of their landing zone."""

from __future__ import annotations

import pytest

from btc_assets.landing.generated import holds_generated
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON


@pytest.mark.parametrize(
    ("zone", "generated"),
    [
        ("file:///home/landing_demo_20240110_500", True),
        ("file:///home/landing_demo_20240110_500_perpetual", True),
        ("file:///home/landing_demo_1a2b3c4d", False),  # the trades of a file
        ("s3://bucket/landing", False),
    ],
)
def test_a_generated_day_is_told_by_its_landing_zone(store: StoreUnderTest, zone: str, generated: bool) -> None:
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows) "
        "VALUES (%s, 'BTCUSDT', %s || '/Binance/BTCUSDT/batch.parquet', 'e', 1, 1, 'registered', now(), now(), 1)",
        (NOON, zone),
    )
    assert holds_generated(store.connection, "BTCUSDT", HOUR) is generated
    assert not holds_generated(store.connection, "OTHER", HOUR)
