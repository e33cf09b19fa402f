"""One evaluation: its split, and how missing forecasts are judged."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.signals.evaluation.trial import EvaluationOptions, Trial
from btc_assets_tests.support.level_market import level_market


def test_everything_fitted_is_fitted_before_the_first_query() -> None:
    trial = Trial(level_market()[0], EvaluationOptions())
    assert len(trial.queries) == 691 and trial.queries[-1] == len(trial.times) - 1
    assert trial.fitted[-1] + 1 == trial.ends[trial.queries[0]] == 1440 and not trial.same_day


def test_missing_forecasts_are_judged_as_the_training_mean() -> None:
    trial = Trial(level_market()[0], EvaluationOptions())
    nothing = {name: np.full(len(trial.times), np.nan) for name in trial.next}
    row = trial.judge("nothing", nothing)
    assert row.forecasts == 0
    assert [estimate.value for estimate in row.r2.values()] == pytest.approx([0, 0, 0])


def test_shuffled_targets_are_the_same_values_in_another_order() -> None:
    trial = Trial(level_market()[0], EvaluationOptions(seed=3))
    target = trial.next["log_realized_variance"]
    known = np.isfinite(target)
    assert sorted(trial.shuffled[known]) == sorted(target[known]) and (trial.shuffled[known] != target[known]).any()
    assert np.isnan(trial.shuffled[~known]).all()


def test_too_few_admissible_slices_are_refused() -> None:
    with pytest.raises(UserError, match="admissible for the first of them: 30 of each are needed"):
        Trial(level_market(288)[0], EvaluationOptions(embargo=timedelta(days=2)))
