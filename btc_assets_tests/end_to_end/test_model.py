"""After any sequence of landings, overwrites, deletions and loads, the table is the de-duplicated content of the current objects."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.market_data import candles
from btc_assets.market_data.slice_records import read_record_differences
from btc_assets.simulation.batches import encode_batch
from btc_assets.store import writers
from btc_assets.store.encode import EncodedRows
from btc_assets.store.replace import Replacement, replace_slices
from btc_assets.store.tables import Target
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import NOON, table, trade

RANGE = Window(NOON, NOON + 4 * SLICE)

# A trade is determined by its id, as on the exchange: its time and its price follow from it.
trade_ids = st.integers(0, 119)
batches = st.lists(trade_ids, min_size=3, max_size=15)
names = st.sampled_from(["a", "b", "c", "d", "e"])
windows = st.tuples(st.integers(0, 3), st.integers(1, 4)).map(
    lambda pair: Window(NOON + pair[0] * SLICE, min(NOON + (pair[0] + pair[1]) * SLICE, RANGE.end))
)


def the_trade(trade_id: int) -> dict[str, object]:
    at = NOON + trade_id * timedelta(seconds=10)
    return trade(trade_id, at, made=at - timedelta(seconds=trade_id % 3), price=f"{100 + trade_id % 17}.5", maker=trade_id % 2 == 0)


@dataclass
class Model:
    """What must hold: objects by name, and the ids that each slice was last loaded with."""

    objects: dict[str, list[int]] = field(default_factory=dict)
    registered: dict[str, list[int]] = field(default_factory=dict)
    loaded: dict[object, set[int]] = field(default_factory=dict)
    loaded_from: dict[object, dict[str, list[int]]] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    store: StoreUnderTest

    @initialize(landed=st.dictionaries(names, batches, min_size=2))
    def start_with_some_objects_loaded(self, landed: dict[str, list[int]]) -> None:
        self.model = Model()
        self.store.connection.execute(
            "TRUNCATE landing.raw_blobs_5m, landing.rejected_rows, market_data.btc_ticks, market_data.loaded_slices, ingestion.stream_offsets"
        )
        for interval in candles.INTERVALS:
            self.store.connection.execute(f"TRUNCATE market_data.candle_partials_{interval}")
        shutil.rmtree(self.store.landing)
        self.store.landing.mkdir()
        for name, batch in landed.items():
            self.land(name, batch)
        self.ingest(RANGE, force=False)

    @rule(name=names, batch=batches)
    def land(self, name: str, batch: list[int]) -> None:
        """Land a new object or overwrite one."""
        self.store.put(f"2024/01/10/12/00/{name}.parquet", encode_batch(table([the_trade(i) for i in batch]), FEED)[1])
        self.model.objects[name] = batch

    @precondition(lambda self: self.model.objects)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.objects)))
        self.store.delete(f"{self.store.zone().url}/{FEED.prefix}/2024/01/10/12/00/{name}.parquet")
        del self.model.objects[name]

    @rule(window=st.one_of(st.just(RANGE), windows), force=st.booleans())
    def ingest(self, window: Window, force: bool) -> None:
        self.store.register(RANGE)  # the objects lie in the folder of the first slice
        refused = self.refused(window) if not force else set()
        try:
            self.store.load(window, force=force, commit_rows=30)
            assert not refused
        except UserError as error:
            assert refused and "is gone" in str(error)
        for bucket in set(window.slices()) - refused:
            self.model.loaded[bucket] = {i for ids in self.model.objects.values() for i in ids if self.slice_of(i) == bucket}
            self.model.loaded_from[bucket] = {
                name: ids for name, ids in self.model.objects.items() if any(self.slice_of(i) == bucket for i in ids)
            }
        self.store.refresh(window)

    def refused(self, window: Window) -> set[object]:
        """Slices that were loaded from an object that no longer exists, with any content."""
        return {
            bucket for bucket in window.slices() if any(name not in self.model.objects for name in self.model.loaded_from.get(bucket, {}))
        }

    def slice_of(self, trade_id: int) -> object:
        return floor_slice(the_trade(trade_id)["event_time"])  # type: ignore[arg-type]

    @invariant()
    def the_table_is_what_was_loaded(self) -> None:
        rows = self.store.rows("SELECT bucket_5m, trade_id, price FROM market_data.btc_ticks")
        expected = {(bucket, i, the_trade(i)["price"]) for bucket, ids in self.model.loaded.items() for i in ids}
        assert len(rows) == len(expected)
        assert set(rows) == expected

    @invariant()
    def the_offset_is_the_newest_trade(self) -> None:
        ids = [i for ids in self.model.loaded.values() for i in ids]
        rows = self.store.rows("SELECT last_sequence FROM ingestion.stream_offsets")
        if ids:
            assert rows == [(max(ids),)]

    @invariant()
    def candles_hold_the_volume_of_the_ticks(self) -> None:
        for interval in ("1s", "1m", "1d"):
            assert candles.read_candle_differences(self.store.connection, interval, RANGE) == []

    @invariant()
    def the_record_of_the_loads_is_what_the_table_holds(self) -> None:
        assert read_record_differences(self.store.connection, RANGE) == []


@pytest.mark.slow
def test_the_table_equals_the_current_objects_after_any_sequence(store: StoreUnderTest) -> None:
    machine = type("BoundMachine", (Machine,), {"store": store})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
    )


def test_the_model_finds_a_loader_that_loses_rows(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def loses_a_row(connection: psycopg.Connection, target: Target, replacement: Replacement, encoded: EncodedRows) -> list[str]:
        chunks = replace_slices(connection, target, replacement, encoded)
        connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id % 10 = 7")
        return chunks

    monkeypatch.setattr(writers, "replace_slices", loses_a_row)
    machine = type("BoundMachine", (Machine,), {"store": store})
    with pytest.raises((AssertionError, UserError)):  # refreshing candles refuses where a slice lost all of its rows
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
            ),
        )
