"""A large object gives each slice its rows, whatever order they are in, with few of them in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import SLICE, Window
from btc_assets.landing import sliced_object
from btc_assets.landing.objects import ObjectGone
from btc_assets.landing.raw import ObjectRejected
from btc_assets.landing.sliced_object import SlicedObject
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.landed import land, remove
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import NOON, every

TICKS = every(10, 720)  # two hours, 30 ticks in each slice
WINDOWS = [Window(NOON + first * SLICE, NOON + end * SLICE) for first, end in ((0, 1), (1, 5), (5, 13), (20, 24))]


@pytest.fixture
def zone(tmp_path: Path, temporary_files: Path) -> LandingZone:
    (tmp_path / "landing").mkdir()
    return LandingZone((tmp_path / "landing").as_uri())


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("btc_assets.landing.objects.LARGE_BYTES", 1000)
    monkeypatch.setattr("btc_assets.landing.parquet_file.BATCH_ROWS", 50)
    monkeypatch.setattr(sliced_object, "PENDING_ROWS", 120)
    yield


def sliced(zone: LandingZone, ticks: pa.Table, expected: dict[datetime, int]) -> SlicedObject:
    return SlicedObject(zone, land(zone, encode_batch(ticks, FEED)[1]), Feeds([FEED]), expected)


def wanted() -> dict[datetime, int]:
    rows = Counter(TICKS["bucket_5m"].to_pylist())
    return {bucket: rows[bucket] for window in WINDOWS for bucket in window.slices()}


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_each_window_gets_its_rows_in_any_order(zone: LandingZone, temporary_files: Path, order: str) -> None:
    positions = {"ascending": np.arange(720), "descending": np.arange(720)[::-1], "random": np.random.default_rng(5).permutation(720)}
    obj = sliced(zone, TICKS.take(pa.array(positions[order])), wanted())
    for window in WINDOWS:
        ids = sorted(obj.take(window)["trade_id"].to_pylist())
        assert ids == [tick["trade_id"] for tick in TICKS.to_pylist() if tick["bucket_5m"] in window]
    obj.close()
    assert list(temporary_files.iterdir()) == []


def test_an_object_in_order_of_time_is_decoded_no_further_than_needed(zone: LandingZone) -> None:
    obj = sliced(zone, TICKS, wanted())
    assert len(obj.take(WINDOWS[0])) == 30
    assert obj._pending_rows <= 50
    obj.close()


def test_closing_early_removes_all_temporary_files(zone: LandingZone, temporary_files: Path) -> None:
    obj = sliced(zone, TICKS.take(pa.array(np.arange(720)[::-1])), wanted())
    obj.take(WINDOWS[0])
    assert len(list(temporary_files.iterdir())) > 0
    obj.close()
    assert list(temporary_files.iterdir()) == []


def test_a_slice_with_fewer_rows_than_registered_gets_those_that_there_are(zone: LandingZone) -> None:
    obj = sliced(zone, TICKS, {NOON: 31})
    assert len(obj.take(Window.of_slice(NOON))) == 30
    obj.close()


def test_an_object_that_can_no_longer_be_read_raises_when_it_is_taken_from(zone: LandingZone) -> None:
    obj = sliced(zone, TICKS, wanted())
    remove(zone, obj.obj)
    with pytest.raises(ObjectGone):
        obj.take(WINDOWS[0])
    obj.close()
    garbage = SlicedObject(zone, land(zone, b"\0" * 2000), Feeds([FEED]), {NOON: 1})
    with pytest.raises(ObjectRejected, match="its format is unknown"):
        garbage.take(WINDOWS[0])
    garbage.close()
