"""The evaluation tells skill from none, and catches embeddings that know what they cannot know."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY_US, SLICE_US
from btc_assets.domain.ticks import tick_order
from btc_assets.signals.evaluation import evaluate as evaluation
from btc_assets.signals.evaluation.evaluate import Dataset, evaluate
from btc_assets.signals.evaluation.report import LEVELS, Evaluation
from btc_assets.signals.evaluation.robustness import Rates, Retrieval
from btc_assets.signals.features.formulas import FEATURES, features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.simulation.generate_market import generate_market
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets_tests.support.stores import FEED, real_data

NAMES = ("realized_volatility", "volume", "trade_count", "log_return")
DAY = datetime(2024, 1, 10, tzinfo=UTC)
START = 19_732 * DAY_US  # the same
DAYS = 8


def market(n: int = DAYS * 288, seed: int = 0) -> tuple[Dataset, np.ndarray]:
    """Slices whose volatility, volume and trade count follow one slow level, which is returned with them; returns have no direction."""
    random = np.random.default_rng(seed)
    level = np.zeros(n)
    for i in range(1, n):
        level[i] = 0.97 * level[i - 1] + 0.24 * random.normal()
    volatility = 5e-4 * np.exp(0.6 * level + 0.2 * random.normal(size=n))
    count = np.rint(np.exp(5 + 0.5 * level + 0.3 * random.normal(size=n)))
    volume = count * 0.02 * np.exp(0.3 * random.normal(size=n))
    features = np.stack([volatility, volume, count, volatility * random.normal(size=n)], axis=1)
    return Dataset(START + np.arange(n) * SLICE_US, features, NAMES, (level > 0) + 2 * (random.random(n) < 0.5)), level


def noise(n: int = DAYS * 288) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(n, 8))


@pytest.fixture(scope="module")
def fair() -> Evaluation:
    dataset, level = market()
    return evaluate(dataset, {"level": level[:, None], "noise": noise()})


def test_neighbours_in_the_level_forecast_and_those_in_noise_or_drawn_do_not(fair: Evaluation) -> None:
    for target in LEVELS:
        assert fair.row("level").r2[target].value > fair.row("persistence").r2[target].value
        for name in ("noise", "random neighbours"):
            assert -0.3 < fair.row(name).r2[target].value < 0.05
    assert fair.row("level").qlike.value < fair.row("persistence").qlike.value < fair.row("noise").qlike.value


def test_neighbours_add_to_har_what_its_past_does_not_tell(fair: Evaluation) -> None:
    assert fair.row("level").gain.exceeds(0.01, 3)
    assert abs(fair.row("noise").gain.value) < 0.01
    assert abs(fair.row("random neighbours").gain.value) < 0.01


def test_neighbours_are_of_the_same_regime_as_far_as_the_embedding_knows_it(fair: Evaluation) -> None:
    assert fair.row("level").precision.value == pytest.approx(0.5, abs=0.05)  # one of two levels is known, one of two coins not
    for name in ("noise", "random neighbours"):
        assert fair.row(name).precision.value == pytest.approx(0.25, abs=0.05)


def test_what_cannot_look_ahead_raises_no_alarm_and_every_query_is_answered(fair: Evaluation) -> None:
    assert not fair.alarms
    assert [row.name for row in fair.rows] == ["persistence", "time of day", "HAR", "random neighbours", "raw features", "level", "noise"]
    assert {row.forecasts for row in fair.rows} == {691}
    assert fair.notes[0].startswith(
        "691 queries from 2024-01-15T14:25Z to 2024-01-17T23:55Z; 1,440 slices are admissible for the first and 2,016 "
    )
    assert "A small sample: 691 queries tell large differences only." in fair.notes
    for row in fair.rows:
        assert abs(row.auc.value - 0.5) < 0.1


def test_an_embedding_that_holds_the_next_slice_is_caught_by_knowing_it_better_than_the_one_before() -> None:
    dataset, _ = market()
    own = np.log(dataset.features[:, 0])
    result = evaluate(dataset, {"leak": np.roll(own, -1)[:, None], "both": np.stack([own, np.roll(own, -1)], axis=1)})
    for name in ("leak", "both"):
        assert any(alarm.startswith(f"{name}: knows log_realized_variance of the next slice") for alarm in result.alarms)
    assert not any(alarm.startswith("raw features") for alarm in result.alarms)


def test_an_embedding_that_holds_the_next_return_is_caught_by_its_auc() -> None:
    dataset, _ = market()
    result = evaluate(dataset, {"leak": np.roll(dataset.features[:, 3] / dataset.features[:, 0], -1)[:, None]})
    assert any(alarm.startswith("leak: the AUC") for alarm in result.alarms)


def test_a_model_that_was_trained_on_the_queries_is_caught() -> None:
    dataset, level = market()
    until = {"late": int(dataset.times[-100]), "in time": int(dataset.times[1000])}
    result = evaluate(dataset, {"late": level[:, None], "in time": level[:, None]}, trained_until=until)
    assert "trained on data up to 2024-01-17T15:40Z" in result.alarms[0]
    assert [alarm.split(":")[0] for alarm in result.alarms] == ["late"]


def test_neighbours_that_break_the_rules_are_caught_whatever_let_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "admissible", lambda times, queries, **_: np.searchsorted(times, queries))
    dataset, level = market()
    alarms = evaluate(dataset, {"level": level[:, None]}).alarms
    assert any("level" in alarm and "inside the embargo or on the query's own day" in alarm for alarm in alarms)


def test_a_query_that_is_its_own_neighbour_forecasts_even_shuffled_targets_and_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "admissible", lambda times, queries, **_: np.searchsorted(times, queries, side="right"))
    dataset, level = market()
    alarms = evaluate(dataset, {"level": level[:, None]}, k=2).alarms
    assert any(alarm.startswith("level: R2 of shuffled targets") for alarm in alarms)


def test_of_one_day_the_same_day_is_admitted_and_it_says_so() -> None:
    dataset, level = market(288)
    result = evaluate(dataset, {"level": level[:, None]})
    assert "One day only: same-day neighbours admitted, embargo 1 h." in result.notes
    assert not any("own day" in note for note in result.notes)
    assert result.row("level").forecasts == 86
    assert result.row("time of day").forecasts == 0
    assert result.row("time of day").r2["log_volume"].value == 0  # the training mean


def test_of_too_few_days_the_same_day_is_admitted_too() -> None:
    dataset, _ = market(350)
    assert "2 days only: same-day neighbours admitted, embargo 1 h." in evaluate(dataset, {}).notes


def test_a_market_without_moves_or_trades_has_nothing_to_forecast_and_breaks_nothing() -> None:
    times = START + np.arange(1000) * SLICE_US
    result = evaluate(Dataset(times, np.zeros((1000, 4)), NAMES), {"nothing": np.zeros((1000, 2))})
    assert all(str(row.auc) == "-" for row in result.rows)
    assert result.row("raw features").qlike.value == pytest.approx(0)
    assert result.plot().startswith(b"\x89PNG")


def test_slices_after_a_gap_or_without_a_vector_are_told_apart_from_bad_forecasts() -> None:
    dataset, level = market()
    kept = np.ones(len(level), bool)
    kept[-50] = False
    cut = Dataset(dataset.times[kept], dataset.features[kept], NAMES)
    vectors = level[kept, None].copy()
    vectors[-20:] = np.nan
    result = evaluate(cut, {"level": vectors})
    assert "2 of the queries have no next slice and are not judged." in result.notes
    assert result.row("raw features").forecasts - result.row("level").forecasts == 20
    assert str(result.row("level").precision) == "-"


def test_the_embargo_and_k_are_parameters() -> None:
    dataset, _ = market(288)
    result = evaluate(dataset, {}, k=3, embargo=timedelta(hours=2))
    assert "3 neighbours, embargo 2 h." in result.notes[0]
    assert "regime precision@3" in result.to_markdown()


def test_the_table_has_a_line_for_each_method_and_says_that_nothing_leaks(fair: Evaluation) -> None:
    lines = fair.to_markdown().splitlines()
    assert sum(line.startswith("| ") for line in lines) == 2 + len(fair.rows)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert lines[-1] == "No sign of leakage."
    marked = replace(fair, alarms=["x: y."], retrieval={"level": Retrieval({"clock 1 s slow": Rates(0.5, 0.75)})}).to_markdown()
    assert "| level | 0.500 / 0.750 |" in marked
    assert marked.splitlines()[-1] == "* **Alarm:** x: y."


def test_the_plot_is_a_png(fair: Evaluation) -> None:
    assert fair.plot().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": START + np.zeros(100, np.int64)}, "not ascending"),
        ({"times": START + np.arange(100)}, "not ascending starts"),
        ({"features": np.ones((99, 4))}, "one row a slice"),
        ({"features": np.where(np.eye(100, 4) > 0, np.nan, 1.0)}, "realized_volatility of 2024-01-10T00:00Z is not finite"),
        ({"feature_names": ("volume", "trade_count", "log_return", "x")}, "lack realized_volatility"),
        ({"regimes": np.zeros(3)}, "regimes"),
    ],
)
def test_a_data_set_that_is_none_is_an_error(change: dict[str, object], message: str) -> None:
    good = {"times": START + np.arange(100) * SLICE_US, "features": np.ones((100, 4)), "feature_names": NAMES}
    with pytest.raises(UserError, match=message):
        Dataset(**{**good, **change})  # type: ignore[arg-type]


def test_an_embedding_of_other_slices_or_too_few_slices_are_errors() -> None:
    dataset, level = market(288)
    with pytest.raises(UserError, match="'short' is"):
        evaluate(dataset, {"short": level[:-1, None]})
    with pytest.raises(UserError, match="longer range"):
        evaluate(market(40)[0], {})
    with pytest.raises(UserError, match="no such embedding"):
        evaluate(dataset, {}, trained_until={"late": START})
    with pytest.raises(UserError, match="admissible for the first"):
        evaluate(dataset, {}, embargo=timedelta(days=2))


def test_in_a_generated_market_raw_features_find_the_regime_far_more_often_than_chance() -> None:
    tables, regimes = zip(*generate_market(DAY, 4, slice_ticks=150), strict=True)
    ticks = TickArrays.of(pa.concat_tables(tables), np.arange(4 * 288) * SLICE_US + START)
    result = evaluate(Dataset(ticks.starts, features(ticks), [feature.name for feature in FEATURES], np.concatenate(regimes)), {})
    assert result.row("raw features").precision.value > 3 * result.row("random neighbours").precision.value
    assert not result.alarms


def test_the_real_day_is_evaluated_as_it_is_and_its_smallness_is_said() -> None:
    trades = pa.concat_tables(read_trades(real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz"), FEED, Landed()))
    ticks = TickArrays.of(trades.take(tick_order(trades)))
    result = evaluate(Dataset(ticks.starts, features(ticks), [feature.name for feature in FEATURES]), {})
    assert {"One day only: same-day neighbours admitted, embargo 1 h.", "A small sample: 86 queries tell large differences only."} < set(
        result.notes
    )
    assert result.row("HAR").r2["log_realized_variance"].value > result.row("random neighbours").r2["log_realized_variance"].value
    assert not result.alarms
