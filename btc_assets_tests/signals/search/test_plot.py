"""The picture of a slice and its neighbors."""

from __future__ import annotations

import numpy as np

from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.features.bars import compute_bars
from btc_assets.signals.search.plot import SlicePicture, plot_slices, read_slice_pictures
from btc_assets.signals.search.similar import Neighbor
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.hand_made import tick_arrays
from btc_assets_tests.support.stored_slices import store_features
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every


def test_prices_are_basis_points_from_the_first_price() -> None:
    picture = SlicePicture("x", compute_bars(tick_arrays([(1, 100, 1, True), (2, 101, 1, True), (3, 99, 1, False)]))[0])
    first = {name: float(values[0]) for name, values in picture.prices.items()}
    assert [round(first[name]) for name in ("open", "high", "low", "close")] == [0, 100, -101, -101]
    assert np.isfinite(picture.channel("volume")).all()


def test_slices_of_any_number_are_drawn_even_without_trades() -> None:
    quiet, busy = compute_bars(tick_arrays([], [(1, 100, 1, True), (20, 101, 2, False)]))
    for count in (1, 3, 5):
        assert plot_slices([SlicePicture("busy", busy)] + [SlicePicture("quiet", quiet)] * count).startswith(b"\x89PNG")
    assert plot_slices([SlicePicture("quiet", quiet)]).startswith(b"\x89PNG")


def test_pictures_are_read_after_the_ticks_are_dropped(store: StoreUnderTest) -> None:
    window = Window(NOON, NOON + 2 * SLICE)
    write_ticks(store.connection, every(2.0, 300), window)
    store_features(store, window)
    store.connection.execute("DELETE FROM market_data.btc_ticks")
    found = [
        Neighbor(NOON + SLICE, "BTCUSDT", 0.25, 150, None),
        Neighbor(NOON + 2 * SLICE, "BTCUSDT", 0.5, 0, None),
    ]  # the last is not stored
    pictures = read_slice_pictures(store.connection, NOON, found)
    assert [picture.title for picture in pictures] == ["BTCUSDT 2024-01-10 12:00", "2024-01-10 12:05, distance 0.250"]
    assert pictures[0].channel("trade_count").sum() == 150
