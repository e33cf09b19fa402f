"""No object takes more memory or time than an honest one of a few megabytes, whatever it unfolds to."""

from __future__ import annotations

from pathlib import Path

import pytest

from btc_assets_tests.support.bombs import BOMBS
from btc_assets_tests.support.measured_read import read_measured

pytestmark = pytest.mark.slow

MEGABYTES = 300
SECONDS = 10  # of a processor; the slowest takes three on a quiet one


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_does_not_go_off(name: str, tmp_path: Path) -> None:
    cost = read_measured(BOMBS[name](), tmp_path)
    print(f"\n{name}: {cost}")
    assert cost.megabytes < MEGABYTES
    assert cost.seconds < SECONDS
