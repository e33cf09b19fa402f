"""The rows of sources are read exactly as registered, object by object, from wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import SLICE, Window
from btc_assets.landing.objects import ObjectChanged, ObjectGone
from btc_assets.landing.sources import Source, SourceKey, read_sources
from btc_assets.landing.spool import Spool
from btc_assets.market_data.source_rows import SourceReader, SourceRows
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

Read = Callable[[Window], SourceRows]


def sources(store: StoreUnderTest, window: Window = HOUR) -> list[Source]:
    with store.connection.cursor() as cursor:
        return read_sources(cursor, window)


@pytest.fixture
def read(store: StoreUnderTest) -> Iterator[Read]:
    """Reads a window of the store as one part of a load of the hour."""
    reader = SourceReader(store.connection, store.zone(), FEEDS, HOUR)
    yield lambda window: reader.read(window, sources(store, window))
    reader.close()


def test_rows_are_counted_by_source(store: StoreUnderTest, read: Read) -> None:
    store.land(every(10, 60), seconds=3600)
    store.register(HOUR)
    rows = read(HOUR)
    (version,) = rows.versions
    assert rows.count_by_source() == {SourceKey(NOON, "BTCUSDT", version): 30, SourceKey(NOON + SLICE, "BTCUSDT", version): 30}
    assert rows.filter(rows.ticks["trade_id"].to_numpy() < 3).count_by_source() == {SourceKey(NOON, "BTCUSDT", version): 2}


def test_only_the_rows_of_the_window_are_read(store: StoreUnderTest, read: Read) -> None:
    store.land(every(10, 60), seconds=3600)
    store.register(HOUR)
    assert read(Window.of_slice(NOON + SLICE)).ticks["trade_id"].to_pylist() == list(range(31, 61))


@pytest.mark.parametrize("large", [False, True], ids=["small objects", "a large object among them"])
def test_rows_come_object_by_object_in_the_order_of_their_uris(
    store: StoreUnderTest, read: Read, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    parts = {name: encode_batch(every(1, 300, first_id=first), FEED)[1] for name, first in (("c", 1), ("a", 301), ("b", 601))}
    for name, data in parts.items():
        store.put(f"2024/01/10/12/00/{name}.parquet", data)
    if large:
        big = store.put("2024/01/10/12/00/a.parquet", encode_batch(every(0.1, 2900, first_id=1000), FEED)[1])
        monkeypatch.setattr("btc_assets.landing.objects.LARGE_BYTES", max(map(len, parts.values())))
        assert next(obj for obj in store.zone().list_all(FEED.prefix) if obj.uri == big).is_large
    store.register(HOUR)
    rows = read(HOUR)
    assert [version.uri[-9] for version in rows.versions] == ["a", "b", "c"]
    assert rows.owner.tolist() == sorted(rows.owner.tolist())
    assert rows.ticks["trade_id"][-1].as_py() == 300


def test_what_the_spool_has_is_not_read_again(store: StoreUnderTest) -> None:
    store.land(every(10, 60), seconds=60)
    store.register(HOUR)
    with SourceReaderUnderTest(store) as reader:
        expected = reader.read(HOUR, sources(store))
    spool = Spool()
    spool.put(expected.versions, [(expected.ticks, expected.owner)])
    store.delete(*store.uris())
    with SourceReaderUnderTest(store, spool=spool) as reader:
        found = reader.read(HOUR, sources(store))
    assert found.ticks.equals(expected.ticks)
    assert (found.owner == expected.owner).all()


@pytest.mark.parametrize("change", ["gone", "overwritten"])
def test_an_object_that_is_not_what_was_registered_is_reported_by_its_uri(store: StoreUnderTest, read: Read, change: str) -> None:
    (uri,) = store.land(every(10, 60), seconds=3600)
    store.register(HOUR)
    if change == "gone":
        store.delete(uri)
    else:
        store.zone().put(store.zone().path(uri), encode_batch(every(1, 3), FEED)[1])
    with pytest.raises(ObjectGone if change == "gone" else ObjectChanged) as raised:
        read(HOUR)
    assert str(raised.value) == uri


@pytest.mark.parametrize(
    ("registered", "sentence"),
    [
        (
            "UPDATE landing.raw_blobs_5m SET row_count = 7 WHERE bucket_5m = %s",
            "holds 30 ticks of BTCUSDT in slice 2024-01-10T12:00Z, but 7 were",
        ),
        ("DELETE FROM landing.raw_blobs_5m WHERE bucket_5m = %s", "holds 30 ticks of BTCUSDT in slice 2024-01-10T12:00Z, but none were"),
    ],
    ids=["another number", "none"],
)
def test_an_object_with_other_rows_than_registered_is_refused(store: StoreUnderTest, read: Read, registered: str, sentence: str) -> None:
    (uri,) = store.land(every(10, 60), seconds=3600)
    store.register(HOUR)
    store.rows(f"{registered} RETURNING 1", NOON)
    with pytest.raises(UserError) as refused:
        read(HOUR)
    assert str(refused.value) == (
        f"{uri} {sentence} registered: the settings changed since, so register it again (btc-assets load --reread)."
    )


def test_an_object_outside_the_landing_zone_is_refused(store: StoreUnderTest) -> None:
    store.land(every(10, 6))
    store.register(HOUR)
    store.rows("UPDATE landing.raw_blobs_5m SET uri = 's3://elsewhere/o' RETURNING 1")
    with SourceReaderUnderTest(store) as reader, pytest.raises(UserError) as refused:
        reader.read(HOUR, sources(store))
    assert str(refused.value) == (
        f"s3://elsewhere/o is registered, but lies outside the landing zone {store.zone().url}: correct BTC_ASSETS_LANDING_URL."
    )


class SourceReaderUnderTest(SourceReader):
    """A reader of the hour that is closed by a `with` statement."""

    def __init__(self, store: StoreUnderTest, feeds: Feeds = FEEDS, spool: Spool | None = None) -> None:
        super().__init__(store.connection, store.zone(), feeds, HOUR, spool)

    def __enter__(self) -> SourceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
