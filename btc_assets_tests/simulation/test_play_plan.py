"""A play continues what the store holds, ends in the present, and never passes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, Window
from btc_assets.domain.ticks import int64
from btc_assets.ingestion.offsets import rewind_listing
from btc_assets.simulation.newest_tick import NewestTick
from btc_assets.simulation.play import play
from btc_assets.simulation.play_plan import PlayOptions, plan_play, prepare_play
from btc_assets.simulation.recordings import survey
from btc_assets_tests.support.collected import decoded, ids
from btc_assets_tests.support.plays import MINUTE, NOW, SECOND, JumpingClock, planned
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import NOON, every, table, trade

AT_60X = PlayOptions(speed=60)


def test_at_speed_one_trades_begin_now() -> None:
    made = planned(every(1, 3600))
    assert made.start == NOW
    assert made.present_after == timedelta()
    assert [made.event_clock(NOW + seconds * SECOND) - NOW for seconds in (0, 1, 100)] == [0 * SECOND, SECOND, 100 * SECOND]


def test_a_day_at_60x_fills_the_last_24_hours_in_24_minutes() -> None:
    made = planned(every(60, 1441), AT_60X)
    assert made.start == NOW - DAY + 24 * MINUTE
    assert made.present_after == 24 * MINUTE
    assert made.event_clock(NOW + 12 * MINUTE) == NOW - DAY / 2 + 24 * MINUTE
    assert made.event_clock(NOW + 24 * MINUTE) == NOW + 24 * MINUTE


def test_a_play_that_has_caught_up_continues_in_real_time() -> None:
    ended = NOW - 59 * MINUTE
    made = planned(every(60, 1441), AT_60X, newest=NewestTick(ended, 7))
    assert made.start == ended + timedelta(milliseconds=1)
    assert MINUTE - SECOND < made.present_after < MINUTE + SECOND
    for after in (MINUTE, 2 * MINUTE, timedelta(hours=3)):
        assert abs(made.event_clock(NOW + after) - (NOW + after)) < SECOND / 100
    assert made.reached(NOW + timedelta(hours=1)) == NOW + timedelta(hours=1)


def test_a_play_never_begins_before_the_partitions_of_the_store() -> None:
    recording = survey("trades", lambda: iter([every(60, 1441)]))
    assert plan_play(recording, None, NOW, PlayOptions(60, not_before=NOW - 2 * MINUTE)).start == NOW - 2 * MINUTE


def test_times_are_shifted_by_whole_milliseconds() -> None:
    first = NOON + timedelta(microseconds=123_456)
    made = planned(table([trade(1, first, made=first - timedelta(microseconds=7))]))
    assert timedelta() <= made.start - NOW < timedelta(milliseconds=1)
    (tick,) = next(made.tables()).to_pylist()
    assert (tick["event_time"] - first) % timedelta(milliseconds=1) == timedelta()
    assert tick["event_time"] - tick["trade_time"] == timedelta(microseconds=7)


def test_a_store_that_ends_in_the_future_is_refused() -> None:
    with pytest.raises(UserError, match=r"^The store's newest trade is of 2024-05-02 .*, which lies in the future"):
        planned(every(1, 3), newest=NewestTick(NOW + DAY, 1))


def test_a_plan_is_described_in_a_sentence() -> None:
    made = planned(every(60, 1441), AT_60X)
    assert made.describe("file:///landing/Binance/BTCUSDT") == (
        "Playing 1,441 trades of trades into file:///landing/Binance/BTCUSDT from 2024-04-30 09:54 at 60x; "
        "it reaches the present after 24 minutes. Ctrl-C ends it."
    )
    assert (
        planned(every(60, 1441), PlayOptions(60, minutes=2))
        .describe("it")
        .endswith("from 2024-04-30 09:54 at 60x. It ends after 2 minutes. Ctrl-C ends it.")
    )
    assert planned(every(1, 9)).describe("it").endswith("from 2024-05-01 09:30 in real time. Ctrl-C ends it.")


@pytest.mark.parametrize("seen", ["nothing", "registered", "loaded", "half of it loaded"])
def test_a_play_continues_the_one_before_whatever_the_store_has_seen_of_it(store: StoreUnderTest, seen: str) -> None:
    ticks, at = every(1, 900, first_id=5), NOW
    store.land(every(1, 10))  # long ago
    for _ in range(3):
        with store.connect() as connection:
            recording = survey("trades", lambda: iter([ticks]))
            made = prepare_play(connection, store.zone(), FEED, recording, at, PlayOptions(5, minutes=4))
        play(store.zone(), FEED, made, JumpingClock(at))
        at += 4 * MINUTE
        window = Window.covering(NOW - DAY, NOW + DAY)
        if seen == "registered":
            store.register(window)
        if seen == "loaded":
            store.ingest(window)
        if seen == "half of it loaded":
            store.ingest(Window.covering(NOW - DAY, NOW))
    objects = [store.zone().read(obj)[0] for obj in store.zone().list_all(FEED.prefix)]
    landed = pa.concat_tables([decoded(data) for data in objects if isinstance(data, bytes)]).sort_by("trade_id")
    assert ids(landed) == list(range(1, len(landed) + 1))
    assert len(landed) > 1400
    assert all(earlier <= later for earlier, later in pairwise(int64(landed["event_time"]).tolist()))
    assert pc.max(landed["event_time"]).as_py() <= at


def test_the_sensor_is_sent_back_to_where_a_play_begins_and_never_forward(store: StoreUnderTest) -> None:
    def position() -> datetime:
        return store.rows("SELECT last_ts FROM ingestion.stream_offsets WHERE source = 'landing/Binance/BTCUSDT'")[0][0]

    recording = survey("trades", lambda: iter([every(60, 1441)]))
    with store.connect() as connection:
        prepare_play(connection, store.zone(), FEED, recording, NOW, AT_60X)
    assert position() == datetime(2024, 4, 30, 9, 54, tzinfo=UTC)
    rewind_listing(store.connection, FEED.prefix, NOW)
    assert position() == datetime(2024, 4, 30, 9, 54, tzinfo=UTC)
    rewind_listing(store.connection, FEED.prefix, NOON)
    assert position() == NOON


def test_a_second_play_at_the_same_time_would_mix_and_is_refused(store: StoreUnderTest) -> None:
    recording = survey("trades", lambda: iter([every(1, 10)]))
    with store.connect() as first, store.connect() as second:
        prepare_play(first, store.zone(), FEED, recording, NOW, PlayOptions())
        with pytest.raises(UserError) as refused:
            prepare_play(second, store.zone(), FEED, recording, NOW, PlayOptions())
    assert str(refused.value) == "Another play into Binance/BTCUSDT is running: end that one first."
