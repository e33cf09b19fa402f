"""More than one machine: a backfill fans out over workers, some of which are killed, and its result is exact.

`make workers` is the long form, which also cancels runs and stops workers: WORKERS_DAYS days of WORKERS_TICKS trades, and WORKERS_KILLS
kills at moments drawn from WORKERS_SEED.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pyarrow as pa
import pytest

from btc_assets.domain.slices import DAY, Window, parse_time
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.orchestration.partitions import RANGE_START_TAG
from btc_assets.simulation.generate_day import generate_day
from btc_assets.simulation.trade_table import FirstTrade
from btc_assets_tests.support.dagster_private import BACKFILL_ID_TAG, NOT_FINISHED_STATUSES, WILL_RETRY_TAG, BulkActionStatus, WorkerStatus
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for

redis = pytest.importorskip("redis", reason="workers need btc-assets[workers]")
pytest.importorskip("dagster_celery", reason="workers need btc-assets[workers]")

from btc_assets_tests.support.fleet import ActiveRun, Fleet, WriterCount, running_fleet, running_redis  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("workers"),
    pytest.mark.filterwarnings("ignore:Task name"),  # dagster-celery makes its task anew for every run
]

DAYS = int(os.environ.get("WORKERS_DAYS", "1"))
LONG = DAYS > 1
SLICES_PER_RUN = 288 if LONG else 72
KILLS = int(os.environ.get("WORKERS_KILLS", "1"))
TICKS = int(os.environ.get("WORKERS_TICKS", "4000"))  # a day
SEED = int(os.environ.get("WORKERS_SEED") or random.randrange(1_000_000))
WORKERS, LIMIT = 3, 2  # one more than may write at once
START = parse_time("2024-01-10")


@pytest.fixture
def broker(store: StoreUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a Redis, which the settings of this process and its children name."""
    if shutil.which("redis-server") is None:
        message = "workers need Debian's package redis-server"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with running_redis(tmp_path) as url:
        monkeypatch.setenv("BTC_ASSETS_WORKERS_BROKER", url)
        monkeypatch.setenv("BTC_ASSETS_BACKFILL_SLICES_PER_RUN", str(SLICES_PER_RUN))
        yield url


# ---- the result

_SLICES_QUERY = """
SELECT bucket_5m, count(*), min(trade_id), max(trade_id), sum(trade_id), sum(price), sum(quantity), sum((extract(epoch FROM event_time) * 1000000)::bigint)
FROM market_data.btc_ticks GROUP BY bucket_5m ORDER BY bucket_5m
"""

_CANDLES_QUERY = """
SELECT date_bin(%(width)s, trade_time, '2000-01-01Z'), (array_agg(price ORDER BY trade_id))[1], max(price), min(price),
       (array_agg(price ORDER BY trade_id DESC))[1], sum(quantity), count(*)
FROM market_data.btc_ticks GROUP BY 1 ORDER BY 1
"""


def summarize_slices(ticks: pa.Table) -> list[tuple[object, ...]]:
    """The result that `_SLICES_QUERY` must have for these ticks."""
    ticks = ticks.append_column("epoch", ticks["event_time"].cast(pa.int64()))
    figures = [("trade_id", how) for how in ("count", "min", "max", "sum")] + [(name, "sum") for name in ("price", "quantity", "epoch")]
    return [tuple(row.values()) for row in ticks.group_by("bucket_5m").aggregate(figures).sort_by("bucket_5m").to_pylist()]


def assert_exact(store: StoreUnderTest, landed: pa.Table, window: Window) -> None:
    """The table holds each trade that landed, once; candles, registry and offsets agree with it, and nothing is due."""
    found = store.rows(_SLICES_QUERY)
    expected = summarize_slices(landed)
    assert [row[:5] for row in found] == [row[:5] for row in expected]
    assert [row[5:] for row in found] == [row[5:] for row in expected]
    for interval, width in (("1m", "1 minute"), ("1h", "1 hour"), ("1d", "1 day")):
        candles = store.rows(
            f"SELECT bucket, open, high, low, close, volume, trade_count FROM market_data.candles_{interval} ORDER BY bucket"
        )
        assert candles == store.connection.execute(_CANDLES_QUERY, {"width": width}).fetchall(), interval
    assert store.rows(
        "SELECT count(DISTINCT uri), bool_and(status = 'registered' AND loaded_at IS NOT NULL), sum(loaded_rows) FROM landing.raw_blobs_5m"
    ) == [(len(store.uris()), True, len(landed))]
    last = landed.sort_by("trade_id").slice(len(landed) - 1).to_pylist()[0]
    offset = "SELECT last_sequence, last_ts FROM ingestion.stream_offsets WHERE source = 'market_data.btc_ticks/BTCUSDT'"
    assert store.rows(offset) == [(last["trade_id"], last["event_time"])]
    with store.connect() as connection:
        assert not reconcile(
            connection, store.zone(), FEEDS, window, datetime.now(UTC), ReconcileOptions(min_object_age=timedelta(0))
        ).counts


