"""The states of partitions that the UI shows, built anew: after they are lost, and after the start of the partitions moved."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from starlette.testclient import TestClient

from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.partition_runs import contiguous_runs
from btc_assets.orchestration.partitions import Partitions, partition_tags
from btc_assets.orchestration.webserver import GuardedWebserver
from btc_assets_tests.support.dagster_private import (
    AssetStatusCacheValue,
    DaemonWorkspace,
    LoadingContextForTest,
    ModuleTarget,
    PostgresEventLogStorage,
)
from btc_assets_tests.support.stores import StoreUnderTest

TICKS = dg.AssetKey(["market_data", "btc_ticks"])


# ---- keys to windows


def test_contiguous_partitions_are_one_window_and_keys_of_none_are_left_out() -> None:
    noon = datetime(2024, 1, 10, 12, tzinfo=UTC)
    keys = ["2024-01-10T11:55Z", *(f"2024-01-10T12:{minute:02}Z" for minute in (0, 5, 7, 20, 25, 30)), "2024-01-10T12:5", "soon"]
    assert contiguous_runs(keys, noon, noon + 5 * SLICE, SLICE) == [(noon, noon + 2 * SLICE), (noon + 4 * SLICE, noon + 6 * SLICE)]
    days = contiguous_runs(["2024-01-09", "2024-01-10", "2024-01-12"], noon - 12 * timedelta(hours=1), noon + 9 * DAY, DAY)
    assert days == [(datetime(2024, 1, day, tzinfo=UTC), datetime(2024, 1, day + 1, tzinfo=UTC)) for day in (10, 12)]


# ---- beside Dagster's own


@pytest.fixture
def instance(store: StoreUnderTest) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance, with the event log of this project."""
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        yield instance


def forget_states(store: StoreUnderTest) -> None:
    """Lose Dagster's cache of the states of partitions."""
    store.connection.execute("UPDATE dagster.asset_keys SET cached_status_data = NULL")


@pytest.mark.parametrize("seed", range(2))
def test_the_states_are_those_that_dagster_builds_itself(store: StoreUnderTest, instance: dg.DagsterInstance, seed: int) -> None:
    chance = random.Random(seed)
    first = floor_day(datetime.now(UTC)) - DAY

    @dg.asset(key=["of", "slices"], partitions_def=Partitions.of(store.settings).slices, backfill_policy=dg.BackfillPolicy.single_run())
    def sliced() -> None:
        if chance.random() < 0.4:
            raise dg.Failure("it is the turn of this run to fail", allow_retries=False)

    job = dg.define_asset_job("job", [sliced], executor_def=dg.in_process_executor).resolve(
        asset_graph=dg.Definitions([sliced]).resolve_asset_graph()
    )
    for _ in range(8):
        start = first + chance.randrange(200) * SLICE
        tags = partition_tags(Window(start, start + chance.randint(1, 20) * SLICE))
        job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    instance.report_runless_asset_event(dg.AssetMaterialization(sliced.key, partition="not a slice"))
    for moved in (first, first + 100 * SLICE):
        definition = dg.TimeWindowPartitionsDefinition(start=moved, cron_schedule="*/5 * * * *", fmt=KEY_FORMAT, timezone="UTC")
        states = []
        for log in (type(instance.event_log_storage), PostgresEventLogStorage):
            forget_states(store)
            (value,) = log.get_asset_status_cache_values(
                instance.event_log_storage, [(sliced.key, definition)], LoadingContextForTest(instance)
            )
            states.append(keys_by_state(value, definition))
        assert states[0] == states[1]
        assert min(states[0][0] | states[0][1]) >= moved.strftime(KEY_FORMAT)


