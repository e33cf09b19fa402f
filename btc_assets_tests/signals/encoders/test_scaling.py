"""Robust scaling: outliers do not move it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.signals.encoders.scaling import RobustScaler


@given(st.floats(1e3, 1e30), st.integers(0, 99))
@hypothesis_settings(max_examples=20)
def test_an_outlier_does_not_move_the_scale(outlier: float, row: int) -> None:
    values = np.random.default_rng(0).normal(5, 2, (100, 1))
    plain, disturbed = RobustScaler(1), RobustScaler(1)
    plain.fit(values)
    values[row] = outlier
    disturbed.fit(values)
    assert disturbed.centre.item() == pytest.approx(plain.centre.item(), abs=0.3)
    assert disturbed.width.item() == pytest.approx(plain.width.item(), rel=0.15)


def test_a_column_that_is_mostly_one_value_keeps_the_other_values_apart() -> None:
    values = np.zeros((100, 2))
    values[:10, 0] = 8.0
    scaler = RobustScaler(2)
    scaler.fit(values)
    assert scaler(torch.tensor([[0.0, 0.0], [8.0, 0.0]])).tolist() == [[0, 0], [pytest.approx(np.arcsinh(1)), 0]]
