"""Faults: whatever breaks, and whenever, no slice is half-loaded, the registry claims nothing false, and the retry is exact.

Every test here ends with `truth.check`. `make faults` runs the long form: FAULT_KILLS loaders are killed at moments drawn from FAULT_SEED,
and more variants of the other faults are tried. docs/faults.md lists which test covers which fault.
"""

from __future__ import annotations

import io
import os
import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.landing import objects, s3, verified_read
from btc_assets.landing.zone import LandingZone
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.simulation.batches import encode_batch
from btc_assets.store.migrations import migrate
from btc_assets_tests.support import truth
from btc_assets_tests.support.daemon import Daemon
from btc_assets_tests.support.fault_proxy import OBJECTS, Fault, FaultProxy
from btc_assets_tests.support.loader import NAME, Loader, load_range, wait_until_its_sessions_end
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.servers import Server, database_on_a_small_disk
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest, temporary_database
from btc_assets_tests.support.trades import HOUR, NOON, every, table, trade
from btc_assets_tests.support.truth import Landings
from btc_assets_tests.support.zones import StoreOnS3

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("FAULT_KILLS", "4"))
LONG = KILLS > 4
SEED = int(os.environ.get("FAULT_SEED", "1"))

# An hour of trades, one each 3 seconds, in objects of 34: each slice has three or four, and shares the outer ones.
_TRADES = 1200
_OBJECTS = [range(first, min(first + 34, _TRADES)) for first in range(0, _TRADES, 34)]


def trades(numbers: range, version: int = 0) -> pa.Table:
    """Trades by their number in the hour; every fifth is reported five seconds late. Versions differ in prices and volumes."""
    return _hour(version).slice(numbers.start, len(numbers))


@cache
def _hour(version: int) -> pa.Table:
    return table(
        [
            trade(
                number + 1,
                at := NOON + number * timedelta(seconds=3),
                made=at - timedelta(seconds=5 * (number % 5 == 0)),
                price=f"{42000 + number * 7 % 50 + 100 * version}.{number % 100:02d}",
                quantity=f"0.{number % 9 + 1}{version}",
                maker=number % 3 == 0,
            )
            for number in range(_TRADES)
        ]
    )


@pytest.fixture
def landed(on_s3: StoreOnS3, monkeypatch: pytest.MonkeyPatch) -> Landings:
    """A store that was exact with half of the objects; since then those were overwritten, and the others landed."""
    return start_again(on_s3, monkeypatch, 0)