def keys_by_state(
    value: AssetStatusCacheValue | None, definition: dg.TimeWindowPartitionsDefinition
) -> tuple[set[str], set[str], set[str]]:
    assert value is not None
    return (
        set(value.deserialize_materialized_partition_subsets(definition).get_partition_keys()),
        set(value.deserialize_failed_partition_subsets(definition).get_partition_keys()),
        set(value.deserialize_in_progress_partition_subsets(definition).get_partition_keys()),
    )


def test_states_that_are_lost_are_built_without_converting_each_partition(
    store: StoreUnderTest, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = Partitions.of(store.settings).slices
    first = definition.start
    instance.report_runless_asset_event(dg.AssetMaterialization(TICKS, partition=first.strftime(KEY_FORMAT)))
    monkeypatch.setattr(type(instance), "get_materialized_partitions", lambda *_, **__: pytest.fail("Dagster reads the whole log"))
    for _ in range(2):  # the second time from the cache
        (value,) = instance.event_log_storage.get_asset_status_cache_values([(TICKS, definition)], LoadingContextForTest(instance))
        assert keys_by_state(value, definition) == ({first.strftime(KEY_FORMAT)}, set(), set())


# ---- as the webserver answers

_STATES = """
query States($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      partitionStats { numMaterialized numFailed numMaterializing numPartitions }
      assetPartitionStatuses { ... on TimePartitionStatuses { ranges { status startKey endKey } } }
    }
  }
}
"""


@contextmanager
def webserver(instance: dg.DagsterInstance) -> Iterator[TestClient]:
    """A client of the webserver, whose code location has the start of the partitions that the environment names."""
    with DaemonWorkspace(instance, ModuleTarget("btc_assets.definitions", None, None, "btc_assets")) as workspace:
        app = GuardedWebserver(workspace).create_asgi_app()
        yield TestClient(app, base_url="http://localhost", headers={"host": "localhost"})


def read_states(client: TestClient, key: dg.AssetKey = TICKS) -> tuple[dict[str, int], list[tuple[str, str, str]]]:
    answer = client.post("/graphql", json={"query": _STATES, "variables": {"key": {"path": list(key.path)}}}).json()
    node = answer["data"]["assetNodeOrError"]
    ranges = [(one["status"], one["startKey"], one["endKey"]) for one in node["assetPartitionStatuses"]["ranges"]]
    return node["partitionStats"], ranges


@pytest.mark.slow
def test_the_webserver_shows_what_was_made_failed_and_is_missing_after_the_states_are_lost_and_the_start_moves(
    store: StoreUnderTest, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = floor_day(datetime.now(UTC)) - 3 * DAY

    def key(slices: int) -> str:
        return (first + slices * SLICE).strftime(KEY_FORMAT)

    def run(start: int, end: int) -> bool:
        tags = partition_tags(Window(first + start * SLICE, first + end * SLICE))
        job = store.definitions.resolve_job_def("ingest")
        return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False).success

    def counts(stats: dict[str, int]) -> tuple[int, int, int]:
        return stats["numMaterialized"], stats["numFailed"], stats["numPartitions"] - stats["numMaterialized"] - stats["numFailed"]

    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", key(0))
    assert run(0, 24) and run(48, 60)
    store.landing.rename(store.landing.with_name("away"))
    assert not run(60, 66)
    store.landing.with_name("away").rename(store.landing)
    with webserver(instance) as client:
        forget_states(store)
        for _ in range(2):
            stats, ranges = read_states(client)
            assert counts(stats) == (36, 6, stats["numPartitions"] - 42) and stats["numPartitions"] >= 3 * 288
            assert ranges == [("MATERIALIZED", key(0), key(23)), ("MATERIALIZED", key(48), key(59)), ("FAILED", key(60), key(65))]
        assert run(60, 61)
        assert counts(read_states(client)[0])[:2] == (37, 5)
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", key(50))
    with webserver(instance) as client:
        stats, ranges = read_states(client)
        assert counts(stats)[:2] == (11, 5)
        assert ranges == [("MATERIALIZED", key(50), key(60)), ("FAILED", key(61), key(65))]
