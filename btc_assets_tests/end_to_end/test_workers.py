"""More than one machine: a backfill fans out over workers, of which some are killed, and what comes out is exact.

`make workers` is the same, longer, and tries what else may become of a run: WORKERS_DAYS days of WORKERS_TICKS trades, WORKERS_KILLS
kills, drawn from WORKERS_SEED.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pyarrow as pa
import pytest
import yaml
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import BACKFILL_ID_TAG, WILL_RETRY_TAG

from btc_assets.definitions import defs
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import settings
from btc_assets.domain.slices import DAY, Window, parse_time
from btc_assets.ops.reconcile import reconcile
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.partitions import RANGE_START_TAG
from btc_assets.simulation.generate import generate_day
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every

redis = pytest.importorskip("redis", reason="workers need btc-assets[workers]")
pytest.importorskip("dagster_celery", reason="workers need btc-assets[workers]")

from btc_assets.orchestration.workers import broker as broker_url  # noqa: E402
from btc_assets.orchestration.workers import work  # noqa: E402
from btc_assets_tests.support.fleet import Carried, Fleet, Writers, running_fleet, running_redis, wait_for  # noqa: E402

pytestmark = [
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
CHAIN = defs.resolve_job_def("ingest").asset_layer.executable_asset_keys


@pytest.fixture
def broker(store: StoreUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a Redis; the settings of this process, and of all that it starts, name it."""
    if shutil.which("redis-server") is None:
        message = "workers need Debian's package redis-server"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with running_redis(tmp_path) as url:
        monkeypatch.setenv("BTC_ASSETS_WORKERS_BROKER", url)
        monkeypatch.setenv("BTC_ASSETS_BACKFILL_SLICES_PER_RUN", str(SLICES_PER_RUN))
        settings.cache_clear()
        yield url


# ---- what comes out

_OF_SLICES = """
SELECT bucket_5m, count(*), min(trade_id), max(trade_id), sum(trade_id), sum(price), sum(quantity), sum((extract(epoch FROM event_time) * 1000000)::bigint)
FROM market_data.btc_ticks GROUP BY bucket_5m ORDER BY bucket_5m
"""

_CANDLES = """
SELECT date_bin(%(width)s, trade_time, '2000-01-01Z'), (array_agg(price ORDER BY trade_id))[1], max(price), min(price),
       (array_agg(price ORDER BY trade_id DESC))[1], sum(quantity), count(*)
FROM market_data.btc_ticks GROUP BY 1 ORDER BY 1
"""


def of_slices(ticks: pa.Table) -> list[tuple[object, ...]]:
    """What `_OF_SLICES` has of these ticks."""
    ticks = ticks.append_column("epoch", ticks["event_time"].cast(pa.int64()))
    figures = [("trade_id", how) for how in ("count", "min", "max", "sum")] + [(name, "sum") for name in ("price", "quantity", "epoch")]
    return [tuple(row.values()) for row in ticks.group_by("bucket_5m").aggregate(figures).sort_by("bucket_5m").to_pylist()]


def assert_exact(store: StoreUnderTest, landed: pa.Table, window: Window) -> None:
    """The table holds what landed, each trade once; candles are those of the table; registry and offsets know of it, and nothing is left to do."""
    found = store.rows(_OF_SLICES)
    expected = of_slices(landed)
    assert [row[:5] for row in found] == [row[:5] for row in expected]
    assert [row[5:] for row in found] == [row[5:] for row in expected]
    for interval, width in (("1m", "1 minute"), ("1h", "1 hour"), ("1d", "1 day")):
        made = store.rows(f"SELECT bucket, open, high, low, close, volume, trade_count FROM market_data.candles_{interval} ORDER BY bucket")
        assert made == store.connection.execute(_CANDLES, {"width": width}).fetchall(), interval
    assert store.rows(
        "SELECT count(DISTINCT uri), bool_and(status = 'registered' AND loaded_at IS NOT NULL), sum(loaded_rows) FROM landing.raw_blobs_5m"
    ) == [(len(store.uris()), True, len(landed))]
    last = landed.sort_by("trade_id").slice(len(landed) - 1).to_pylist()[0]
    offset = "SELECT last_sequence, last_ts FROM ingestion.stream_offsets WHERE source = 'market_data.btc_ticks/BTCUSDT'"
    assert store.rows(offset) == [(last["trade_id"], last["event_time"])]
    with store.connect() as connection:
        assert not reconcile(connection, store.zone(), FEEDS, window, datetime.now(UTC), settled=timedelta(0)).counts


