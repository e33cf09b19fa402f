"""A generated perpetual: the trades of the spot market at other prices."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.ticks import TICK_SCHEMA, float64
from btc_assets.simulation.generate_day import generate_day
from btc_assets.simulation.perpetual import follow_spot

SPOT = pa.concat_tables(generate_day(datetime(2024, 1, 10, tzinfo=UTC), 2_000))
PERPETUAL = pa.concat_tables(follow_spot([SPOT], "BTCUSDT.P", first_trade_id=7))


def test_its_trades_have_the_times_quantities_and_sides_of_the_spot_market() -> None:
    same = [name for name in TICK_SCHEMA.names if name not in ("symbol", "trade_id", "price")]
    assert PERPETUAL.schema == TICK_SCHEMA
    assert PERPETUAL.select(same) == SPOT.select(same)
    assert set(PERPETUAL["symbol"].to_pylist()) == {"BTCUSDT.P"}
    assert PERPETUAL["trade_id"].to_pylist() == list(range(7, 7 + len(SPOT)))


def test_the_basis_is_one_to_seven_basis_points_and_prices_move_in_steps_of_a_tenth() -> None:
    spot, perpetual = float64(SPOT["price"]), float64(PERPETUAL["price"])
    basis = (perpetual / spot - 1) * 1e4
    assert basis.min() > 0.9 and basis.max() < 7.1 and np.ptp(basis) > 4
    assert all(price * 10 % 1 == 0 for price in PERPETUAL["price"].to_pylist())


@given(cuts=st.lists(st.integers(0, len(SPOT)), max_size=4))
def test_it_does_not_depend_on_how_the_trades_are_cut_into_tables(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(SPOT)]
    pieces = [SPOT.slice(start, end - start) for start, end in pairwise(edges)]
    assert pa.concat_tables(follow_spot(pieces, "BTCUSDT.P", first_trade_id=7)) == PERPETUAL
