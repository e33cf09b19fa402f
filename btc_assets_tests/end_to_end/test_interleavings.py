"""Whatever two sessions do at the same time, in whatever order their statements come, the store ends exact.

At the end of each schedule what is unsettled is loaded, as the sensors would, and the store is compared with what landed: until then no
slice holds anything but what the registry calls loaded.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TABLE
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.store.database import Store
from btc_assets.store.encode import encode_rows
from btc_assets.store.replace import Replacement, Stale, replace_slices
from btc_assets.store.tables import Target
from btc_assets_tests.support import truth
from btc_assets_tests.support.interleaving import Session, all_schedules, run_schedule, schedules_with_switches
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import NOON, every
from btc_assets_tests.support.truth import Landings

WINDOW = Window(NOON, NOON + 2 * SLICE)
TEN_MINUTES = timedelta(minutes=10)
LONG = os.environ.get("BTC_ASSETS_TEST_INTERLEAVINGS") == "all"
_REGISTRY = re.compile(r"landing\.raw_blobs_5m|COMMIT")  # other statements of the two touch nothing in common


@dataclass
class Scene:
    """A store whose window was loaded, and what may happen to it then."""

    store: StoreUnderTest
    landed: Landings

    @classmethod
    def of(cls, store: StoreUnderTest) -> Scene:
        store.connection.execute(
            "TRUNCATE landing.raw_blobs_5m, landing.rejected_rows, market_data.btc_ticks, market_data.loaded_slices, ingestion.stream_offsets"
        )
        store.connection.execute("TRUNCATE ingestion.due_slices, ops.reconciliations")
        shutil.rmtree(store.landing)
        store.landing.mkdir()
        scene = cls(store, Landings(store))
        scene.land(every(1, 400), "a")  # of both slices
        scene.land(every(1, 20, first_id=1000, start=NOON + timedelta(seconds=7)), "b")
        store.register(WINDOW)
        store.load(WINDOW, writers=1)
        return scene

    def land(self, ticks: pa.Table, name: str) -> None:
        uri = self.landed.put(ticks, name, folder=NOON)
        obj = self.store.zone().head(uri, FEED.prefix)
        assert obj is not None
        # In a directory an ETag is no hash of the content.
        self.landed.versions[uri, obj.etag.strip('"')] = self.landed.versions.pop((uri, self.landed.current[uri]))
        self.landed.current[uri] = obj.etag.strip('"')

    # what may happen

    def register(self, store: Store) -> None:
        with store.connect() as connection:
            register_window(connection, self.store.zone(), FEEDS, WINDOW, RegisterOptions(timedelta(minutes=5)))

    def load(self, store: Store) -> None:
        load = TickLoad(store, self.store.zone(), FEEDS, WINDOW, LoadOptions(100_000))
        try:
            with store.connect() as connection:
                target = Target.of(connection, TABLE)
                for part in load:
                    _write(connection, target, part)
        except UserError as error:
            assert "is gone" in str(error)

    def reconcile(self, store: Store) -> None:
        with store.connect() as connection:
            options = ReconcileOptions(heal=True, min_object_age=timedelta(0))
            reconcile(connection, self.store.zone(), FEEDS, WINDOW, datetime.now(UTC), options)

    def overwrite_and_register(self, store: Store) -> None:
        """Object a leaves the first slice."""
        self.land(every(1, 30, first_id=2000, start=NOON + SLICE), "a")
        self.register(store)

    def land_and_register(self, store: Store) -> None:
        self.land(every(1, 30, first_id=3000, start=NOON + timedelta(seconds=3)), "c")
        self.register(store)

    def delete_and_register(self, store: Store) -> None:
        """Object b: its rows stay, until it lands again at the end."""
        (uri,) = [uri for uri in self.landed.current if uri.endswith("b.parquet")]
        self.store.delete(uri)
        del self.landed.current[uri]
        self.register(store)

    # in the end

    def settle(self) -> None:
        """Do what the sensors request, until nothing is left; then every object is there again, and the store must be exact."""
        check_on_the_way_of_registry(self.landed)
        self.register(self.store.database)
        self.load(self.store.database)
        check_on_the_way_of_registry(self.landed)
        if not any(uri.endswith("b.parquet") for uri in self.landed.current):
            self.land(every(1, 20, first_id=1000, start=NOON + timedelta(seconds=7)), "b")
        for _ in range(2):
            self.register(self.store.database)
            self.load(self.store.database)
        check_on_the_way_of_registry(self.landed)
        with self.store.connect() as connection:
            seen = truth._Seen(connection)
        assert seen.table == self.landed.now()
        current = {entry.version for entry in seen.entries if entry.status == "registered"}
        assert current == set(self.landed.current.items())
        assert all(entry.loaded == (entry.status == "registered") for entry in seen.entries), seen.entries


def check_on_the_way_of_registry(landed: Landings) -> None:
    """Assert that each slice holds exactly what the registry calls loaded."""
    with landed.store.connect() as connection, connection.transaction():
        seen = truth._Seen(connection)
        found = [*truth._ticks(landed, seen), *truth._offsets(seen)]
        assert not found, "\n".join(found)


def _write(connection: object, target: Target, replacement: Replacement) -> None:
    try:
        replace_slices(connection, target, replacement, encode_rows(replacement.rows, target))  # type: ignore[arg-type]
    except Stale:
        for fresh in replacement.rebuild():
            _write(connection, target, fresh)


BESIDE = ("register", "overwrite_and_register", "land_and_register", "delete_and_register", "reconcile", "load")


@pytest.mark.slow
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("first", ["load"])
def test_any_interleaving_of_two_sessions_ends_exact(
    store: StoreUnderTest, first: str, beside: str, record_property: Callable[[str, object], None]
) -> None:
    def run(choices: Sequence[int]) -> list[list[int]]:
        scene = Scene.of(store)
        if first == "load" and beside != "load":
            scene.land(every(1, 25, first_id=4000, start=NOON + timedelta(seconds=11)), "d")  # something to load
            store.register(WINDOW)
        sessions = [Session(store.dsn, getattr(scene, name), lambda text: bool(_REGISTRY.search(text))) for name in (first, beside)]
        turns = run_schedule(store.connection, sessions, choices)
        errors = [session.error for session in sessions if session.error]
        assert not errors, errors
        scene.settle()
        return turns

    count = all_schedules(run) if LONG else schedules_with_switches(run, 1)
    record_property("schedules", count)
    print(f"{first} beside {beside}: {count} schedules")