# ---- a backfill


def kill_a_worker(fleet: Fleet, kills: Counter[str], chance: random.Random) -> None:
    """Wait until workers execute runs, and a random time longer; then kill one of those that were killed least often, with its run."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert time.monotonic() < deadline, f"no worker executes a run: {fleet.daemon.log.read_text()[-3000:]}"
        time.sleep(chance.uniform(0.1, 2))
        active = fleet.active_runs()
        candidates = [name for name in active if kills[name] == min(kills[each] for each in active)]
        if not candidates:
            continue
        name = chance.choice(candidates)
        if chance.random() < 0.25:
            print(f"{name}: the process of its run is killed")
            os.kill(active[name].pid, signal.SIGKILL)
        else:
            print(f"{name} is killed, and starts again")
            fleet.workers[name].kill()
            fleet.start_worker(name)
        if not fleet.read_run(active[name].run_id).is_success:  # else it had just ended, and the kill was none
            kills[name] += 1
            return


@contextmanager
def writing_blocked(store: StoreUnderTest) -> Iterator[None]:
    """Runs that write ticks wait for a lock until the end of the block."""
    with store.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE market_data.btc_ticks IN SHARE MODE")
        yield


def all_ranges_succeeded(instance: dg.DagsterInstance, backfill: str) -> bool:
    """Whether every range of a backfill has a run that succeeded; the test fails once a run has failed that is not started again."""
    runs = instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill}))
    for run in runs:
        if run.is_failure and run.tags.get(WILL_RETRY_TAG) == "false":
            events = [entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)]
            pytest.fail(f"{run.run_id} failed for good: {[event.step_failure_data.error for event in events if event]}")
    ranges = {run.tags[RANGE_START_TAG] for run in runs}
    return bool(runs) and ranges == {run.tags[RANGE_START_TAG] for run in runs if run.is_success}


def nothing_is_due(instance: dg.DagsterInstance, store: StoreUnderTest) -> bool:
    """Whether no run is queued or in progress, those of sensors included, and no slice is due."""
    return not instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)) and not store.rows("SELECT FROM ingestion.due_slices")


def test_a_backfill_whose_workers_are_killed_ends_exact_and_within_the_limit_of_writers(
    store: StoreUnderTest, broker: str, tmp_path: Path
) -> None:
    chance, kills = random.Random(SEED), Counter[str]()
    print(f"\nWORKERS_SEED={SEED}: {DAYS} days of {TICKS:,} trades, {WORKERS} workers, at most {LIMIT} write at once, {KILLS} kills")
    days = [
        pa.concat_tables(generate_day(START + n * DAY, TICKS, seed=n + 1, first=FirstTrade(trade_id=1 + n * TICKS))) for n in range(DAYS)
    ]
    store.land(*days, seconds=15 if TICKS > 50_000 else 300)
    window = Window(START, START + DAYS * DAY)
    # Several kills may hit the same run more often than the default number of retries allows.
    with running_fleet(tmp_path, store, retries=max(2, KILLS)) as fleet, WriterCount(store.dsn) as writers:
        for number in range(WORKERS):
            fleet.start_worker(f"w{number}")
        began = time.monotonic()
        chain = store.definitions.resolve_job_def("ingest").asset_layer.executable_asset_keys
        backfill = fleet.request_backfill(chain, window)
        fleet.start_daemon()
        for _ in range(KILLS):
            with nullcontext() if LONG else writing_blocked(store):  # a quick machine ends the short form before any kill
                kill_a_worker(fleet, kills, chance)
            assert not all_ranges_succeeded(fleet.instance, backfill), "the backfill ended before all kills: increase WORKERS_DAYS"
        wait_for(
            lambda: all_ranges_succeeded(fleet.instance, backfill),
            "each range of the backfill has succeeded",
            seconds=PATIENCE_SECONDS * DAYS,
        )
        seconds = time.monotonic() - began
        runs = fleet.instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill}))
        lost = [run for run in runs if not run.is_success]
        assert len(runs) == len(window) // SLICES_PER_RUN + len(lost) and 1 <= len(lost) <= KILLS
        wait_for(lambda: nothing_is_due(fleet.instance, store), "no run is in progress and nothing is due")
        if LONG:  # Dagster looks at its backfills every 30 seconds
            wait_for(lambda: fleet.read_backfill(backfill).status == BulkActionStatus.COMPLETED_SUCCESS, "the backfill is complete")
    print(
        f"{seconds:.0f} s; {len(runs)} runs, of which {len(lost)} were lost with their workers ({dict(kills)}); "
        f"at most {writers.most_writers} sessions wrote at once, for at most {writers.most_runs} runs, in {writers.samples:,} samples"
    )
    assert writers.most_runs == LIMIT
    assert writers.most_writers <= LIMIT * store.settings.writers
    assert_exact(store, pa.concat_tables(days), window)


# ---- one run


@contextmanager
def candles_blocked(store: StoreUnderTest) -> Iterator[Window]:
    """An hour of ticks; a lock keeps its candles from being refreshed until the end of the block."""
    store.land(every(10, 360))
    store.register(HOUR)
    store.load(HOUR)
    with store.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE ingestion.due_slices IN ACCESS EXCLUSIVE MODE")
        yield HOUR


def start_run(fleet: Fleet, worker: str, window: Window) -> tuple[dg.DagsterRun, ActiveRun]:
    """Launch a run that waits for a lock, and wait until the worker executes it."""
    run = fleet.launch("rebuild_candles", window)
    active: dict[str, ActiveRun] = {}

    def executes_the_run() -> bool:
        active.update(fleet.active_runs())
        return worker in active

    wait_for(executes_the_run, "the worker executes the run")
    return fleet.read_run(run), active[worker]


def test_a_run_is_healthy_while_a_worker_reports_it_and_lost_once_none_does(store: StoreUnderTest, broker: str, tmp_path: Path) -> None:
    with running_fleet(tmp_path, store) as fleet, candles_blocked(store) as blocked:
        fleet.start_worker("w")

        def health() -> WorkerStatus:
            return fleet.launcher.check_run_worker_health(run).status

        run, _ = start_run(fleet, "w", blocked)
        assert health() == WorkerStatus.RUNNING
        redis.from_url(broker).flushall()  # a broker that restarts loses Celery's record of the task
        assert health() == WorkerStatus.RUNNING
        fleet.workers["w"].kill()
        fleet.start_worker("w")  # under the same name
        wait_for(lambda: fleet.launcher.celery.control.ping(timeout=1), "the worker is up again")
        assert health() == WorkerStatus.NOT_FOUND


@pytest.mark.skipif(not LONG, reason="make workers")
def test_a_run_that_a_person_terminates_is_canceled_and_not_started_again(store: StoreUnderTest, broker: str, tmp_path: Path) -> None:
    with running_fleet(tmp_path, store) as fleet, candles_blocked(store) as blocked:
        fleet.start_worker("w")
        run, active = start_run(fleet, "w", blocked)
        assert fleet.launcher.terminate(run.run_id)
        wait_for(lambda: not psutil.pid_exists(active.pid), "the process of the run has ended")
        ended = fleet.read_run(run.run_id)
        assert ended.status == dg.DagsterRunStatus.CANCELED and ended.tags.get(WILL_RETRY_TAG) != "true"
        assert not fleet.launcher.terminate(run.run_id)


@pytest.mark.skipif(not LONG, reason="make workers")
def test_a_worker_that_is_told_to_stop_finishes_its_run_first(store: StoreUnderTest, broker: str, tmp_path: Path) -> None:
    with running_fleet(tmp_path, store) as fleet:
        fleet.start_worker("w")
        with candles_blocked(store) as blocked:
            run, _ = start_run(fleet, "w", blocked)
            fleet.workers["w"].terminate()
            wait_for(lambda: fleet.workers["w"].has_printed("Warm shutdown"), "the worker has received the signal")
            assert not fleet.read_run(run.run_id).is_finished
        wait_for(lambda: not fleet.workers["w"].alive, "the worker has ended")
        assert fleet.read_run(run.run_id).is_success
    assert store.rows("SELECT count(*) FROM market_data.candles_1m") == [(60,)]
