"""The log of a play has a line for each slice, with figures to compare with the store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE
from btc_assets.simulation.play import play
from btc_assets.simulation.slice_log import SliceLog
from btc_assets_tests.support.plays import JumpingClock, WatchedZone, planned
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import every


def test_the_log_has_a_line_for_each_slice(tmp_path: Path) -> None:
    ticks = every(10, 100)
    clock = JumpingClock()
    with SliceLog(tmp_path / "log") as log:
        play(WatchedZone(clock), FEED, planned(ticks), clock, log=log)
    lines = [orjson.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    first = datetime(2024, 5, 1, 9, 30, tzinfo=UTC)
    assert [line["slice"] for line in lines] == [(first + i * SLICE).isoformat() for i in range(4)]
    assert [line["ticks"] for line in lines] == [29, 30, 30, 11]
    assert sum(line["trade_ids"] for line in lines) == 5050
    assert lines[1] == {
        "slice": "2024-05-01T09:35:00+00:00", "ended_at": "2024-05-01T09:40:00+00:00", "objects": 16, "ticks": 30,
        "first_trade_id": 30, "last_trade_id": 59, "trade_ids": sum(range(30, 60)), "quantity": "7.500000000000",
        "landed_at": "2024-05-01T09:40:07.345000+00:00",
    }  # fmt: skip
    assert lines[3]["ended_at"] is None  # the play is over before the slice is


def test_a_log_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        SliceLog(tmp_path / "none" / "log")
    assert str(refused.value) == (
        f"The log {tmp_path}/none/log cannot be written (No such file or directory): name a file in a directory that exists."
    )
