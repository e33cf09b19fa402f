"""The wall clock of a play ends it on the first Ctrl-C, at once, and leaves the process as it was."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest

from btc_assets.simulation.clocks import WallClock
from btc_assets.simulation.play import PlayProgress, play
from btc_assets.simulation.play_plan import PlayOptions, plan_play
from btc_assets.simulation.recordings import survey
from btc_assets_tests.support.collected import memory_zone
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import every


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_wait_and_a_second_one_is_handled_as_before(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with WallClock() as clock:
        assert not clock.wait(0)
        os.kill(os.getpid(), number)
        assert clock.wait(3600)
        assert clock.wait(3600)
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_ctrl_c_ends_a_play_at_once_with_complete_batches() -> None:
    def press(progress: PlayProgress) -> None:
        if progress.landed.objects >= 3:
            os.kill(os.getpid(), signal.SIGINT)

    with WallClock() as clock:
        made = plan_play(survey("trades", lambda: iter([every(1, 3600)])), None, clock.now(), PlayOptions(600))
        landed = play(memory_zone(), FEED, made, clock, report=press)
        assert clock.wait(3600)
    assert landed.objects >= 3
    assert landed.last_event_time is not None and landed.last_event_time < made.start + timedelta(seconds=3599)
    assert (landed.objects - 1) * 15 < landed.ticks <= landed.objects * 15
