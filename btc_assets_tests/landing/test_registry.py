"""The registry's statements make the transitions of the table in landing/states.py, each of them and no other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import SLICE, Window
from btc_assets.landing import registry
from btc_assets.landing.arrivals import read_waiting_slices
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.registry import Readings, RegistryRow
from btc_assets.landing.sources import read_sources
from btc_assets.landing.states import (
    SOURCE_GONE,
    STATES,
    UNSETTLED,
    Event,
    SliceState,
    State,
    Status,
    next_state,
)
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every
from btc_assets_tests.support.waiting import wait_for

FOLDER, OTHER = NOON, NOON + SLICE  # the slice of the object's folder, and another one
BUCKETS = (FOLDER, OTHER)
WINDOW = Window(FOLDER, OTHER + SLICE)
LANDED = NOON + timedelta(minutes=1)
URI = f"memory:///registry/{FEED.prefix}/2024/01/10/12/00/a.parquet"
OBJECT = LandedObject(URI, "one", 10, LANDED, FEED.prefix)
NEWER = LandedObject(URI, "two", 10, LANDED + timedelta(seconds=1), FEED.prefix)

Rows = dict[tuple[datetime, str, str], State]  # by slice, URI and ETag


def read_rows(connection: psycopg.Connection) -> Rows:
    rows = connection.execute("SELECT bucket_5m, uri, etag, status, loaded_at IS NOT NULL FROM landing.raw_blobs_5m")
    return {(bucket, uri, etag): State(Status(status), loaded) for bucket, uri, etag, status, loaded in rows}


def registry_row(obj: LandedObject, bucket: datetime, status: Status = Status.REGISTERED, rows: int = 3) -> RegistryRow:
    return RegistryRow(
        bucket,
        FEED.label,
        obj.uri,
        obj.etag,
        obj.size,
        rows,
        bucket,
        bucket,
        int(bucket.timestamp()),
        int(bucket.timestamp()) + rows - 1,
        rows,
        "parquet",
        status.value,
        None,
        "{}",
        obj.last_modified,
    )


def register(connection: psycopg.Connection, obj: LandedObject, covered: Iterable[datetime], *, reread: bool = False) -> set[ObjectVersion]:
    """Record that a version was read, is current, and holds ticks of some slices; of none means that it is unreadable.

    Returns:
        Versions that became superseded although their time is not earlier.
    """
    rows = [registry_row(obj, bucket) for bucket in covered] or [registry_row(obj, obj.home_slice, Status.REJECTED, 0)]
    contested = registry.register(connection, Readings([obj], rows, []), reread=reread).get(obj.uri, set())
    if contested:
        assert registry.register(connection, Readings([obj], rows, []), reread=reread, outdated=contested) == {}
    return contested


def replace_slices(connection: psycopg.Connection, window: Window) -> None:
    """Record what loading a window does."""
    with connection.transaction(), connection.cursor() as cursor:
        sources = read_sources(cursor, window)
        registry.mark_loaded(cursor, window, sources, [source.row_count for source in sources])


# ---- one statement from every state


def put_row(connection: psycopg.Connection, bucket: datetime, state: State | None) -> None:
    """A row of OBJECT in the given state."""
    if state is not None:
        connection.execute(
            "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at) "
            "VALUES (%s, %s, %s, %s, 10, 3, %s, %s, CASE WHEN %s THEN now() END)",
            (bucket, FEED.label, OBJECT.uri, OBJECT.etag, state.status, LANDED, state.loaded),
        )


def happen(connection: psycopg.Connection, event: Event) -> datetime:  # noqa: C901  # a case for each event
    """Have an event happen to OBJECT; returns the slice whose row it happens to."""
    match event:
        case Event.SEEN:
            registry.notice(connection, FEEDS, [OBJECT])
        case Event.WRITTEN_AGAIN:
            registry.notice(connection, FEEDS, [replace(OBJECT, last_modified=LANDED + timedelta(seconds=2))])
        case Event.READABLE:
            register(connection, OBJECT, [FOLDER])
        case Event.UNREADABLE:
            register(connection, OBJECT, [])
        case Event.NOT_COVERED:
            register(connection, OBJECT, [OTHER])
        case Event.NO_LONGER_COVERED:
            register(connection, OBJECT, [OTHER], reread=True)
        case Event.OVERWRITTEN:
            register(connection, NEWER, [OTHER])
        case Event.NOT_CURRENT:
            registry.supersede(connection, [OBJECT.version], NEWER.version)
        case Event.DISAPPEARED:
            registry.mark_gone(connection, [URI])
        case Event.SLICE_REPLACED:
            replace_slices(connection, WINDOW)
        case Event.SLICE_EMPTIED:
            with connection.transaction(), connection.cursor() as cursor:
                registry.unload_slices(cursor, FEED.label, [FOLDER])
        case Event.SLICE_UNEQUAL:
            with connection.transaction(), connection.cursor() as cursor:
                registry.withdraw_loaded(cursor, [FOLDER])
    return FOLDER


def expected(state: State | None, event: Event) -> State | None:
    if event is Event.NO_LONGER_COVERED:  # the version is not covered, as without `--reread`, and then this
        state = next_state(state, Event.NOT_COVERED)
    return next_state(state, event)


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
def test_each_event_makes_its_transitions_and_no_other(store: StoreUnderTest, event: Event) -> None:
    happened, promised = {}, {}
    for state in (None, *STATES):
        if event is Event.WRITTEN_AGAIN and (state is None or state.status is not Status.REJECTED):
            continue  # it says that the version was rejected
        store.connection.execute("TRUNCATE landing.raw_blobs_5m")
        put_row(store.connection, FOLDER, state)
        bucket = happen(store.connection, event)
        happened[state] = read_rows(store.connection).get((bucket, OBJECT.uri, OBJECT.etag))
        promised[state] = expected(state, event)
    assert happened == promised


def test_the_same_content_counts_as_written_again_only_if_its_time_is_later(store: StoreUnderTest) -> None:
    put_row(store.connection, FOLDER, State(Status.REJECTED, False))
    assert registry.notice(store.connection, FEEDS, [replace(OBJECT, last_modified=LANDED + timedelta(milliseconds=900))]) == 0
    assert registry.notice(store.connection, FEEDS, [replace(OBJECT, last_modified=LANDED + timedelta(seconds=1))]) == 1


def test_a_slice_that_lost_an_object_keeps_its_loaded_rows(store: StoreUnderTest) -> None:
    """Withdrawing them would request a load that has to be refused (promise 6)."""
    put_row(store.connection, FOLDER, State(Status.REGISTERED, True))
    lost = replace(OBJECT, uri=URI + ".lost")
    register(store.connection, lost, [FOLDER])
    replace_slices(store.connection, WINDOW)
    registry.mark_gone(store.connection, [lost.uri])
    with store.connection.transaction(), store.connection.cursor() as cursor:
        assert registry.withdraw_loaded(cursor, [FOLDER]) == 0
    assert read_rows(store.connection)[FOLDER, OBJECT.uri, OBJECT.etag] == State(Status.REGISTERED, True)


@pytest.mark.parametrize("change", ["overwritten", "gone", "read with another result", "forgotten"])
def test_a_source_that_changes_while_its_ticks_are_written_is_not_marked_as_loaded(store: StoreUnderTest, change: str) -> None:
    """The transaction must not commit: the table would hold what the registry does not say."""
    register(store.connection, OBJECT, [FOLDER])
    with store.connect() as loader, loader.transaction(), loader.cursor() as cursor:
        sources = read_sources(cursor, WINDOW)
        match change:  # meanwhile
            case "overwritten":
                register(store.connection, NEWER, [OTHER])
            case "gone":
                registry.mark_gone(store.connection, [URI])
            case "read with another result":
                registry.register(store.connection, Readings([OBJECT], [registry_row(OBJECT, FOLDER, rows=4)], []), reread=True)
            case "forgotten":
                store.connection.execute("DELETE FROM landing.raw_blobs_5m")
        assert not registry.mark_loaded(cursor, WINDOW, sources, [source.row_count for source in sources]).current
    assert not any(state.loaded for state in read_rows(store.connection).values())


def test_a_version_that_comes_back_while_its_ticks_are_deleted_is_not_loaded(store: StoreUnderTest) -> None:
    register(store.connection, OBJECT, [FOLDER])
    replace_slices(store.connection, WINDOW)
    register(store.connection, NEWER, [OTHER])
    with store.connect() as loader, loader.transaction(), loader.cursor() as cursor:
        sources = read_sources(cursor, WINDOW)
        register(store.connection, replace(OBJECT, last_modified=NEWER.last_modified + SLICE), [FOLDER])  # meanwhile
        marks = registry.mark_loaded(cursor, Window.of_slice(FOLDER), [], [])
    assert sources and marks == (True, False, frozenset({FEED.label}), frozenset())
    assert read_rows(store.connection)[FOLDER, OBJECT.uri, OBJECT.etag] == State(Status.REGISTERED, False)


def test_an_object_that_disappears_while_its_ticks_are_deleted_is_told(store: StoreUnderTest) -> None:
    register(store.connection, OBJECT, [FOLDER])
    replace_slices(store.connection, WINDOW)
    register(store.connection, NEWER, [OTHER])
    with store.connect() as loader, loader.transaction(), loader.cursor() as cursor:
        registry.mark_gone(store.connection, [URI])  # meanwhile
        assert registry.mark_loaded(cursor, Window.of_slice(FOLDER), [], []) == (True, True, frozenset({FEED.label}), frozenset())


def test_what_is_marked_as_loaded_stays_until_the_transaction_ends(store: StoreUnderTest) -> None:
    register(store.connection, OBJECT, [FOLDER])
    with store.connect() as loader, ThreadPoolExecutor(1) as pool, store.connect() as registrar:
        with loader.transaction(), loader.cursor() as cursor:
            sources = read_sources(cursor, WINDOW)
            assert registry.mark_loaded(cursor, WINDOW, sources, [3]).current
            done = pool.submit(register, registrar, NEWER, [OTHER])
            wait_for(
                lambda: (
                    store.rows("SELECT loader FROM unnest(pg_blocking_pids(%s)) AS loader", registrar.info.backend_pid)
                    == [(loader.info.backend_pid,)]
                ),
                "the registrar waits for the loader",
            )
        done.result()
    assert read_rows(store.connection)[FOLDER, OBJECT.uri, OBJECT.etag] == State(Status.SUPERSEDED, True)
    assert [one.bucket for one in read_waiting_slices(store.connection, NOON + timedelta(days=36_500), grace=SLICE).due] == list(BUCKETS)


def test_two_who_register_versions_of_one_object_at_once_leave_one_registered(store: StoreUnderTest) -> None:
    """Neither sees what the other has not committed."""
    with store.connect() as first, store.connect() as second, ThreadPoolExecutor(1) as pool:
        with first.transaction():
            register(first, OBJECT, [FOLDER])
            done = pool.submit(register, second, NEWER, [FOLDER])
            wait_for(
                lambda: store.rows("SELECT unnest(pg_blocking_pids(%s))", second.info.backend_pid) == [(first.info.backend_pid,)],
                "the second one waits for the first",
            )
        assert done.result() == set()
    assert read_rows(store.connection) == {
        (FOLDER, URI, "one"): State(Status.SUPERSEDED, False),
        (FOLDER, URI, "two"): State(Status.REGISTERED, False),
    }


def test_an_object_is_left_out_while_another_version_may_be_current(store: StoreUnderTest) -> None:
    for newer in (NEWER, replace(NEWER, last_modified=LANDED)):
        store.connection.execute("TRUNCATE landing.raw_blobs_5m")
        register(store.connection, newer, [FOLDER])
        readings = Readings([OBJECT], [registry_row(OBJECT, FOLDER)], [])
        assert registry.register(store.connection, readings) == {URI: {newer.version}}
        assert read_rows(store.connection) == {(FOLDER, URI, "two"): State(Status.REGISTERED, False)}


def test_many_objects_disappear_without_filling_the_lock_table_of_the_server(store: StoreUnderTest) -> None:
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified) "
        "SELECT %s, %s, %s || number, 'one', 10, 3, 'registered', %s FROM generate_series(1, 20000) AS number",
        (FOLDER, FEED.label, URI, LANDED),
    )
    registry.mark_gone(store.connection, [f"{URI}{number}" for number in range(1, 20_001)])
    assert store.rows("SELECT status, count(*) FROM landing.raw_blobs_5m GROUP BY status") == [("gone", 20_000)]


def test_work_is_renewed_without_a_change_of_state(store: StoreUnderTest) -> None:
    for number, state in enumerate(STATES):
        put_row(store.connection, NOON + number * SLICE, state)
    store.connection.execute("UPDATE landing.raw_blobs_5m SET noticed_at = '2024-01-01'")
    before = read_rows(store.connection)
    with store.connection.transaction(), store.connection.cursor() as cursor:
        registry.renew_unsettled(cursor, [NOON + number * SLICE for number in range(len(STATES))])
    assert read_rows(store.connection) == before
    renewed = store.rows("SELECT status, loaded_at IS NOT NULL FROM landing.raw_blobs_5m WHERE noticed_at > '2024-01-01'")
    assert {State(Status(status), loaded) for status, loaded in renewed} == UNSETTLED


# ---- many objects, and anything in any order

VERSIONS = [
    replace(OBJECT, uri=f"{URI}.{name}", etag=etag, last_modified=LANDED + timedelta(seconds=later))
    for name in "ab"
    for etag, later in (("one", 0), ("two", 1), ("three", 1))
]
versions = st.sampled_from(VERSIONS)
uris = st.sampled_from(sorted({obj.uri for obj in VERSIONS}))
covered = st.sets(st.sampled_from(BUCKETS)).map(sorted)


def slice_state(states: Iterable[State]) -> SliceState | None:
    """What the rows of a slice add up to; None if they say nothing about it."""
    rows = list(states)
    loaded = any(row.loaded for row in rows)
    if not loaded and all(row.status is Status.SUPERSEDED for row in rows):
        return None
    if SOURCE_GONE in rows:
        return SliceState.SOURCE_GONE
    if UNSETTLED & set(rows):
        return SliceState.STALE if loaded else SliceState.PENDING
    statuses = {row.status for row in rows}
    return SliceState.REJECTED if Status.REJECTED in statuses else SliceState.LOST if Status.GONE in statuses else SliceState.LOADED


class RegistryMachine(RuleBasedStateMachine):
    """Two objects with two versions each, and two slices."""

    connection: psycopg.Connection

    def __init__(self) -> None:
        super().__init__()
        self.connection.execute("TRUNCATE landing.raw_blobs_5m")
        self.rows: Rows = {}

    def happens(self, event: Event, *keys: tuple[datetime, str, str]) -> None:
        for key in keys:
            after = next_state(self.rows.get(key), event)
            if after is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = after

    def keys(self, *, uri: str | None = None, version: ObjectVersion | None = None) -> list[tuple[datetime, str, str]]:
        """The rows that there are, all or of an object or version."""
        return [key for key in self.rows if uri in (None, key[1]) and version in (None, key[1:])]

    @rule(obj=versions)
    def see(self, obj: LandedObject) -> None:
        noticed = registry.notice(self.connection, FEEDS, [obj])
        there = {Status.NOTICED, Status.REGISTERED, Status.REJECTED}
        known = any(self.rows[key].status in there for key in self.keys(version=obj.version))
        assert noticed == (not known)
        if not known:
            self.happens(Event.SEEN, (obj.home_slice, *obj.version))

    @rule(obj=versions, covered=covered, reread=st.booleans())
    def read(self, obj: LandedObject, covered: list[datetime], reread: bool) -> None:
        contested = register(self.connection, obj, covered, reread=reread)
        not_earlier = [other.version for other in VERSIONS if other.uri == obj.uri and other.last_modified >= obj.last_modified]
        assert contested == {
            ObjectVersion(*key[1:])
            for key in self.keys(uri=obj.uri)
            if self.rows[key].status is not Status.SUPERSEDED and key[1:] in not_earlier
        } - {obj.version}
        others = [key for key in self.keys(uri=obj.uri) if key[1:] != obj.version]
        elsewhere = [key for key in self.keys(version=obj.version) if key[0] not in (covered or [obj.home_slice])]
        self.happens(Event.OVERWRITTEN, *others)
        self.happens(Event.NOT_COVERED, *elsewhere)
        if reread:
            self.happens(Event.NO_LONGER_COVERED, *[key for key in elsewhere if key in self.rows])
        self.happens(Event.READABLE, *[(bucket, *obj.version) for bucket in covered])
        if not covered:
            self.happens(Event.UNREADABLE, (obj.home_slice, *obj.version))

    @rule(obj=versions)
    def ask_which_version_is_current(self, obj: LandedObject) -> None:
        others = [other.version for other in VERSIONS if other.uri == obj.uri and other.version != obj.version]
        registry.supersede(self.connection, others, obj.version)
        self.happens(Event.NOT_CURRENT, *[key for key in self.keys(uri=obj.uri) if key[1:] != obj.version])

    @rule(uri=uris)
    def disappear(self, uri: str) -> None:
        registry.mark_gone(self.connection, [uri])
        self.happens(Event.DISAPPEARED, *self.keys(uri=uri))

    @rule(bucket=st.sampled_from(BUCKETS))
    def replace_slice(self, bucket: datetime) -> None:
        replace_slices(self.connection, Window.of_slice(bucket))
        self.happens(Event.SLICE_REPLACED, *[key for key in self.keys() if key[0] == bucket])

    @rule(bucket=st.sampled_from(BUCKETS))
    def find_unequal(self, bucket: datetime) -> None:
        with self.connection.transaction(), self.connection.cursor() as cursor:
            registry.withdraw_loaded(cursor, [bucket])
        keys = [key for key in self.keys() if key[0] == bucket]
        if SOURCE_GONE not in {self.rows[key] for key in keys}:
            self.happens(Event.SLICE_UNEQUAL, *keys)

    @invariant()
    def the_registry_is_as_the_table_says(self) -> None:
        assert read_rows(self.connection) == self.rows

    @invariant()
    def the_view_sums_up_each_slice(self) -> None:
        by_slice = {bucket: [state for key, state in self.rows.items() if key[0] == bucket] for bucket in BUCKETS}
        states = {bucket: state for bucket, rows in by_slice.items() if rows and (state := slice_state(rows))}
        assert dict(self.connection.execute("SELECT bucket_5m, state FROM landing.slices").fetchall()) == states

    @invariant()
    def slices_with_work_that_can_be_done_wait(self) -> None:
        waiting = read_waiting_slices(self.connection, NOON + timedelta(days=36_500), grace=SLICE)
        found = []
        for bucket in BUCKETS:
            rows = {state for key, state in self.rows.items() if key[0] == bucket}
            work = {row for row in rows & UNSETTLED if SOURCE_GONE not in rows or row.status is Status.NOTICED}
            found += [bucket] if work else []
        assert [one.bucket for one in waiting.due] == found


def test_any_order_of_events_leads_where_the_table_says(store: StoreUnderTest) -> None:
    machine = type("Machine", (RegistryMachine,), {"connection": store.connection})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=25))


def test_no_other_module_writes_the_registry() -> None:
    writes = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM|TRUNCATE|COPY) landing\.raw_blobs_5m")
    definitions = [*(PROJECT / "btc_assets").rglob("*.py"), *(PROJECT / "sql").glob("*/repeatable/*.sql")]
    assert [path.name for path in definitions if writes.search(path.read_text())] == ["registry.py"]


def test_the_symbol_of_the_registry_is_its_asset_and_nothing_can_part_them(store: StoreUnderTest) -> None:
    store.land(every(1, 600))
    store.register(HOUR)
    for relation in ("landing.raw_blobs_5m", "landing.slices"):
        assert store.rows(f"SELECT DISTINCT asset, symbol FROM {relation}") == [("BTCUSDT", "BTCUSDT")]
    store.connection.execute("UPDATE landing.raw_blobs_5m SET asset = 'BTCUSDT.P'")
    assert store.rows("SELECT DISTINCT symbol FROM landing.slices") == [("BTCUSDT.P",)]
    with pytest.raises(psycopg.errors.GeneratedAlways):
        store.connection.execute("UPDATE landing.raw_blobs_5m SET symbol = 'BTCUSDT'")