# ---- a backfill


def kill_somebody(fleet: Fleet, kills: Counter[str], chance: random.Random) -> None:
    """Wait until workers have runs in hand, and some time more; then kill one of those that were killed least."""
    deadline = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline, f"no worker has a run in hand: {fleet.daemon.log.read_text()[-3000:]}"
        time.sleep(chance.uniform(0.1, 2))
        carried = fleet.carried()
        if least := [name for name in carried if kills[name] == min(kills[each] for each in carried)]:
            break
    name = chance.choice(least)
    kills[name] += 1
    if chance.random() < 0.25:
        print(f"{name}: the process of its run is killed")
        os.kill(carried[name].pid, signal.SIGKILL)
    else:
        print(f"{name} is killed, and starts again")
        fleet.workers[name].kill()
        fleet.start_worker(name)


def have_ended(instance: dg.DagsterInstance, backfill: str) -> bool:
    """Whether every range of a backfill has a run that succeeded."""
    runs = instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill}))
    ranges = {run.tags[RANGE_START_TAG] for run in runs}
    return bool(runs) and ranges == {run.tags[RANGE_START_TAG] for run in runs if run.is_success}


def nothing_is_left(instance: dg.DagsterInstance, store: StoreUnderTest) -> bool:
    """Whether no run is waiting or under way, of the sensors' neither, and nothing due."""
    return not instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)) and not store.rows("SELECT FROM ingestion.due_slices")


def test_a_backfill_whose_workers_are_killed_ends_by_itself_exact_and_with_no_more_writers_than_allowed(
    store: StoreUnderTest, broker: str, tmp_path: Path
) -> None:
    chance, kills = random.Random(SEED), Counter[str]()
    print(f"\nWORKERS_SEED={SEED}: {DAYS} days of {TICKS:,} trades, {WORKERS} workers, {LIMIT} of them may write, {KILLS} kills")
    days = [pa.concat_tables(generate_day(START + n * DAY, TICKS, seed=n + 1, first_trade_id=1 + n * TICKS)) for n in range(DAYS)]
    store.land(*days, seconds=15 if TICKS > 50_000 else 300)
    window = Window(START, START + DAYS * DAY)
    # Of several kills more than two may hit the same run, and none of them is the run's fault.
    with running_fleet(tmp_path, retries=max(2, KILLS)) as fleet, Writers(store.dsn) as writers:
        for number in range(WORKERS):
            fleet.start_worker(f"w{number}")
        began = time.monotonic()
        backfill = fleet.backfill(CHAIN, window)
        fleet.start_daemon()
        for _ in range(KILLS):
            kill_somebody(fleet, kills, chance)
            assert not have_ended(fleet.instance, backfill), "it ended before all kills: give it more WORKERS_DAYS"
        wait_for("all runs have ended", lambda: have_ended(fleet.instance, backfill), 120 * DAYS)
        seconds = time.monotonic() - began
        runs = fleet.instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill}))
        lost = [run for run in runs if not run.is_success]
        assert len(runs) == len(window) // SLICES_PER_RUN + len(lost) and 1 <= len(lost) <= KILLS
        wait_for("sensors, too, find nothing to do", lambda: nothing_is_left(fleet.instance, store), 120)
        if LONG:  # Dagster looks at its backfills every 30 seconds
            wait_for("the backfill ends", lambda: fleet.state(backfill).status == BulkActionStatus.COMPLETED_SUCCESS, 90)
    print(
        f"{seconds:.0f} s; {len(runs)} runs, of which {len(lost)} were lost with their workers ({dict(kills)}); "
        f"at most {writers.most_writers} sessions that wrote and {writers.most_runs} runs at once in {writers.looks:,} looks"
    )
    assert writers.most_runs == LIMIT
    assert writers.most_writers <= LIMIT * settings().writers
    assert_exact(store, pa.concat_tables(days), window)


