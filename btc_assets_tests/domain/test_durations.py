"""Durations in words."""

from __future__ import annotations

from datetime import timedelta

import pytest

from btc_assets.domain.durations import format_age
from btc_assets_tests.support.trades import NOON


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "7 s"), (372, "6 min 12 s"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h"), (-5, "0 s")], ids=str
)
def test_an_age_has_its_two_largest_units(seconds: int, text: str) -> None:
    assert format_age(NOON, NOON + timedelta(seconds=seconds)) == text
