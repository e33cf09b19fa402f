"""Soak: whatever lands, fails, is killed or runs at once, in any order, the table agrees with the registry and heals.

A short form runs with the suite. `make soak` runs for a given time, with a new seed each round; a failure prints the seed and the
shortest sequence of steps that breaks a promise.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import wraps
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day, floor_slice
from btc_assets.market_data import candles
from btc_assets.market_data.keys import candles_key
from btc_assets.ops import retention_jobs
from btc_assets.ops.policies import Keep, declared_policies
from btc_assets.ops.policies_in_force import read_policy_statuses
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.simulation.batches import encode_batch
from btc_assets.store import writers
from btc_assets.store.encode import EncodedRows
from btc_assets.store.replace import Replacement, replace_slices
from btc_assets.store.tables import Target
from btc_assets_tests.support import hostile
from btc_assets_tests.support.daemon import Daemon
from btc_assets_tests.support.fault_proxy import OBJECTS, Fault, FaultProxy
from btc_assets_tests.support.s3 import Bucket, S3Server
from btc_assets_tests.support.stores import FEED, FEEDS, temporary_copy
from btc_assets_tests.support.trades import table, trade
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for
from btc_assets_tests.support.zones import StoreOnS3

pytestmark = pytest.mark.slow

T = TypeVar("T")
Rows = dict[int, Decimal]  # price by trade id
Version = tuple[str, str]  # URI and ETag

PER_SLICE = 12  # ids
OLD, RECENT = range(2), range(2, 6)  # slices of ten days ago, which retention may drop, and of the last hour
DROP_AFTER_DAYS = 8
HOURS_LATER = timedelta(hours=3)

places = st.sampled_from([*OLD, *RECENT, *RECENT])
names = st.sampled_from(["a", "b", "c", "d"])
trade_ids = st.one_of(
    st.lists(places.flatmap(lambda place: st.integers(place * PER_SLICE, place * PER_SLICE + PER_SLICE - 1)), min_size=1, max_size=12),
    places.flatmap(lambda place: st.lists(st.integers(place * PER_SLICE, place * PER_SLICE + PER_SLICE + 1), min_size=1, max_size=12)),
).map(lambda ids: sorted({min(i, PER_SLICE * (RECENT[-1] + 1) - 1) for i in ids}))
objects = st.dictionaries(st.tuples(names, places), st.tuples(st.integers(0, 1), trade_ids), min_size=1, max_size=6)
faults: st.SearchStrategy[tuple[Fault, int] | None] = st.one_of(
    st.none(), st.tuples(st.sampled_from(["503", "500", "reset", "cut", "flip"]), st.integers(1, 9))
)
stretches = st.tuples(places, st.integers(1, 4))
moments = st.floats(0, 0.5)  # seconds after which something is killed; a load takes about half of it

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload([__name__])


def ingest_in_a_process(dsn: str, home: Path, bucket: Bucket, followers: tuple[str, ...], window: Window, started: Event) -> None:
    started.set()
    with psycopg.connect(dsn, autocommit=True) as connection:
        StoreOnS3(dsn, home, home, connection, bucket, followers=followers).ingest(window)


def traced(method: Callable[..., None]) -> Callable[..., None]:
    """Prints the first failure at once: one that depends on timing may not happen again when the steps are repeated."""

    @wraps(method)
    def inner(self: Soak, **drawn: object) -> None:
        self.trail.append(f"{method.__name__}({', '.join(f'{name}={value!r}' for name, value in drawn.items())})")
        try:
            method(self, **drawn)
        except Exception:
            if not type(self).failed:
                type(self).failed = True
                print("\nFailed after:", *(call for call in self.trail if "every_promise" not in call), traceback.format_exc(), sep="\n")
            raise

    return inner


def step(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    return lambda method: rule(**strategies)(traced(method))  # type: ignore[call-overload]  # it would confuse them with `target`


class Soak(RuleBasedStateMachine):
    """The steps, and the invariants that must hold after each of them.

    The model knows the rows of every version of every object. The registry says which versions a slice was loaded from: the slice must
    always hold exactly their rows. Once everything has come to rest, the registry must agree with the landing zone.
    """

    server: str
    template: str
    s3: S3Server
    home: Path
    steps: Counter[str]
    failed = False

    def __init__(self) -> None:
        super().__init__()
        self.trail: list[str] = []
        self.open = ExitStack()
        patch = self.open.enter_context(pytest.MonkeyPatch.context())
        dsn = self.open.enter_context(temporary_copy(self.server, self.template))
        self.proxy = self.open.enter_context(FaultProxy(self.s3.endpoint))
        bucket = Bucket(replace(self.s3, process=None), f"tests/{uuid.uuid4().hex}")
        for name, value in {
            "DSN": dsn,
            "LANDING_URL": bucket.url,
            "S3_ENDPOINT": self.proxy.endpoint,
            "TICKS_DROP_AFTER_DAYS": str(DROP_AFTER_DAYS),
        }.items():
            patch.setenv(f"BTC_ASSETS_{name}", value)
        connection = self.open.enter_context(psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC"))
        followers = tuple(map(candles_key, candles.INTERVALS))
        self.store = StoreOnS3(dsn, self.home, self.home, connection, bucket, followers=followers)
        self.store_behind_proxy = replace(self.store, bucket=replace(bucket, server=replace(bucket.server, endpoint=self.proxy.endpoint)))
        self.daemons = [Daemon(self.store, sensor, patch) for sensor in ("landing_sensor", "candles_follow_ticks", "signals_follow_ticks")]
        for daemon in self.daemons:
            self.open.callback(daemon.close)
        recent = floor_slice(datetime.now(UTC)) - timedelta(minutes=50)
        old = floor_day(recent) - 10 * DAY + timedelta(hours=12)
        self.slices = [old + i * SLICE for i in OLD] + [recent + i * SLICE for i in range(len(RECENT))]
        self.versions: dict[Version, dict[datetime, Rows]] = {}
        self.objects: dict[str, Version] = {}
        self.deleted = False
        self.dropped: set[datetime] = set()

    def teardown(self) -> None:
        self.open.close()

    # ---- what lands

    @initialize(objects=objects)
    def start_with_some_objects(self, objects: dict[tuple[str, int], tuple[int, list[int]]]) -> None:
        self.land(objects=objects)

    @step(objects=objects)
    def land(self, objects: dict[tuple[str, int], tuple[int, list[int]]]) -> None:
        """Land objects or overwrite some: in their folder or late in another one, with corrected prices, or with trades that others have too."""
        for (name, place), (edition, ids) in objects.items():
            self.steps["objects landed"] += 1
            rows = table([self.trade(i, edition) for i in ids])
            held: dict[datetime, Rows] = {}
            for row in rows.to_pylist():
                held.setdefault(row["bucket_5m"], {})[row["trade_id"]] = row["price"]
            self.put(name, place, encode_batch(rows, FEED)[1], held)

    @step(name=names, place=places, kind=st.sampled_from(sorted(hostile.OBJECTS)))
    def land_a_hostile_object(self, name: str, place: int, kind: str) -> None:
        self.steps["hostile objects"] += 1
        self.put(name, place, hostile.OBJECTS[kind](), {})

    @step(place=places, key=st.sampled_from(hostile.KEYS))
    def put_a_hostile_key(self, place: int, key: str) -> None:
        """Put something where no object may be: it holds up nothing, and does not appear in the registry."""
        self.steps["hostile keys"] += 1
        bucket = self.store.bucket
        path = f"{bucket.prefix}/{FEED.prefix}/{self.slices[place]:%Y/%m/%d/%H/%M}/{key}"
        bucket.server.client().put_object(Bucket=bucket.server.bucket, Key=path, Body=b"" if key.endswith("/") else b"x")

    @precondition(lambda self: self.objects)
    @step(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        uri = data.draw(st.sampled_from(sorted(self.objects)), label="uri")
        self.store.delete(uri)
        del self.objects[uri]
        self.deleted = True

    # ---- loads, kills and maintenance

    @step(stretch=stretches, force=st.booleans(), fault=faults)
    def load(self, stretch: tuple[int, int], force: bool, fault: tuple[Fault, int] | None) -> None:
        window = self.window(stretch)
        self.under(fault, lambda: self.store_behind_proxy.register(window))
        self.under(fault, lambda: self.store_behind_proxy.load(window, force=force, commit_rows=10))

    @step(stretch=stretches, moment=moments)
    def kill_a_loader(self, stretch: tuple[int, int], moment: float) -> None:
        self.steps["loaders killed"] += 1
        started = forkserver.Event()
        process = forkserver.Process(
            target=ingest_in_a_process,
            args=(self.store.dsn, self.home, self.store.bucket, self.store.followers, self.window(stretch), started),
        )
        process.start()
        assert started.wait(PATIENCE_SECONDS)
        time.sleep(moment)
        process.kill()
        process.join()
        self.wait_until_backends_end()

    @step(stretch=stretches, moment=moments)
    def end_the_backends_of_a_loader(self, stretch: tuple[int, int], moment: float) -> None:
        self.steps["backends ended"] += 1
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(self.store.ingest, self.window(stretch))
            time.sleep(moment / 2)
            self.store.connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({_BACKENDS}) AS others")
            try:
                load.result()
            except psycopg.OperationalError:  # of a connection that was about to be closed
                pass
            except UserError as error:
                assert "terminat" in str(error) or "connection" in str(error) or self.deleted, error

    @step(one=stretches, other=stretches)
    def load_twice_at_once(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        self.steps["loaded at once"] += 1
        with ThreadPoolExecutor(2) as pool:
            loads = [pool.submit(self.store.ingest, self.window(stretch)) for stretch in (one, other)]
        for load in loads:
            self.under(None, load.result)

    @step(fault=faults)
    def tick_and_run(self, fault: tuple[Fault, int] | None) -> None:
        """Evaluate the sensors, and execute the runs that they request."""
        for daemon in self.daemons:
            daemon.now = max(daemon.now + timedelta(seconds=31), datetime.now(UTC) + timedelta(minutes=2))
            requested = self.under(fault, daemon.tick)
            self.steps["runs"] += len(requested or [])
            if requested:
                self.arm(fault)
                succeeded = daemon.attempt()
                self.arm(None)
                assert succeeded == len(requested) or fault or self.deleted, requested

    @step()
    def lose_dagsters_storage(self) -> None:
        for daemon in self.daemons:
            daemon.forget()

    @step()
    def run_the_policies(self) -> None:
        self.steps["policies run"] += 1
        policies = declared_policies(load_settings())
        with self.store.connect() as connection:
            retention_jobs.apply_policies(connection, policies)
            states = {status.job_name: status.state for status in read_policy_statuses(connection, policies)}
            assert "drifted" not in states.values(), states
            for policy in policies:
                if not isinstance(policy, Keep) and states[policy.job_name] == "applied":
                    retention_jobs.run_policy(connection, policy.job_name)
        rows = self.rows()
        self.dropped |= {self.slices[place] for place in OLD if not rows.get(self.slices[place])}

    @step(fault=faults)
    def reconcile(self, fault: tuple[Fault, int] | None) -> None:
        self.under(fault, self.compare_everything)

    @step()
    def come_to_rest(self) -> None:
        """Let nothing fail any more: after a few rounds everything agrees and nothing is due."""
        self.steps["came to rest"] += 1
        for _ in range(6):
            healed = self.compare_everything()
            requested = [daemon.tick_after(timedelta(seconds=31)) for daemon in self.daemons]
            self.steps["runs"] += sum(map(len, requested))
            for daemon in self.daemons:
                daemon.attempt()
            if not healed and not any(requested):
                break
        else:
            raise AssertionError(
                f"it does not come to rest: {healed} differences were healed in the last round, and it requested {requested}"
            )
        loaded, existing = self.loaded(), set(self.objects.values())
        for bucket in self.slices:
            current = {version for version in existing if bucket in self.versions[version]}
            lost = {uri for uri, _ in loaded.get(bucket, set())} - set(self.objects)
            assert lost or loaded.get(bucket, set()) == current, (bucket, loaded.get(bucket), current)
        registered = self.store.rows(
            "SELECT DISTINCT uri, etag, status FROM landing.raw_blobs_5m WHERE status NOT IN ('superseded', 'gone')"
        )
        assert {(uri, etag): status for uri, etag, status in registered} == {
            version: "registered" if self.versions[version] else "rejected" for version in existing
        }
        due = {bucket for (bucket,) in self.store.rows("SELECT bucket_5m FROM ingestion.due_slices")}
        assert due <= self.dropped

    # ---- invariants

    @invariant()
    @traced
    def every_promise_holds(self) -> None:
        self.each_slice_has_exactly_the_rows_of_the_versions_that_it_was_loaded_from()
        self.the_offset_is_the_newest_trade()
        self.candles_that_are_not_due_agree_with_their_ticks_even_after_those_were_dropped()

    def each_slice_has_exactly_the_rows_of_the_versions_that_it_was_loaded_from(self) -> None:
        loaded, rows = self.loaded(), self.rows()
        assert not set(rows) - set(self.slices)
        for bucket in self.slices:
            expected = self.merged(bucket, loaded.get(bucket, set()))
            if rows.get(bucket):
                self.dropped.discard(bucket)
            elif bucket in self.dropped:
                continue
            assert rows.get(bucket, {}) == expected, bucket

    def the_offset_is_the_newest_trade(self) -> None:
        rows = self.rows()
        if rows:
            assert self.store.rows("SELECT last_sequence FROM ingestion.stream_offsets WHERE source LIKE 'market_data.btc_ticks/%'") == [
                (max(rows[max(rows)]),)
            ]

    def candles_that_are_not_due_agree_with_their_ticks_even_after_those_were_dropped(self) -> None:
        due = {bucket for (bucket,) in self.store.rows("SELECT bucket_5m FROM ingestion.due_slices WHERE asset LIKE 'market_data/%'")}
        made = {
            bucket: (trades, value)
            for bucket, trades, value in self.store.rows(
                "SELECT tick_bucket, sum(trade_count)::int, sum(quote_volume) FROM market_data.candle_partials_5m GROUP BY tick_bucket"
            )
        }
        loaded = self.loaded()
        for bucket in set(self.slices) - due:
            expected = self.merged(bucket, loaded.get(bucket, set()))
            value = sum(expected.values()) / 4  # a quarter of a coin each
            assert made.get(bucket, (0, 0)) == (len(expected), value), bucket
        if not due:
            for interval in candles.INTERVALS:
                for start in (self.slices[OLD[0]], self.slices[RECENT[0]]):
                    assert candles.read_candle_differences(self.store.connection, interval, Window(start, start + 4 * SLICE)) == [], (
                        self.registry()
                    )

    # ---- the model

    def trade(self, trade_id: int, edition: int) -> dict[str, object]:
        """The trade with an id; another edition of it has another price."""
        place, k = divmod(trade_id, PER_SLICE)
        at = self.slices[place] + k * timedelta(seconds=25)
        return trade(trade_id, at, price=f"{100 + trade_id}.{edition}", maker=trade_id % 2 == 0)

    def put(self, name: str, place: int, data: bytes, held: dict[datetime, Rows]) -> None:
        uri = self.store.put(f"{self.slices[place]:%Y/%m/%d/%H/%M}/{name}.parquet", data)
        obj = self.store.zone().head(uri, FEED.prefix)
        assert obj is not None
        self.objects[uri] = (uri, obj.etag)
        self.versions[uri, obj.etag] = held

    def merged(self, bucket: datetime, versions: set[Version]) -> Rows:
        """The trades of a slice in some versions of objects; of a trade in two of them, the one with the earlier URI counts."""
        return {i: price for version in sorted(versions, reverse=True) for i, price in self.versions[version].get(bucket, {}).items()}

    # ---- the store

    def window(self, stretch: tuple[int, int]) -> Window:
        start = self.slices[stretch[0]]
        return Window(start, start + stretch[1] * SLICE)

    def rows(self) -> dict[datetime, Rows]:
        found: dict[datetime, Rows] = {}
        for bucket, trade_id, price in self.store.rows("SELECT bucket_5m, trade_id, price FROM market_data.btc_ticks"):
            assert found.setdefault(bucket, {}).setdefault(trade_id, price) is price  # once only
        return found

    def loaded(self) -> dict[datetime, set[Version]]:
        """What the registry says each slice was loaded from."""
        found: dict[datetime, set[Version]] = {}
        for bucket, uri, etag in self.store.rows(
            "SELECT bucket_5m, uri, etag FROM landing.raw_blobs_5m WHERE loaded_at IS NOT NULL AND row_count > 0"
        ):
            found.setdefault(bucket, set()).add((uri, etag))
        return found

    def registry(self) -> str:
        """The registry, for the message of a failure."""
        return "\n".join(map(str, self.store.rows("SELECT * FROM landing.raw_blobs_5m ORDER BY bucket_5m, uri, noticed_at")))

    def compare_everything(self) -> int:
        with self.store.connect() as connection:
            now = datetime.now(UTC) + HOURS_LATER  # whatever waits has waited for too long by then
            options = ReconcileOptions(heal=True, min_object_age=timedelta())
            return reconcile(connection, self.store_behind_proxy.zone(), FEEDS, None, now, options).healed

    def arm(self, fault: tuple[Fault, int] | None) -> None:
        self.steps["faults"] += bool(fault)
        if fault and fault[0] == "flip":  # at most twice: an object whose bytes never match is rejected, as it should be
            self.proxy.fail("flip", times=min(fault[1], 2), of=OBJECTS)
        elif fault:
            self.proxy.fail(fault[0], times=fault[1])
        else:
            self.proxy.heal()

    def under(self, fault: tuple[Fault, int] | None, work: Callable[[], T]) -> T | None:
        """Do something while S3 fails a few times: it succeeds, or fails with one sentence."""
        self.arm(fault)
        try:
            return work()
        except (UserError, dg.Failure) as error:  # the latter from a sensor
            assert fault or (self.deleted and "is gone" in str(error)), error
            assert len(str(error).splitlines()) == 1, error
            return None
        finally:
            self.arm(None)

    def wait_until_backends_end(self) -> None:
        """Wait until the server has noticed that a client was killed, and has committed or rolled back."""
        wait_for(lambda: not self.store.rows(_BACKENDS), "the server has ended the backends of killed clients", interval=0.01)


_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@pytest.fixture
def machine(server_dsn: str, template: str, s3_server: S3Server, s3: Bucket, tmp_path: Path) -> type[Soak]:
    """The steps, bound to the servers of this test."""
    bound = {"server": server_dsn, "template": template, "s3": s3_server, "home": tmp_path, "steps": Counter()}
    return type("BoundSoak", (Soak,), bound)


def play(machine: type[Soak], *, rounds: int, steps: int, phases: Collection[Phase] = tuple(Phase), reproducible: bool = False) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=rounds,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=reproducible,
            suppress_health_check=list(HealthCheck),
            phases=phases,
            print_blob=False,
        ),
    )


def test_a_short_soak(machine: type[Soak]) -> None:
    play(machine, rounds=3, steps=12, reproducible=True)


def test_the_soak_finds_a_loader_that_loses_rows(machine: type[Soak], monkeypatch: pytest.MonkeyPatch) -> None:
    def loses_a_row(connection: psycopg.Connection, target: Target, replacement: Replacement, encoded: EncodedRows) -> list[str]:
        chunks = replace_slices(connection, target, replacement, encoded)
        connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id % 12 = 7")
        return chunks

    monkeypatch.setattr(writers, "replace_slices", loses_a_row)
    with pytest.raises(AssertionError):
        play(machine, rounds=10, steps=12, phases=[Phase.generate], reproducible=True)


@pytest.mark.skipif("SOAK_MINUTES" not in os.environ, reason="make soak")
def test_a_long_soak(machine: type[Soak]) -> None:
    started = time.monotonic()
    for number in count(int(os.environ.get("SOAK_SEED", "1"))):
        try:
            play(seed(number)(machine), rounds=5, steps=50)
        except BaseException:
            print(f"seed {number}: a promise was broken; make soak SEED={number} repeats it")
            raise
        minutes = (time.monotonic() - started) / 60
        print(
            f"seed {number}: no promise broken in {minutes:.1f} minutes; " + ", ".join(f"{machine.steps[s]:,} {s}" for s in machine.steps)
        )
        if minutes >= float(os.environ["SOAK_MINUTES"]):
            return
