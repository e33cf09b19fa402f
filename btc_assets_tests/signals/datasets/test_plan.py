"""Splits: nothing that trains overlaps or comes near to what is tested; and plans that cannot be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, SLICE_US, Window, to_microseconds
from btc_assets.domain.ticks import TIME
from btc_assets.signals.datasets.own_columns import OwnTarget
from btc_assets.signals.datasets.plan import Plan, Split
from btc_assets.signals.datasets.spans import to_span
from btc_assets.signals.datasets.targets import Target

START = datetime(2024, 1, 10, tzinfo=UTC)
SECOND = 1_000_000


def window(first: int, last: int) -> Window:
    return Window(START + first * SLICE, START + last * SLICE)


def starts(window: Window) -> np.ndarray:
    return np.arange(to_microseconds(window.start), to_microseconds(window.end), SLICE_US)


spans = st.integers(0, 20_000).map(lambda seconds: seconds * SECOND)
windows = st.tuples(st.integers(0, 300), st.integers(1, 60)).map(lambda each: window(each[0], sum(each)))
plans = st.builds(
    lambda horizon, latency, target: Plan("BTCUSDT", ("volume",), target=Target("return", horizon) if target else None, latency=latency),
    st.integers(1, 20_000).map(lambda seconds: seconds * SECOND),
    st.integers(0, 4_000_000_000),
    st.booleans(),
)


@given(plans, st.lists(windows, min_size=1, max_size=3), spans, spans)
def test_no_row_that_trains_comes_nearer_to_a_tested_row_than_purge_and_embargo(
    plan: Plan, tests: list[Window], purge: int, embargo: int
) -> None:
    every = starts(window(0, 500))
    kept = every[Split((window(0, 500),), tuple(tests), purge, embargo).keeps(plan, every)]
    for tested in np.concatenate([starts(each) for each in tests]):
        known_at, end = kept + SLICE_US + plan.latency, plan.ends(kept)
        apart = (end + purge <= tested) | (kept >= plan.ends(np.array([tested]))[0] + embargo)
        assert apart.all()
        assert (known_at <= end).all()


@given(plans, windows, spans, spans)
def test_every_row_far_enough_from_a_test_trains(plan: Plan, test: Window, purge: int, embargo: int) -> None:
    every = starts(window(0, 500))
    lost = every[~Split((window(0, 500),), (test,), purge, embargo).keeps(plan, every)]
    tested = starts(test)
    assert ((plan.ends(lost) + purge > tested[0]) & (lost < plan.ends(tested)[-1] + embargo)).all()


def test_the_targets_of_a_user_reach_as_far_as_they_say() -> None:
    bucket = starts(window(0, 100))
    ends = bucket + 10 * SLICE_US
    ends[20] = bucket[95]
    table = pa.table({"bucket_5m": pa.array(bucket).cast(TIME), "target_end": pa.array(ends).cast(TIME), "target": np.zeros(100)})
    plan = Plan("BTCUSDT", ("volume",), target=OwnTarget.of(table, 0), latency=0)
    kept = Split((window(0, 100),), (window(90, 100),), 0, 0).keeps(plan, bucket)
    assert np.flatnonzero(~kept).tolist() == [20, *range(81, 100)]


def test_by_default_a_row_trains_if_its_target_ends_an_hour_before_the_test() -> None:
    plan = Plan("BTCUSDT", ("volume",), target=Target("return", 300 * SECOND))
    kept = Split((window(0, 400),), (window(100, 200),)).keeps(plan, starts(window(0, 400)))
    # Known at 6:30 after its start, target until 11:30: the row of 85 ends at 87.3, the hour is over at 99.3.
    assert np.flatnonzero(~kept).tolist() == list(range(86, 214))  # and the last test's target ends at 201.3


def test_walking_forward_trains_on_what_is_before_each_part() -> None:
    split = Split((window(0, 100),), (window(120, 150),), purge=7, embargo=8)
    expanding = split.walk_forward(3, expanding=True)
    assert [(each.train[0], each.test[0]) for each in expanding] == [
        (window(0, 120), window(120, 130)), (window(0, 130), window(130, 140)), (window(0, 140), window(140, 150))
    ]  # fmt: skip
    assert {(each.purge, each.embargo) for each in expanding} == {(7, 8)}
    assert [each.train[0] for each in split.walk_forward(3, expanding=False)] == [window(0, 120), window(10, 130), window(20, 140)]
    for folds in (0, 31):
        with pytest.raises(UserError, match=f"^{folds} folds do not fit a test of 30 slices: give a number from 1 to 30"):
            split.walk_forward(folds, expanding=True)
    with pytest.raises(UserError, match=r"^Walking forward needs one range to train on"):
        Split((window(0, 100),)).walk_forward(2, expanding=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": ("volume", "spread")}, "There is no feature 'spread': name some of trade_count, volume, "),
        ({"features": ("volume", "volume")}, "A feature is named twice"),
        ({"features": (), "channels": ("closes",)}, "There is no channel of bars 'closes': name some of log_return, close"),
        ({"features": ()}, "A data set without features and bars has no inputs"),
    ],
)
def test_a_plan_that_cannot_be(arguments: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UserError) as raised:
        Plan("BTCUSDT", **arguments)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("kind", "horizon"), [("returns", 300 * SECOND), ("return", 0), ("return", 1_500_000), ("volatility", 45 * SECOND)]
)
def test_a_target_that_cannot_be(kind: str, horizon: int) -> None:
    with pytest.raises(UserError):
        Target(kind, horizon)


def test_spans_as_people_write_them() -> None:
    written = ["90s", " 5 m", "1h", "7d", timedelta(minutes=2), 1.5, 0]
    assert [to_span("horizon", each) / SECOND for each in written] == [90, 300, 3600, 7 * 86_400, 120, 1.5, 0]  # type: ignore[arg-type]
    for wrong in ("5 minutes", "", "h", True, None, "-5m"):
        with pytest.raises(UserError, match=r"^The horizon .* is no span of time: write 90s, 5m, 1h or 7d, or pass a timedelta"):
            to_span("horizon", wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^The purge -1 is negative"):
        to_span("purge", -1)