# ---- one run, and what becomes of it


@contextmanager
def candles_blocked(store: StoreUnderTest) -> Iterator[Window]:
    """An hour of ticks whose candles cannot be made meanwhile."""
    store.land(every(10, 360))
    store.register(HOUR)
    store.load(HOUR)
    with store.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE ingestion.due_slices IN ACCESS EXCLUSIVE MODE")
        yield HOUR


def under_way(fleet: Fleet, worker: str, window: Window) -> tuple[dg.DagsterRun, Carried]:
    """A run in a worker's hands that waits for a lock."""
    run = fleet.launch(defs.resolve_job_def("rebuild_candles"), window)
    wait_for("the run is under way", lambda: fleet.carried().get(worker), 60)
    return fleet.run(run), fleet.carried()[worker]


def test_a_run_is_well_while_a_worker_has_it_in_hand_and_lost_once_none_has(store: StoreUnderTest, broker: str, tmp_path: Path) -> None:
    with running_fleet(tmp_path) as fleet, candles_blocked(store) as blocked:
        fleet.start_worker("w")

        def health() -> WorkerStatus:
            return fleet.launcher.check_run_worker_health(run).status

        run, _ = under_way(fleet, "w", blocked)
        assert health() == WorkerStatus.RUNNING
        redis.from_url(broker).flushall()  # what Celery knew of it is lost with a broker that kept it in memory alone
        assert health() == WorkerStatus.RUNNING
        fleet.workers["w"].kill()
        fleet.start_worker("w")  # who answers to the same name
        wait_for("it is up again", lambda: fleet.launcher.celery.control.ping(timeout=1), 60)
        assert health() == WorkerStatus.NOT_FOUND


@pytest.mark.skipif(not LONG, reason="make workers")
def test_a_run_that_a_person_ends_on_a_worker_is_canceled_and_not_started_again(store: StoreUnderTest, broker: str, tmp_path: Path) -> None:
    with running_fleet(tmp_path) as fleet, candles_blocked(store) as blocked:
        fleet.start_worker("w")
        run, carried = under_way(fleet, "w", blocked)
        assert fleet.launcher.terminate(run.run_id)
        wait_for("the worker drops it", lambda: not psutil.pid_exists(carried.pid), 30)
        ended = fleet.run(run.run_id)
        assert ended.status == dg.DagsterRunStatus.CANCELED and ended.tags.get(WILL_RETRY_TAG) != "true"
        assert not fleet.launcher.terminate(run.run_id)


@pytest.mark.skipif(not LONG, reason="make workers")
def test_a_worker_that_is_told_to_stop_carries_what_it_has_in_hand_to_the_end(store: StoreUnderTest, broker: str, tmp_path: Path) -> None:
    with running_fleet(tmp_path) as fleet:
        fleet.start_worker("w")
        with candles_blocked(store) as blocked:
            run, _ = under_way(fleet, "w", blocked)
            fleet.workers["w"].tell_to_stop()
            wait_for("it heard", lambda: fleet.workers["w"].said("Warm shutdown"), 10)
            assert not fleet.run(run.run_id).is_finished
        wait_for("it ends", lambda: not fleet.workers["w"].alive, 60)
        assert fleet.run(run.run_id).is_success
    assert store.rows("SELECT count(*) FROM market_data.candles_1m") == [(60,)]


# ---- settings


def test_without_a_broker_runs_are_processes_of_the_code_location(store: StoreUnderTest) -> None:
    prepare_dagster_home()
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_launcher) is dg.DefaultRunLauncher


def test_a_worker_whose_dagster_yaml_knows_of_no_workers_says_what_to_do(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    home = prepare_dagster_home()
    config = yaml.safe_load((home / "dagster.yaml").read_text())
    del config["run_launcher"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"dagster\.yaml in .* starts runs without workers: give it the section `run_launcher`"):
        work("w", 1)


def test_a_worker_without_a_broker_says_what_to_set(store: StoreUnderTest) -> None:
    with pytest.raises(UserError, match="set BTC_ASSETS_WORKERS_BROKER"):
        broker_url()
