"""A play lands trades as the collector would: whole, in order, when their time has come, and never ahead of the present."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.cli.main import main
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE, Window, floor_slice
from btc_assets.domain.ticks import int64
from btc_assets.ingestion.offsets import rewind_listing
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.live import Playing, SliceLog, WallClock, play
from btc_assets.simulation.live_plan import Newest, Plan, newest_tick, plan, prepare, record, survey
from btc_assets.simulation.replay import Landed, encode_batch
from btc_assets_tests.simulation.test_replay import decoded, ids
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import NOON, every, table, trade

NOW = datetime(2024, 5, 1, 9, 30, 12, 345_000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class JumpingClock:
    """A wall clock on which waiting takes no time; whoever waits at `end` is told to end."""

    def __init__(self, now: datetime = NOW, end: datetime | None = None) -> None:
        self._now, self._end = now, end

    def now(self) -> datetime:
        return self._now

    def wait(self, seconds: float) -> bool:
        self._now += timedelta(seconds=seconds)
        if self._end and self._now >= self._end:
            self._now = self._end
            return True
        return False


class WatchedZone(LandingZone):
    """A landing zone in memory that notes when each object lands; on a slow one, each takes some time of the clock."""

    def __init__(self, clock: JumpingClock, seconds: float = 0) -> None:
        super().__init__(f"memory:///{uuid.uuid4().hex}", concurrency=1)
        self.clock, self.seconds = clock, seconds
        self.landed: list[tuple[datetime, datetime, pa.Table]] = []  # wall clock, folder, trades

    def put(self, path: str, data: bytes) -> str:
        self.clock.wait(self.seconds)
        folder = datetime.strptime(path.removeprefix(f"{FEED.prefix}/")[:16], "%Y/%m/%d/%H/%M").replace(tzinfo=UTC)
        self.landed.append((self.clock.now(), folder, decoded(data)))
        return super().put(path, data)

    def ticks(self) -> pa.Table:
        return pa.concat_tables([ticks for _, _, ticks in self.landed])

    def batches(self) -> list[list[int]]:
        return [ids(ticks) for _, _, ticks in self.landed]


def planned(ticks: pa.Table, *, speed: float = 1, newest: Newest | None = None) -> Plan:
    return plan(survey("trades", lambda: iter([ticks])), newest, NOW, speed)


def played(
    ticks: pa.Table, *, speed: float = 1, newest: Newest | None = None, end: datetime | None = None, **options: object
) -> WatchedZone:
    zone = WatchedZone(JumpingClock(end=end))
    play(zone, FEED, planned(ticks, speed=speed, newest=newest), zone.clock, **options)  # type: ignore[arg-type]
    return zone


def shifted(ticks: pa.Table, by: timedelta, ids: int = 0) -> pa.Table:
    rows = ticks.to_pylist()
    for row in rows:
        row |= {"event_time": row["event_time"] + by, "trade_time": row["trade_time"] + by, "trade_id": row["trade_id"] + ids}
        row["bucket_5m"] = floor_slice(row["event_time"])
    return table(rows)


# ---- when trades are played


def test_at_speed_one_trades_are_made_from_now_on() -> None:
    made = planned(every(1, 3600))
    assert made.start == NOW
    assert made.present_after == timedelta()
    assert [made.event_clock(NOW + seconds * SECOND) - NOW for seconds in (0, 1, 100)] == [0 * SECOND, SECOND, 100 * SECOND]


def test_a_day_at_60x_fills_the_last_24_hours_in_24_minutes() -> None:
    made = planned(every(60, 1441), speed=60)
    assert made.start == NOW - DAY + 24 * MINUTE
    assert made.present_after == 24 * MINUTE
    assert made.event_clock(NOW + 12 * MINUTE) == NOW - DAY / 2 + 24 * MINUTE
    assert made.event_clock(NOW + 24 * MINUTE) == NOW + 24 * MINUTE


def test_a_play_that_has_caught_up_goes_on_in_real_time() -> None:
    ended = NOW - 59 * MINUTE
    made = planned(every(60, 1441), speed=60, newest=Newest(ended, 7))
    assert made.start == ended + timedelta(milliseconds=1)
    assert MINUTE - SECOND < made.present_after < MINUTE + SECOND
    for after in (MINUTE, 2 * MINUTE, timedelta(hours=3)):
        assert abs(made.event_clock(NOW + after) - (NOW + after)) < SECOND / 100
    assert made.reached(NOW + timedelta(hours=1)) == NOW + timedelta(hours=1)


def test_a_play_never_begins_before_the_store_s_partitions() -> None:
    recording = survey("trades", lambda: iter([every(60, 1441)]))
    assert plan(recording, None, NOW, 60, not_before=NOW - 2 * MINUTE).start == NOW - 2 * MINUTE


def test_times_are_shifted_by_whole_milliseconds() -> None:
    first = NOON + timedelta(microseconds=123_456)
    made = planned(table([trade(1, first, made=first - timedelta(microseconds=7))]))
    assert timedelta() <= made.start - NOW < timedelta(milliseconds=1)
    (tick,) = next(made.tables()).to_pylist()
    assert (tick["event_time"] - first) % timedelta(milliseconds=1) == timedelta()
    assert tick["event_time"] - tick["trade_time"] == timedelta(microseconds=7)


def test_nothing_follows_on_a_store_that_ends_in_the_future() -> None:
    with pytest.raises(UserError, match=r"^The store's newest trade is of 2024-05-02 .*, which lies in the future"):
        planned(every(1, 3), newest=Newest(NOW + DAY, 1))


def test_the_plan_is_told_in_a_sentence() -> None:
    made = planned(every(60, 1441), speed=60)
    assert made.describe("file:///landing/Binance/BTCUSDT") == (
        "Playing 1,441 trades of trades into file:///landing/Binance/BTCUSDT from 2024-04-30 09:54 at 60x; "
        "it reaches the present after 24 minutes. Ctrl-C ends it."
    )
    assert made.describe("it", minutes=2).endswith("from 2024-04-30 09:54 at 60x. It ends after 2 minutes. Ctrl-C ends it.")
    assert planned(every(1, 9)).describe("it").endswith("from 2024-05-01 09:30 in real time. Ctrl-C ends it.")


# ---- how they land


def test_every_trade_lands_once_and_comes_back_equal_but_for_its_times() -> None:
    ticks = every(0.5, 2000)
    zone = played(ticks, speed=60)
    assert zone.ticks().equals(shifted(ticks, planned(ticks, speed=60).shift))


def test_a_batch_closes_when_its_time_is_over_and_when_it_is_full() -> None:
    assert played(every(5, 7)).batches() == [[1, 2, 3], [4, 5, 6], [7]]
    assert played(every(5, 7), batch_seconds=60, batch_rows=3).batches() == [[1, 2, 3], [4, 5, 6], [7]]


def test_a_batch_lands_when_it_closes_in_the_folder_of_the_minute_in_which_it_was_opened() -> None:
    zone = played(every(20, 4), batch_seconds=30)
    assert [(at - NOW, ids(ticks)) for at, _, ticks in zone.landed] == [(30 * SECOND, [1, 2]), (70 * SECOND, [3, 4])]
    assert [folder for _, folder, _ in zone.landed] == [NOW.replace(second=0, microsecond=0) + minute * MINUTE for minute in (0, 0)]
    assert [folder.minute for _, folder, _ in played(every(20, 9), batch_seconds=30).landed] == [30, 30, 31, 32, 32]


def test_a_full_batch_lands_with_its_last_trade() -> None:
    zone = played(every(1, 6), batch_rows=3)
    assert [at - NOW for at, _, _ in zone.landed] == [2 * SECOND, 5 * SECOND]


def test_a_batch_lands_in_time_although_no_other_trade_comes_for_hours() -> None:
    ticks = pa.concat_tables([every(1, 3), every(1, 3, start=NOON + timedelta(hours=5), first_id=4)])
    zone = played(ticks)
    assert [(at - NOW, ids(ticks)) for at, _, ticks in zone.landed] == [
        (15 * SECOND, [1, 2, 3]),
        (timedelta(hours=5) + 15 * SECOND, [4, 5, 6]),
    ]


def test_a_trade_that_comes_late_is_in_the_batch_that_is_open_when_it_comes() -> None:
    late = table([trade(1, NOON), trade(2, NOON + 16 * SECOND), trade(3, NOON + 14 * SECOND), trade(4, NOON + 17 * SECOND)])
    assert played(late).batches() == [[1], [2, 3, 4]]


steps = st.lists(st.one_of(st.integers(0, 10**6), st.integers(0, 10**9), st.integers(-(10**6), 0)), min_size=1, max_size=40)


@hypothesis_settings(max_examples=60)
@given(
    steps, st.lists(st.integers(0, 12), max_size=5), st.floats(1, 1e5), st.floats(0.01, 100), st.integers(1, 10), st.floats(0, 7200),
    st.one_of(st.none(), st.floats(0, 3600)),
)  # fmt: skip
def test_whatever_is_played_is_whole_in_time_and_never_ahead(
    steps: list[int], lengths: list[int], speed: float, seconds: float, rows: int, ended: float, ends: float | None
) -> None:
    times = [NOON + timedelta(microseconds=int(us)) for us in np.cumsum(steps)]
    ticks = table([trade(i, at) for i, at in enumerate(times)])
    newest = Newest(NOW - timedelta(seconds=ended), 1_000)

    def pieces() -> Iterator[pa.Table]:
        start = 0
        for length in lengths:
            yield ticks.slice(start, length)
            start += length
        yield ticks.slice(start)

    made = plan(survey("trades", pieces), newest, NOW, speed)
    clock = JumpingClock(end=None if ends is None else NOW + timedelta(seconds=ends))
    zone = WatchedZone(clock)
    play(zone, FEED, made, clock, batch_seconds=seconds, batch_rows=rows)
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


# ---- how a play ends, and how it goes


def test_a_play_ends_after_so_many_minutes_and_lands_what_is_open() -> None:
    zone = played(every(10, 100), minutes=1)
    assert zone.batches() == [[1, 2], [3, 4], [5, 6], [7]]
    assert zone.clock.now() == NOW + MINUTE


def test_who_is_interrupted_lands_what_the_event_clock_has_reached() -> None:
    zone = played(every(10, 100), speed=10, end=NOW + 5.25 * SECOND)
    assert zone.batches() == [[1, 2], [3, 4], [5, 6]]
    assert zone.clock.now() == NOW + 5.25 * SECOND


def test_ctrl_c_ends_a_play_at_once_and_cleanly() -> None:
    zone, before = LandingZone(f"memory:///{uuid.uuid4().hex}"), signal.getsignal(signal.SIGINT)

    def press(playing: Playing) -> None:
        if playing.landed.objects >= 3:
            os.kill(os.getpid(), signal.SIGINT)

    with WallClock() as clock:
        made = plan(survey("trades", lambda: iter([every(1, 3600)])), None, clock.now(), 600)
        landed = play(zone, FEED, made, clock, tell=press)
        assert clock.now() - made.began < 5 * SECOND
        assert clock.wait(60)  # not a second longer
    assert 3 <= landed.objects < 100
    assert (landed.objects - 1) * 15 < landed.ticks <= landed.objects * 15
    assert signal.getsignal(signal.SIGINT) is before


def test_who_is_too_slow_lands_as_fast_as_it_can_and_says_so() -> None:
    ticks = every(5, 720)
    clock = JumpingClock()
    zone = WatchedZone(clock, seconds=1)
    told: list[str] = []
    play(zone, FEED, planned(ticks, speed=60), clock, tell=lambda playing: told.append(str(playing)))
    assert ids(zone.ticks()) == list(range(1, 721))
    assert clock.now() - NOW > 4 * MINUTE  # 240 objects of a second each; it should have been a minute
    assert any("s behind: as fast as this machine can" in text for text in told)


def test_how_it_goes_is_told_in_one_line() -> None:
    playing = Playing(planned(every(60, 1441), speed=60), NOW + MINUTE, Landed(240, 5_000), NOW - DAY + 84 * MINUTE)
    assert str(playing) == "slice 04-30 10:50, 240 objects, 5,000 ticks; event clock 10:54:12, now 09:31:12, 60x"


def test_the_log_has_a_line_a_slice(tmp_path: Path) -> None:
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


# ---- recordings


def test_a_generated_day_needs_no_file() -> None:
    recording = record("generated", FEED)
    assert recording.ticks == 500_000
    assert timedelta(hours=23, minutes=59) < recording.length < DAY


def test_a_file_out_of_order_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    path.write_bytes(encode_batch(pa.concat_tables([every(60, 10, first_id=11), every(60, 10)]), FEED)[1])
    with pytest.raises(UserError) as refused:
        record(str(path), FEED)
    assert str(refused.value) == (
        f"{path} is not in order of time (a trade of 2024-01-10 12:00:00+00:00 stands behind later ones): sort it by event time first."
    )


def test_rows_of_a_file_that_are_no_trades_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text("trade_id,trade_time,price,quantity,is_market_maker\n1,1704888001000,5,1,true\n2,1704888002000,-5,1,true\n")
    recording = record(str(path), FEED)
    assert (recording.ticks, recording.rejected_rows, recording.rejected) == (1, 1, ["row 2: price -5 is not above zero"])
    path.write_text("trade_id,trade_time,price,quantity,is_market_maker\n2,1704888002000,-5,1,true\n")
    with pytest.raises(UserError, match="holds no valid trade: give a file with at least one"):
        record(str(path), FEED)


# ---- where the store ends


def test_an_empty_store_has_no_end_and_keeps_the_file_s_ids(store: StoreUnderTest) -> None:
    assert newest_tick(store.connection, store.zone(), FEED) is None
    assert planned(every(1, 3)).id_shift == 0


@pytest.mark.parametrize("seen", ["nothing", "registered", "loaded", "half of it loaded"])
def test_a_play_follows_on_the_one_before_whatever_the_store_has_seen_of_it(store: StoreUnderTest, seen: str) -> None:
    ticks, at = every(1, 900, first_id=5), NOW
    store.land(every(1, 10))  # long ago
    for _ in range(3):
        with store.connect() as connection:
            made = prepare(connection, store.zone(), FEED, survey("trades", lambda: iter([ticks])), at, 5)
        play(store.zone(), FEED, made, JumpingClock(at), minutes=4)
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
        prepare(connection, store.zone(), FEED, recording, NOW, 60)
    assert position() == datetime(2024, 4, 30, 9, 54, tzinfo=UTC)
    rewind_listing(store.connection, FEED.prefix, NOW)
    assert position() == datetime(2024, 4, 30, 9, 54, tzinfo=UTC)
    rewind_listing(store.connection, FEED.prefix, NOON)
    assert position() == NOON


def test_two_plays_at_once_would_mix_and_are_refused(store: StoreUnderTest) -> None:
    recording = survey("trades", lambda: iter([every(1, 10)]))
    with store.connect() as first, store.connect() as second:
        prepare(first, store.zone(), FEED, recording, NOW, 1)
        with pytest.raises(UserError) as refused:
            prepare(second, store.zone(), FEED, recording, NOW, 1)
    assert str(refused.value) == "Another play into Binance/BTCUSDT is under way: end that one first."


def test_the_newest_minute_is_one_that_holds_an_object(store: StoreUnderTest) -> None:
    zone = store.zone()
    assert zone.newest_minute(FEED.prefix) is None
    (old, new) = store.land(every(3600, 2))
    assert zone.newest_minute(FEED.prefix) == NOON + timedelta(hours=1)
    store.delete(new)  # its directories stay
    assert zone.newest_minute(FEED.prefix) == NOON
    store.delete(old)
    assert zone.newest_minute(FEED.prefix) is None


# ---- the command


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["land", *arguments], env={"COLUMNS": "300"})


def test_a_file_is_played_from_the_command_line(store: StoreUnderTest, tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    path.write_bytes(encode_batch(every(1, 3600), FEED)[1])
    began = datetime.now(UTC)
    result = cli("--live-from", str(path), "--speed", "7200", "--minutes", "0.03", "--log", str(tmp_path / "log"))
    assert result.exit_code == 0, result.output
    first, *told, last = result.output.splitlines()
    assert first.startswith(f"Playing 3,600 trades of {path} into {store.zone().url}/Binance/BTCUSDT from ")
    assert first.endswith(" at 7200x; it reaches the present after a second. It ends after 2 seconds. Ctrl-C ends it.")
    assert told[0].startswith("slice ")
    assert last.startswith("Landed ")
    landed = [orjson.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sum(line["ticks"] for line in landed) >= 3599
    assert datetime.now(UTC) - began < timedelta(seconds=30)
    ticks = pa.concat_tables([decoded(store.zone().read(obj)[0]) for obj in store.zone().list_all(FEED.prefix)])  # type: ignore[arg-type]
    assert pc.max(ticks["event_time"]).as_py() <= datetime.now(UTC)
    assert pc.min(ticks["event_time"]).as_py() > began - timedelta(hours=1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Name one file of trades: FILE to land it at once, or --live-from FILE to play it."),
        (("a.csv", "--live-from", "b.csv"), "Name one file of trades: FILE to land it at once, or --live-from FILE to play it."),
        (("a.csv", "--speed", "60"), "--speed, --minutes and --log are for a play: name its file with --live-from."),
        (("--live-from", "none.csv"), "The trades file none.csv does not exist"),
    ],
)
def test_what_is_wrong_is_one_sentence(store: StoreUnderTest, arguments: tuple[str, ...], sentence: str) -> None:
    result = cli(*arguments)
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_a_store_that_is_not_set_up_is_one_sentence(
    store: StoreUnderTest, empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", empty_database)
    path = tmp_path / "trades.parquet"
    path.write_bytes(encode_batch(every(1, 10), FEED)[1])
    result = cli("--live-from", str(path))
    assert result.exit_code == 1
    assert "run btc-assets db migrate." in result.output
    assert not store.uris()
