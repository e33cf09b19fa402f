"""The 5-second bars that features and sequences are computed from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btc_assets.signals.features.grid import STEPS, compute_grid, same_as_before
from btc_assets_tests.support.hand_made import tick_arrays


def test_bars_hold_the_sums_of_their_ticks_and_carry_the_price_forward() -> None:
    grid = compute_grid(tick_arrays([(6, 100, 1, True), (7, 102, 2, True), (12, 101, 4, False)]))
    assert grid.count[0, :4].tolist() == [0, 2, 1, 0]
    assert grid.signed_volume[0, :4].tolist() == [0, 3, -4, 0]
    assert grid.quote_volume.sum() == 100 + 204 + 404
    assert grid.close[0].tolist() == pytest.approx([0, math.log(1.02)] + [math.log(1.01)] * (STEPS - 2))
    assert grid.log_return.sum() == pytest.approx(math.log(1.01))


def test_the_edges_of_a_bar_bound_its_waits() -> None:
    grid = compute_grid(tick_arrays([(6, 100, 1, True), (9, 100, 1, True)]))
    assert grid.longest_wait[0, :3].tolist() == [5_000_000, 3_000_000, 5_000_000]


def test_buys_and_sells_that_cancel_have_no_signed_volume() -> None:
    assert compute_grid(tick_arrays([(1, 100, 0.1, True), (2, 100, 0.2, True), (3, 100, 0.3, False)])).signed_volume[0, 0] == 0


def test_the_first_value_equals_none_before_it() -> None:
    assert same_as_before(np.array([1, 1, 2, 2])).tolist() == [False, True, False, True]