def overwritten(store: StoreOnS3, seed: int) -> Landings:
    landed = Landings(store)
    old = random.Random(seed).sample(_OBJECTS, len(_OBJECTS) // 2)
    for numbers in old:
        landed.put(trades(numbers))
    load_range(HOUR)
    truth.check(landed)
    for numbers in _OBJECTS:
        # Some objects become shorter, and some trades land twice, with different prices.
        landed.put(trades(numbers[: 20 if numbers.start % 4 == 0 else 34], version=1))
    landed.put(trades(range(250, 450), version=2), "another-collector")
    return landed


# ---- the check itself

_FIRST = "bucket_5m = (SELECT min(bucket_5m) FROM landing.raw_blobs_5m)"
FALSE_CLAIMS = [
    "DELETE FROM market_data.btc_ticks WHERE trade_id = 377",
    "UPDATE market_data.btc_ticks SET price = price + 0.01 WHERE trade_id = 377",
    "UPDATE market_data.btc_ticks SET bucket_5m = bucket_5m + interval '5 minutes' WHERE trade_id = 377",
    "INSERT INTO market_data.btc_ticks SELECT bucket_5m, event_time, trade_time, symbol, 9999, price, quantity, NULL, NULL, true FROM market_data.btc_ticks LIMIT 1",
    "UPDATE ingestion.stream_offsets SET last_sequence = last_sequence - 1",
    "UPDATE ingestion.stream_offsets SET last_ts = last_ts + interval '1 second'",
    "DELETE FROM ingestion.stream_offsets",
    f"UPDATE landing.raw_blobs_5m SET loaded_at = NULL, loaded_rows = NULL WHERE {_FIRST}",
    f"UPDATE landing.raw_blobs_5m SET loaded_at = now(), loaded_rows = row_count WHERE {_FIRST} AND status = 'superseded'",
    f"UPDATE landing.raw_blobs_5m SET loaded_rows = loaded_rows + 1 WHERE {_FIRST} AND status = 'registered'",
    f"UPDATE landing.raw_blobs_5m SET row_count = row_count + 1 WHERE {_FIRST} AND status = 'registered'",
    f"UPDATE landing.raw_blobs_5m SET status = 'gone' WHERE {_FIRST}",
    f"UPDATE landing.raw_blobs_5m SET status = 'rejected' WHERE {_FIRST}",
    f"UPDATE landing.raw_blobs_5m SET status = 'registered' WHERE {_FIRST}",
    f"UPDATE landing.raw_blobs_5m SET etag = 'another' WHERE {_FIRST} AND status = 'registered'",
    "DELETE FROM market_data.candle_partials_1m WHERE bucket = (SELECT min(bucket) FROM market_data.candle_partials_1m)",
    "UPDATE market_data.candle_partials_1d SET close = close + 1",
]
UNDONE = [
    "UPDATE landing.raw_blobs_5m SET status = 'noticed' WHERE status = 'registered'",
    f"INSERT INTO ingestion.due_slices (asset, bucket_5m) SELECT DISTINCT 'market_data/candles_1m', bucket_5m FROM landing.raw_blobs_5m WHERE {_FIRST}",
]


def test_the_check_finds_every_false_claim_and_everything_undone(landed: Landings) -> None:
    load_range(HOUR)
    truth.check(landed)
    connection = landed.store.connection
    for statement in FALSE_CLAIMS + UNDONE:
        with connection.transaction(force_rollback=True):
            assert connection.execute(statement).rowcount
            assert truth.violations_in(connection, landed), statement
            assert bool(truth.violations_in(connection, landed, on_the_way=True)) == (statement in FALSE_CLAIMS), statement


def test_the_check_finds_a_slice_that_is_half_old_and_half_new_whatever_the_registry_says(landed: Landings) -> None:
    """A loader that committed object by object would leave such a slice."""
    load_range(HOUR)
    one = "uri = (SELECT min(uri) FROM landing.raw_blobs_5m)"
    (rows,) = landed.store.rows(f"DELETE FROM landing.raw_blobs_5m WHERE {one} AND status = 'registered' RETURNING loaded_rows")[0]
    landed.store.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id <= %s", (rows,))
    assert [sentence for sentence in truth.violations(landed, on_the_way=True) if "slice" in sentence] == [
        f"slice 12:00 is neither old nor new: 0 rows more, {rows} fewer and 0 others from the new"
    ]


def test_a_load_that_nothing_disturbs_is_exact(landed: Landings) -> None:
    assert truth.violations(landed)
    truth.check_on_the_way(landed)
    load_range(HOUR)
    truth.check(landed)


# ---- loaders and sessions that are killed


class Moments:
    """The moments at which a loader that has begun is killed."""

    def __init__(self, connection: psycopg.Connection, duration: float, chance: random.Random) -> None:
        self._connection, self._duration, self._chance = connection, duration, chance

    def at_any_time(self, loader: Loader) -> None:
        time.sleep(self._chance.uniform(0, self._duration))

    def inside_copy(self, loader: Loader) -> None:
        """The server has received some of the rows of the COPY of some part."""
        self._wait(
            loader,
            "SELECT 1 FROM pg_stat_progress_copy WHERE datname = current_database() AND tuples_processed >= %s",
            self._chance.randrange(1, 200),
        )

    def inside_commit(self, loader: Loader) -> None:
        """The loader waits for the answer to the COMMIT of some part."""
        self._wait(
            loader,
            "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND query = 'COMMIT' AND wait_event = 'PgSleep'",
            NAME,
        )

    def _wait(self, loader: Loader, condition: str, parameter: object) -> None:
        loaded = self._chance.randrange(12)
        condition += (
            " AND (SELECT count(DISTINCT bucket_5m) FROM landing.raw_blobs_5m WHERE status = 'registered' AND loaded_at IS NOT NULL) >= %s"
        )
        while loader.runs and not self._connection.execute(condition, (parameter, loaded)).fetchone():
            pass


@contextmanager
def slowly(store: StoreUnderTest) -> Iterator[None]:
    """Slow down COPY to half a second for the hour, and each COMMIT to a tenth of a second, so that a kill can hit them."""
    with store.connect() as connection:
        connection.execute(
            """
            CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(TG_ARGV[0]::float); RETURN NEW; END $$;
            CREATE TRIGGER slow BEFORE INSERT ON market_data.btc_ticks
                FOR EACH ROW WHEN (NEW.trade_id % 10 = 0) EXECUTE FUNCTION take_time(0.005);
            CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON ingestion.stream_offsets
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION take_time(0.1);
            """
        )
    try:
        yield
    finally:
        with store.connect() as connection:  # a new one, because the server may have been restarted
            connection.execute("DROP FUNCTION take_time CASCADE")


def kill_the_process(loader: Loader, connection: psycopg.Connection, chance: random.Random) -> None:
    loader.kill()


def kill_its_session(loader: Loader, connection: psycopg.Connection, chance: random.Random) -> None:
    """End the session that writes, or the one that reads the registry."""
    sessions = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", (NAME,)).fetchall()
    if sessions:
        connection.execute("SELECT pg_terminate_backend(%s)", chance.choice(sessions))


def start_again(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, seed: int) -> Landings:
    """The same store, emptied, with a landing zone below another prefix of the bucket."""
    assert isinstance(store, StoreOnS3)
    tables = store.rows(
        "SELECT string_agg(format('%I.%I', table_schema, table_name), ', ') FROM information_schema.tables "
        "WHERE table_schema IN ('landing', 'ingestion', 'market_data') AND table_type = 'BASE TABLE' AND table_name <> 'candle_levels'"
    )[0][0]
    store.connection.execute(f"TRUNCATE {tables}")
    store = replace(store, bucket=Bucket(store.bucket.server, f"tests/{uuid.uuid4().hex}"))
    monkeypatch.setenv("BTC_ASSETS_LANDING_URL", store.bucket.url)
    monkeypatch.setenv("BTC_ASSETS_COMMIT_ROWS", "200")  # two slices a commit
    return overwritten(store, seed)


def clean_load(landed: Landings) -> float:
    """Seconds that an undisturbed load takes."""
    with Loader(HOUR) as loader:
        started = time.perf_counter()
        loader.go()
        loader.wait_until("done")
        seconds = time.perf_counter() - started
        assert loader.wait() == (0, "")
    truth.check(landed)
    return seconds


def _by_phase(phases: Counter[str]) -> str:
    return ", ".join(f"{count} while {phase}" for phase, count in phases.items())


@pytest.mark.parametrize("kill", [kill_the_process, kill_its_session], ids=["kill -9", "pg_terminate_backend"])
def test_a_loader_that_is_killed_at_any_moment_leaves_whole_slices_and_the_retry_is_exact(
    landed: Landings, monkeypatch: pytest.MonkeyPatch, kill: Callable[[Loader, psycopg.Connection, random.Random], None]
) -> None:
    chance = random.Random(SEED)
    connection = landed.store.connection
    moments = Moments(connection, clean_load(landed), chance)
    kills: Counter[str] = Counter()
    undisturbed = partly = 0
    while kills.total() < (KILLS if kill is kill_the_process else KILLS // 2):
        strike = (moments.at_any_time, moments.inside_copy, moments.at_any_time, moments.inside_commit)[kills.total() % 4]
        landed = start_again(landed.store, monkeypatch, chance.randrange(1_000_000))
        slow = nullcontext() if strike == moments.at_any_time else slowly(landed.store)
        with slow, Loader(HOUR) as loader:
            loader.go()
            strike(loader)
            kill(loader, connection, chance)
            _, errors = loader.wait()
            wait_until_its_sessions_end(connection)
        if loader.phase == "done":  # it ended before the kill, or no longer needed the session
            truth.check(landed)
            undisturbed += 1
            assert undisturbed <= 10 + KILLS
            continue
        if kill is kill_its_session:
            assert errors.startswith("The database server ended the connection (") and errors.endswith(": run it again once it is up.\n")
        truth.check_on_the_way(landed)
        partly += truth.loaded_partly(landed)
        kills[strike.__name__.replace("_", " ") + ", while " + loader.phase] += 1
        load_range(HOUR)
        truth.check(landed)
    print(f"\n{kill.__name__.replace('_', ' ')}, {kills.total()} times (seed {SEED}; {undisturbed} more kills came too late):")
    print("\n".join(f"{count:5} {phase}" for phase, count in sorted(kills.items())))
    print(f"{partly:5} of them left some slices old and others new; none of them half, and every retry was exact")


@pytest.mark.parametrize("one_is_killed", [False, True][: 1 + LONG], ids=["both live", "one is killed"][: 1 + LONG])
def test_two_loaders_on_one_range_at_once_give_one_exact_result_and_readers_see_whole_slices(landed: Landings, one_is_killed: bool) -> None:
    looks = 0
    with slowly(landed.store), Loader(HOUR) as first, Loader(HOUR) as second:
        first.go()
        second.go()
        while first.runs and second.runs:
            truth.check_on_the_way(landed)
            looks += 1
            if one_is_killed and truth.loaded_partly(landed):
                first.kill()
                break
        ended = [first.wait(), second.wait()]
    assert ended[one_is_killed:] == [(0, "")] * (1 if one_is_killed else 2)
    assert looks
    truth.check(landed)


# ---- the server


@contextmanager
def store_in(dsn: str, store: StoreOnS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreOnS3]:
    """An empty store in another database; the process's settings point at it."""
    monkeypatch.setenv("BTC_ASSETS_DSN", dsn)
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        migrate(connection)
        yield replace(store, dsn=dsn, connection=connection)


@pytest.mark.xdist_group("own server")
@pytest.mark.parametrize("mode", ["immediate", "fast"][: 1 + LONG])
def test_a_server_that_is_restarted_during_a_load_has_whole_slices_and_the_retry_is_exact(
    on_s3: StoreOnS3, own_server: Server, monkeypatch: pytest.MonkeyPatch, mode: Literal["fast", "immediate"]
) -> None:
    chance = random.Random(SEED)
    phases: Counter[str] = Counter()
    with temporary_database(own_server.dsn) as dsn, store_in(dsn, on_s3, monkeypatch) as store:
        while phases.total() < (KILLS // 6 if LONG else 1):
            with store.connect() as connection:
                landed = start_again(replace(store, connection=connection), monkeypatch, chance.randrange(1_000_000))
                moments = Moments(connection, 1.5, chance)
                with nullcontext() if phases.total() % 2 else slowly(store), Loader(HOUR) as loader:
                    loader.go()
                    (moments.at_any_time if phases.total() % 2 else moments.inside_copy)(loader)
                    own_server.restart(mode)
                    _, errors = loader.wait()
            if loader.phase == "done":
                truth.check(landed)
                continue
            phases[loader.phase] += 1
            assert errors.count("\n") == 1
            assert errors.endswith((": run it again once it is up.\n", "cannot be reached: start it, or correct BTC_ASSETS_DSN.\n"))
            truth.check_on_the_way(landed)
            load_range(HOUR)
            truth.check(landed)
    print(f"\nrestarted, -m {mode}: {_by_phase(phases)}")


@pytest.mark.xdist_group("own server")
def test_a_full_disk_is_one_sentence_and_the_server_goes_on_and_with_room_again_the_load_is_exact(
    on_s3: StoreOnS3, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: Counter[str] = Counter()
    with database_on_a_small_disk(own_server) as (dsn, disk), store_in(dsn, on_s3, monkeypatch) as store:
        for kilobytes in range(0, 350, 25 if LONG else 150):
            landed = start_again(store, monkeypatch, SEED)
            disk.fill(leave=kilobytes * 1000)
            begun: list[str] = []
            with pytest.raises(UserError) as failed:
                load_range(HOUR, report=begun.append)
            phases[begun[-1]] += 1
            assert re.fullmatch(
                r"The database server's disk is full \(could not extend file .*: No space left on device\): free space there and run it again\.",
                str(failed.value),
            )
            assert store.rows("SELECT 1") == [(1,)]  # in the session that was open all along
            disk.empty()  # the check opens a session, for which the server may write files of its own
            truth.check_on_the_way(landed)
            load_range(HOUR)
            truth.check(landed)
        store.connection.close()
    print(f"\ndisk full: {_by_phase(phases)}")


# ---- S3


@pytest.fixture
def proxy(landed: Landings) -> Iterator[FaultProxy]:
    assert isinstance(landed.store, StoreOnS3)
    with FaultProxy(landed.store.bucket.server.endpoint) as proxy:
        yield proxy


def through(proxy: FaultProxy, landed: Landings, retries: int = 5) -> LandingZone:
    assert isinstance(landed.store, StoreOnS3)
    # Few requests at a time, so that on a busy machine, too, none waits as long for the proxy as `impatient` lets it.
    return landed.store.bucket.zone(endpoint=proxy.endpoint, retries=retries, concurrency=4)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may be silent for three seconds instead of thirty."""
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 3)


# Each object is read once to register it, and once more to load it.
MOMENTS = {"while registering": 5, "while loading": len(_OBJECTS) + 15}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("moment", MOMENTS)
def test_faults_of_s3_that_pass_do_not_fail_the_load(landed: Landings, proxy: FaultProxy, moment: str) -> None:
    proxy.fail("503", "500", "reset", "stall", "cut", "flip", times=1, of=OBJECTS, after=MOMENTS[moment])
    load_range(HOUR, zone=through(proxy, landed))
    assert proxy.failed == 6
    truth.check(landed)


SENTENCES = {
    "503": "(SlowDown: Please reduce your request rate)",
    "500": "(InternalError: We encountered an internal error. Please try again)",
    "reset": "(the connection broke off before the answer)",
    "stall": "(no answer within 30 seconds)",
    "cut": "(the connection broke off within the answer)",
}


@pytest.mark.parametrize(
    ("fault", "moment"),
    [
        *zip(["503", "500", "reset", "stall", "cut", "flip"], [*MOMENTS] * 3, strict=True),
        *(zip(["503", "500", "reset", "stall", "cut"], [*MOMENTS][::-1] * 3, strict=False) if LONG else []),
    ],
)
def test_a_lasting_fault_of_s3_is_one_sentence_and_once_it_is_gone_the_load_is_exact(
    landed: Landings, proxy: FaultProxy, fault: Fault, moment: str, request: pytest.FixtureRequest
) -> None:
    if fault == "stall":
        request.getfixturevalue("impatient")
    proxy.fail(fault, of=OBJECTS, after=MOMENTS[moment])
    with pytest.raises(UserError) as failed:
        load_range(HOUR, zone=through(proxy, landed, retries=1))
    if fault == "flip":
        expected = r"s3://.* could be read when it was registered and cannot any more: the bytes do not match .*: upload it again \(.*\)\."
    else:
        expected = rf"Reading s3://\S+\.parquet failed {re.escape(SENTENCES[fault])}: check the bucket in BTC_ASSETS_LANDING_URL, .*\."
    assert re.fullmatch(expected, str(failed.value))
    truth.check_on_the_way(landed)
    proxy.heal()
    load_range(HOUR, zone=through(proxy, landed))
    truth.check(landed)


def test_an_object_whose_bytes_never_match_is_rejected_and_loads_once_the_same_bytes_are_uploaded_again(
    landed: Landings, proxy: FaultProxy
) -> None:
    uri = landed.put(trades(_OBJECTS[7], version=3))
    proxy.fail("flip", of=re.escape(uri.removeprefix("s3:/")))
    load_range(HOUR, zone=through(proxy, landed))
    landed.refused(uri)
    truth.check(landed)
    ((reason,),) = landed.store.rows("SELECT reason FROM landing.raw_blobs_5m WHERE status = 'rejected'")
    assert reason.startswith("the bytes do not match the object's size or the MD5 in its ETag, read 3 times: upload it again")
    proxy.heal()
    time.sleep(1.1)  # S3 reports modification times in whole seconds
    landed.put(trades(_OBJECTS[7], version=3))
    assert truth.violations(landed) != []
    load_range(HOUR, zone=through(proxy, landed))
    truth.check(landed)


@pytest.mark.parametrize("read", [1, 2], ids=["between listing and reading", "between registering and loading"])
def test_an_object_that_is_overwritten_before_it_is_read_is_loaded_with_its_new_content(
    landed: Landings, proxy: FaultProxy, read: int
) -> None:
    numbers = _OBJECTS[4]
    uri = landed.put(trades(numbers, version=2))
    path = re.escape(uri.removeprefix("s3:/"))

    def overwrite() -> None:
        landed.put(trades(numbers[:10], version=3))

    def before_it_is_read(times: int) -> None:
        proxy.before(f"^GET .*{path}", overwrite if times == 1 else lambda: before_it_is_read(times - 1))

    before_it_is_read(read)
    load_range(HOUR, zone=through(proxy, landed))
    assert landed.versions[uri, landed.current[uri]][0].price == trades(numbers, version=3)["price"][0].as_py()
    truth.check(landed)


def test_a_large_object_that_is_overwritten_while_it_is_read_is_loaded_with_its_new_content(
    landed: Landings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "LARGE_BYTES", 10_000)
    monkeypatch.setattr(verified_read, "PIECE_BYTES", 10_000)  # each piece is a request
    uri = landed.put(trades(range(_TRADES), version=2), "dump")
    pieces: list[str] = []

    def overwrite_before_the_third() -> None:
        pieces.append("")
        if len(pieces) == 3:
            landed.put(trades(range(_TRADES), version=3), "dump")
        else:
            proxy.before(f"^GET .*{re.escape(uri.removeprefix('s3:/'))}", overwrite_before_the_third)

    proxy.before(f"^GET .*{re.escape(uri.removeprefix('s3:/'))}", overwrite_before_the_third)
    load_range(HOUR, zone=through(proxy, landed))
    assert len(pieces) == 3
    truth.check(landed)


def test_truncated_foreign_and_drifted_objects_are_rejected_with_their_reasons_and_the_others_load(
    landed: Landings,
) -> None:
    whole = encode_batch(trades(range(30), version=2), FEED)[1]
    parquet = pq.read_table(io.BytesIO(whole))
    uris = {
        "truncated": landed.put_bytes(whole[: len(whole) // 2], "truncated", NOON),
        "empty": landed.put_bytes(b"", "empty", NOON),
        "foreign": landed.put_bytes(b"<html>Service unavailable</html>", "foreign", NOON + SLICE),
        "drifted": landed.put_bytes(_parquet(parquet.rename_columns([f"{name}_v2" for name in parquet.column_names])), "drifted", NOON),
    }
    added = parquet.append_column("mood", pa.array(["good"] * 30))
    landed.put_bytes(_parquet(added), "added", NOON, [truth.Tick(**row) for row in trades(range(30), version=2).to_pylist()])
    load_range(HOUR)
    truth.check(landed)
    reasons = dict(landed.store.rows("SELECT uri, reason FROM landing.raw_blobs_5m WHERE status = 'rejected'"))
    print("\n".join(reasons.values()))
    assert reasons.keys() == set(uris.values())
    assert landed.store.rows("SELECT DISTINCT metadata -> 'extra_columns' FROM landing.raw_blobs_5m WHERE uri LIKE '%%added%%'") == [
        (["mood"],)
    ]
    for name in uris:
        landed.put(trades(range(30), version=2), name, folder=NOON + SLICE * (name == "foreign"))
    load_range(HOUR)
    truth.check(landed)


def _parquet(rows: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer)
    return buffer.getvalue()


# ---- objects that land late


def test_late_and_backdated_objects_are_loaded_once_even_if_dagster_loses_its_storage(
    on_s3: StoreOnS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, landed = Daemon(on_s3, "landing_sensor", monkeypatch), Landings(on_s3)
    start = floor_slice(datetime.now(UTC)) - timedelta(hours=1)  # S3's clock cannot be set
    ticks = every(3, 400, start=start)  # four slices

    def loads() -> dict[datetime, datetime]:
        return dict(on_s3.rows("SELECT bucket_5m, max(loaded_at) FROM landing.raw_blobs_5m GROUP BY 1"))

    for first in range(0, 400, 40):
        landed.put(ticks.slice(first, 40))
    assert daemon.tick() == [("ingest", Window(start, start + 4 * SLICE))]
    daemon.run()
    truth.check(landed)
    before = loads()
    daemon.forget()
    assert daemon.tick_after(timedelta(minutes=1)) == []

    landed.put(every(1, 20, start=start + SLICE, first_id=1000), "late")
    landed.put(every(1, 20, start=start + 3 * SLICE, first_id=2000), "backdated", folder=start - timedelta(days=3))
    requested = daemon.settle(load_range)
    assert requested == [[("ingest", Window.of_slice(start + SLICE))]]
    assert truth.violations(landed)  # the backdated one is where no listing looks, as after a lost event
    reconcile(on_s3.connection, on_s3.zone(), FEEDS, None, daemon.now + timedelta(hours=1), ReconcileOptions(heal=True))
    daemon.forget()
    daemon.settle(load_range)
    truth.check(landed)
    assert {bucket for bucket, at in loads().items() if at != before.get(bucket)} - {start - timedelta(days=3)} == {
        start + SLICE,
        start + 3 * SLICE,
    }
    daemon.close()
