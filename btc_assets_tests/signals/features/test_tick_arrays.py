"""Ticks as arrays: from tables of ticks, in parts, and reduced segment by segment."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.features import tick_arrays as tick_arrays_module
from btc_assets.signals.features.bars import CHANNELS, compute_bars
from btc_assets.signals.features.formulas import compute_features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets_tests.support.hand_made import START, tick_arrays
from btc_assets_tests.support.trades import NOON, every, table, trade


def test_a_table_of_ticks_gives_the_slices_with_ticks_or_those_asked_for() -> None:
    ticks = every(100, 5)
    assert TickArrays.of(ticks).offsets.tolist() == [0, 3, 5]
    asked = TickArrays.of(ticks, START + SLICE_US * np.arange(-1, 3))
    assert asked.offsets.tolist() == [0, 0, 3, 5, 5]
    assert np.array_equal(compute_features(asked)[1:3], compute_features(TickArrays.of(ticks)))
    assert compute_features(TickArrays.of(ticks.slice(0, 0))).shape == (0, 48)


def test_decimals_and_floats_are_the_same_ticks() -> None:
    ticks = every(1, 400)
    nearest = {name: pa.array(map(float, ticks[name].to_pylist())) for name in ("price", "quantity")}
    floats = ticks.set_column(5, "price", nearest["price"]).set_column(6, "quantity", nearest["quantity"])
    assert np.array_equal(compute_features(TickArrays.of(ticks)), compute_features(TickArrays.of(floats)))


def test_a_buyer_who_is_the_maker_means_that_the_taker_sold() -> None:
    assert TickArrays.of(table([trade(1, NOON, maker=True), trade(2, NOON, maker=False)])).buy.tolist() == [False, True]


@pytest.mark.parametrize(
    ("ticks", "starts", "sentence"),
    [
        pytest.param(every(100, 5).take([4, 3, 2, 1, 0]), None, "sort them", id="out of order"),
        pytest.param(table([trade(1, NOON), trade(1, NOON, symbol="ETHUSDT")]), None, "several symbols", id="several symbols"),
        pytest.param(every(100, 5), [START], "lack slices", id="a slice that was not asked for"),
        pytest.param(every(100, 5), [START + SLICE_US, START], "ascend", id="slices out of order"),
    ],
)
def test_ticks_that_do_not_form_a_series_of_slices_are_refused(ticks: pa.Table, starts: list[int] | None, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        TickArrays.of(ticks, None if starts is None else np.array(starts))


def test_slices_beyond_the_size_of_a_part_are_all_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick_arrays_module, "_PART_SLICES", 2)
    market = tick_arrays([], [(1, 100, 1, True)], [], [], [(2, 100, 3, True)])
    assert [len(part) for part in market.parts()] == [2, 2, 1]
    volume = [channel.name for channel in CHANNELS].index("volume")
    assert compute_bars(market)[:, :, volume].sum(1).tolist() == [0, 1, 0, 0, 3]
