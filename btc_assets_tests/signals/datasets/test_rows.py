"""A row knows nothing that happened after it was known, whatever the trades."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_assets.domain.slices import SLICE, SLICE_US, Window, slice_number
from btc_assets.domain.ticks import int64
from btc_assets.signals.datasets.doubts import Doubts
from btc_assets.signals.datasets.plan import Plan
from btc_assets.signals.datasets.rows import make_rows
from btc_assets.signals.datasets.targets import Prices, Target
from btc_assets.signals.features.bars import CHANNELS
from btc_assets.signals.features.compute import compute_rows
from btc_assets.signals.features.formulas import FEATURES
from btc_assets_tests.support.trades import NOON, table, trade

SLICES = 4
WINDOW = Window(NOON, NOON + SLICES * SLICE)
LATENCY = 45_000_000
HORIZON = 120_000_000
PLAN = Plan(
    "BTCUSDT", tuple(feature.name for feature in FEATURES), tuple(channel.name for channel in CHANNELS), Target("return", HORIZON),
    latency=LATENCY, mask=True,
)  # fmt: skip

# Milliseconds since the beginning of the window, price in cents, side.
Trades = list[tuple[int, int, bool]]
moments = st.integers(0, SLICES * 300_000 - 1)
trades = st.lists(st.tuples(moments, st.integers(9_000, 11_000), st.booleans()), min_size=1, max_size=60)


def rows_of(made: Trades) -> pa.Table:
    """The rows that a store with these trades, reported as they are made, gives."""
    ticks = table(
        [
            trade(number, NOON + timedelta(milliseconds=at), price=f"{cents / 100:.2f}", maker=maker)
            for number, (at, cents, maker) in enumerate(sorted(made, key=lambda each: each[0]), start=1)
        ]
    )
    seconds = int64(ticks["trade_time"]) // 1_000_000
    last = np.flatnonzero(np.append(np.diff(seconds) != 0, True))
    prices = Prices((seconds[last] + 1) * 1_000_000, ticks["price"].cast(pa.float64()).to_numpy()[last])
    features = compute_rows(ticks, [])
    sent = [b"\x03\xc0\x00\x00" + np.array(bars, ">f4").tobytes() for bars in features["bars"].to_pylist()]  # as pgvector sends them
    features = features.set_column(features.schema.get_field_index("bars"), "bars", pa.array(sent, pa.binary()))
    return make_rows(PLAN, WINDOW, features.sort_by("bucket_5m"), np.empty(0, np.int64), prices, Doubts())


@settings(deadline=None, max_examples=60)
@given(trades, trades, st.integers(0, SLICES - 1))
def test_trades_after_a_row_is_known_change_nothing_of_its_inputs(before: Trades, after: Trades, number: int) -> None:
    known = 300 * (number + 1) + LATENCY // 1_000_000
    past = [each for each in before if each[0] < 1000 * known]
    now, later = (
        rows_of([*past, (0, 10_000, True)]),
        rows_of([*past, (0, 10_000, True), *(each for each in after if each[0] >= 1000 * known)]),
    )
    inputs = ["bucket_5m", "available_at", *PLAN.features, "bars"]
    assert now.slice(0, number + 1).select(inputs).equals(later.slice(0, number + 1).select(inputs))


@settings(deadline=None, max_examples=60)
@given(trades, trades, st.integers(0, SLICES - 1))
def test_trades_after_a_target_change_nothing_of_it_and_the_slice_itself_is_no_part_of_it(
    before: Trades, after: Trades, number: int
) -> None:
    ends = 300 * (number + 1) + (LATENCY + HORIZON) // 1_000_000
    kept = [(0, 10_000, True), *(each for each in before if each[0] < 1000 * ends)]
    later = [*kept, *(each for each in after if each[0] >= 1000 * ends)]
    column = rows_of(kept)["target"].to_pylist(), rows_of(later)["target"].to_pylist()
    # A slice in which the target ends may be there only with the later trades; then the target is not known without them.
    assert column[0][number] in (None, column[1][number])
    opening = [each for each in kept if each[0] >= 1000 * (300 * (number + 1))]
    if column[0][number] is not None and any(each[0] < 1000 * (ends - HORIZON // 1_000_000) for each in opening):
        other = [*opening, *((300_000 * slot, 9_500, False) for slot in range(number + 1))]
        assert rows_of(other)["target"].to_pylist()[number] == column[0][number]


def test_a_slice_in_doubt_is_told_once_by_the_first_reason() -> None:
    made = [(300_000 * slot + 1000 * second, 10_000 + second, True) for slot in range(SLICES) for second in range(0, 300, 10)]
    plain = rows_of(made)
    assert plain["state"].to_pylist() == ["complete"] * 3 + ["target: no trades"]
    numbers = [slice_number(NOON + slot * SLICE) for slot in range(SLICES)]
    features = compute_rows(table([trade(i + 1, NOON + timedelta(milliseconds=at)) for i, (at, _, _) in enumerate(made)]), [])
    times = int64(plain["bucket_5m"])
    prices = Prices(np.arange(times[0] - SLICE_US, times[-1] + 3 * SLICE_US, 1_000_000), np.ones(1800 + 600))
    doubts = Doubts({numbers[1]: "pending"}, {numbers[1], numbers[2]}, {numbers[2]})
    plan = Plan("BTCUSDT", ("volume",), target=Target("return", HORIZON), latency=LATENCY, mask=True)
    rows = make_rows(plan, WINDOW, features, np.array([times[-1] + SLICE_US]), prices, doubts)
    assert rows["state"].to_pylist() == ["target: pending", "pending", "features due", "complete"]
    assert rows["target"].is_null().to_pylist() == [True, True, False, False]
    assert rows["volume"].is_null().to_pylist() == [False, True, True, False]
