"""A play lands trades as the collector would: complete, in order, when their time has come, and never ahead of the present."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.domain.slices import DAY
from btc_assets.simulation.batches import BatchLimits
from btc_assets.simulation.newest_tick import NewestTick
from btc_assets.simulation.play import PlayProgress, play
from btc_assets.simulation.play_plan import PlayOptions, plan_play
from btc_assets.simulation.recordings import survey
from btc_assets.simulation.replay import Landed
from btc_assets_tests.support.collected import ids, pieces
from btc_assets_tests.support.plays import MINUTE, NOW, SECOND, JumpingClock, WatchedZone, planned, shifted
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import NOON, every, table, trade


def in_batches(seconds: float = 15, rows: int = 5000) -> PlayOptions:
    return PlayOptions(limits=BatchLimits(seconds, rows))


def played(ticks: pa.Table, options: PlayOptions = PlayOptions(), *, end: datetime | None = None) -> WatchedZone:  # noqa: B008  # immutable
    zone = WatchedZone(JumpingClock(end=end))
    play(zone, FEED, planned(ticks, options), zone.clock)
    return zone


def test_every_trade_lands_once_and_decodes_to_the_same_except_for_its_times() -> None:
    ticks = every(0.5, 2000)
    zone = played(ticks, PlayOptions(60))
    assert zone.ticks().equals(shifted(ticks, planned(ticks, PlayOptions(60)).shift))


def test_a_batch_closes_when_its_time_is_over_or_when_it_is_full() -> None:
    assert played(every(5, 7)).batches() == [[1, 2, 3], [4, 5, 6], [7]]
    assert played(every(5, 7), in_batches(60, 3)).batches() == [[1, 2, 3], [4, 5, 6], [7]]


def test_a_batch_lands_when_it_closes_in_the_folder_of_the_minute_in_which_it_was_opened() -> None:
    zone = played(every(20, 4), in_batches(30))
    assert [(at - NOW, ids(ticks)) for at, _, ticks in zone.landed] == [(30 * SECOND, [1, 2]), (70 * SECOND, [3, 4])]
    assert [folder for _, folder, _ in zone.landed] == [NOW.replace(second=0, microsecond=0) + minute * MINUTE for minute in (0, 0)]
    assert [folder.minute for _, folder, _ in played(every(20, 9), in_batches(30)).landed] == [30, 30, 31, 32, 32]


def test_a_full_batch_lands_with_its_last_trade() -> None:
    zone = played(every(1, 6), in_batches(rows=3))
    assert [at - NOW for at, _, _ in zone.landed] == [2 * SECOND, 5 * SECOND]


def test_a_batch_lands_in_time_although_no_trade_follows_for_hours() -> None:
    ticks = pa.concat_tables([every(1, 3), every(1, 3, start=NOON + timedelta(hours=5), first_id=4)])
    zone = played(ticks)
    assert [(at - NOW, ids(ticks)) for at, _, ticks in zone.landed] == [
        (15 * SECOND, [1, 2, 3]),
        (timedelta(hours=5) + 15 * SECOND, [4, 5, 6]),
    ]


def test_a_late_trade_is_in_the_batch_that_is_open_when_it_arrives() -> None:
    late = table([trade(1, NOON), trade(2, NOON + 16 * SECOND), trade(3, NOON + 14 * SECOND), trade(4, NOON + 17 * SECOND)])
    assert played(late).batches() == [[1], [2, 3, 4]]


steps = st.lists(st.one_of(st.integers(0, 10**6), st.integers(0, 10**9), st.integers(-(10**6), 0)), min_size=1, max_size=40)


@hypothesis_settings(max_examples=60)
@given(
    steps, st.lists(st.integers(0, 12), max_size=5), st.floats(1, 1e5), st.floats(0.01, 100), st.integers(1, 10), st.floats(0, 7200),
    st.one_of(st.none(), st.floats(0, 3600)),
)  # fmt: skip
def test_every_play_lands_a_complete_beginning_in_time_and_never_ahead(
    steps: list[int], lengths: list[int], speed: float, seconds: float, rows: int, ended: float, ends: float | None
) -> None:
    times = [NOON + timedelta(microseconds=int(us)) for us in np.cumsum(steps)]
    ticks = table([trade(i, at) for i, at in enumerate(times)])
    newest = NewestTick(NOW - timedelta(seconds=ended), 1_000)
    limits = BatchLimits(seconds, rows)
    made = plan_play(survey("trades", lambda: pieces(ticks, lengths)), newest, NOW, PlayOptions(speed, limits=limits))
    clock = JumpingClock(end=None if ends is None else NOW + timedelta(seconds=ends))
    zone = WatchedZone(clock)
    play(zone, FEED, made, clock)
    expected = shifted(ticks, made.shift, 1_001)
    found = zone.ticks() if zone.landed else expected.slice(0, 0)
    assert found.equals(expected.slice(0, len(found)))  # what landed is the beginning, whole
    assert made.start > newest.time
    if ends is None:
        assert len(found) == len(expected)
    else:
        rest = expected.slice(len(found))["event_time"].to_pylist()
        assert all(time > made.event_clock(clock.now()) for time in rest[:1])
    arrived = made.start
    for at, folder, batch in zone.landed:
        received = batch["event_time"].to_pylist()
        opened, arrived = max(arrived, received[0]), max(arrived, *received)
        assert arrived <= made.event_clock(at) <= at
        assert folder == opened.replace(second=0, microsecond=0)
        assert len(received) <= rows
        assert arrived - opened < max(timedelta(seconds=seconds), timedelta(microseconds=1))
        assert ends is not None or len(received) == rows or made.event_clock(at) >= opened + timedelta(seconds=seconds) - SECOND / 1e5


def test_a_play_ends_after_its_minutes_and_lands_the_open_batch() -> None:
    zone = played(every(10, 100), PlayOptions(minutes=1))
    assert zone.batches() == [[1, 2], [3, 4], [5, 6], [7]]
    assert zone.clock.now() == NOW + MINUTE


def test_an_interrupted_play_lands_what_the_event_clock_has_reached() -> None:
    zone = played(every(10, 100), PlayOptions(10), end=NOW + 5.25 * SECOND)
    assert zone.batches() == [[1, 2], [3, 4], [5, 6]]
    assert zone.clock.now() == NOW + 5.25 * SECOND


def test_a_play_that_is_too_slow_lands_as_fast_as_it_can_and_says_so() -> None:
    ticks = every(5, 720)
    clock = JumpingClock()
    zone = WatchedZone(clock, seconds=1)
    reported: list[str] = []
    play(zone, FEED, planned(ticks, PlayOptions(60)), clock, report=lambda progress: reported.append(str(progress)))
    assert ids(zone.ticks()) == list(range(1, 721))
    assert clock.now() - NOW > 4 * MINUTE  # 240 objects of a second each; it should have been a minute
    assert any("s behind: as fast as this machine can" in text for text in reported)


def test_progress_is_one_line() -> None:
    progress = PlayProgress(planned(every(60, 1441), PlayOptions(60)), NOW + MINUTE, Landed(240, 5_000), NOW - DAY + 84 * MINUTE)
    assert str(progress) == "slice 04-30 10:50, 240 objects, 5,000 ticks; event clock 10:54:12, now 09:31:12, 60x"
