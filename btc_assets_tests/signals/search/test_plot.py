"""The picture of a slice and its neighbors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.features.bars import compute_bars
from btc_assets.signals.search.plot import SlicePicture, draw_slices, plot_slices, read_slice_pictures
from btc_assets.signals.search.similar import Neighbor
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.hand_made import tick_arrays
from btc_assets_tests.support.stored_slices import store_features
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every, table, trade


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
    assert [picture.title for picture in pictures] == ["BTCUSDT 2024-01-10 12:00 UTC", "2024-01-10 12:05 UTC, distance 0.250"]
    asked, last = pictures
    assert asked.channel("trade_count").sum() == 300
    assert last.next_bars is None and last.channel("trade_count").sum() == 150


def test_what_came_next_goes_on_at_its_own_prices(store: StoreUnderTest) -> None:
    """From its first price and the change up to the first of the next slice, which its bars do not tell: they are relative."""
    window = Window(NOON, NOON + 2 * SLICE)
    prices = ["100", "102", "103", "101"]
    ticks = [trade(n, NOON + n * SLICE / 2, price=price, quantity=str(1 + n)) for n, price in enumerate(prices)]
    write_ticks(store.connection, table(ticks), window)
    store_features(store, window)
    (picture, _) = read_slice_pictures(store.connection, NOON, [Neighbor(NOON + SLICE, "BTCUSDT", 0.25, 2, None)])
    traded = picture.channel("trade_count") > 0
    assert np.flatnonzero(traded).tolist() == [0, 30, 60, 90]
    assert picture.prices["close"][traded] == pytest.approx([1e4 * math.log(float(price) / 100) for price in prices], abs=1e-2)


def test_no_place_of_the_picture_is_empty_and_volumes_have_one_scale() -> None:
    bars = compute_bars(tick_arrays([(1, 100, 1, True)], [(1, 100, 7, True), (20, 101, 2, False)]))
    for count in (1, 2, 4, 5, 7, 11):
        pictures = [SlicePicture("x", bars[0])] + [SlicePicture("y", bars[0], bars[1])] * (count - 1)
        figure = draw_slices(pictures, generated=True)
        assert len(figure.axes) == 2 * count and all(axes.get_visible() for axes in figure.axes)
        rows: dict[float, list[float]] = {}
        for axes in figure.axes[::2]:
            at = axes.get_subplotspec().get_position(figure)  # type: ignore[union-attr]
            rows.setdefault(round(at.y0, 3), []).append(at.x1)
        assert len({round(max(ends), 3) for ends in rows.values()}) == 1  # each row reaches the margin
        assert {axes.get_ylim() for axes in figure.axes[1::2]} == {(0, 1.05 * (7 if count > 1 else 1))}
        assert "generated trades" in figure.get_supxlabel()
    assert "generated" not in draw_slices(pictures).get_supxlabel()
