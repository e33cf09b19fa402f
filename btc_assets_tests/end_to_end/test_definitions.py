"""The assets as Dagster runs them: ranges, single slices, metadata, checks, and what a person reads when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.landing import reading
from btc_assets.market_data import assets as market_data
from btc_assets.market_data import early_load
from btc_assets.market_data.candles import INTERVALS
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.partitions import Partitions, partition_tags
from btc_assets_tests.support.daemon import QUIET_LOG
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every, messages
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for

TICKS = dg.AssetKey(["market_data", "btc_ticks"])


def run(store: StoreUnderTest, window: Window, *, run_config: dict[str, object] | None = None) -> dg.ExecuteInProcessResult:
    """The job `ingest` over a range of slices."""
    job = store.definitions.resolve_job_def("ingest")
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, tags=partition_tags(window), run_config=run_config, raise_on_error=False)


def failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        f"{e.asset_key.to_user_string()} {e.check_name}": str(e.metadata["examples"].value)
        for e in result.get_asset_check_evaluations()
        if not e.passed
    }


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_node_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None and data.description is not None
    return data.description


def columns_shown(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, dg.TableColumn]:
    """The columns of a table as the asset's page lists them."""
    schema = metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    return {column.name: column for column in schema.columns}


def test_a_range_is_one_run_with_ticks_candles_and_checks(store: StoreUnderTest) -> None:
    store.land(every(1, 3600))
    result = run(store, HOUR)
    assert result.success and failed_checks(result) == {}
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(3600,)]
    assert store.rows("SELECT count(*), sum(trade_count) FROM market_data.candles_1m") == [(60, 3600)]
    events = result.asset_materializations_for_node("market_data__btc_ticks")
    assert len(events) == 12
    metadata = events[-1].metadata
    shown = {
        name: metadata[name].value
        for name in ("dagster/row_count", "objects", "rejected_rows", "duplicates_removed", "first_trade_id", "last_trade_id")
    }
    assert shown == {
        "dagster/row_count": 3600, "objects": 240, "rejected_rows": 0, "duplicates_removed": 0, "first_trade_id": 1, "last_trade_id": 3600,
    }  # fmt: skip
    assert {"seconds", "rows_per_second", "dagster/column_schema", "dagster/uri"} <= metadata.keys()


def test_a_run_loads_ticks_while_it_registers_and_counts_all_of_them(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_GROUP_OBJECTS", 10)
    monkeypatch.setenv("BTC_ASSETS_COMMIT_ROWS", "1000")
    loaded_early = []

    @contextmanager
    def watched(*arguments: Any) -> Iterator[Callable[[datetime], None]]:
        with early_load.loading_early(*arguments) as tell:

            def on_settled(before: datetime) -> None:
                tell(before)
                if before == HOUR.end:
                    wait_for(lambda: store.rows("SELECT FROM market_data.btc_ticks"), "the first part is loaded")
                    loaded_early.append(before)

            yield on_settled

    monkeypatch.setattr(market_data, "loading_early", watched)
    store.land(every(1, 3600), every(3601, 600, start=HOUR.end))
    result = run(store, HOUR)
    assert result.success and failed_checks(result) == {} and loaded_early
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(3600,)]
    metadata = result.asset_materializations_for_node("market_data__btc_ticks")[-1].metadata
    assert {name: metadata[name].value for name in ("rows", "slices_with_ticks", "last_trade_id")} == {
        "rows": 3600, "slices_with_ticks": 12, "last_trade_id": 3600,
    }  # fmt: skip


def test_a_run_that_only_registers_loads_nothing(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_data, "loading_early", None)  # it would fail
    store.land(every(1, 3600))
    job = store.definitions.resolve_job_def("ingest")
    registry = dg.AssetKey(["landing", "raw_blobs_5m"])
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, tags=partition_tags(HOUR), asset_selection=[registry]).success
    assert store.rows("SELECT count(*), count(loaded_at) FROM landing.raw_blobs_5m") == [(240, 0)]


def test_each_slice_of_a_range_shows_its_own_number_of_rows(store: StoreUnderTest) -> None:
    store.land(every(1, 450))
    events = {event.partition: event for event in run(store, HOUR).asset_materializations_for_node("market_data__btc_ticks")}
    counts = [events[start.strftime(KEY_FORMAT)].metadata["dagster/partition_row_count"].value for start in list(HOUR.slices())[:3]]
    assert counts == [300, 150, 0]


def test_every_asset_shows_its_rows_its_table_and_what_the_columns_mean(store: StoreUnderTest) -> None:
    store.land(every(1, 3600))
    result = run(store, HOUR)
    with dg.DagsterInstance.ephemeral() as instance:
        operations = [
            store.definitions.resolve_job_def(job).execute_in_process(instance=instance, run_config=QUIET_LOG)
            for job in ("maintain", "reconcile")
        ]
    shown = {_table(event): event.materialization.metadata for done in (result, *operations) for event in _materializations(done)}
    assert {name: metadata["dagster/row_count"].value for name, metadata in shown.items()} == {
        "raw_blobs_5m": 240, "btc_ticks": 3600, "candles_1s": 3600, "candles_30s": 120, "candles_1m": 60, "candles_5m": 12,
        "candles_1h": 1, "candles_1d": 1, "slice_features": 12, "btc_embeddings": 0, "retention_jobs": 0, "reconciliations": 1,
    }  # fmt: skip
    for spec in store.definitions.resolve_all_asset_specs():
        if spec.group_name == "history" or spec.key.path[-1] not in shown:  # history has the same tables, the others need a model
            continue
        assert spec.metadata["dagster/table_name"] == ".".join(spec.key.path)
        columns = columns_shown(shown[spec.key.path[-1]])
        assert columns and all(column.type and column.description for column in columns.values())
    price, buyer = (columns_shown(shown["btc_ticks"])[name] for name in ("price", "buyer_order_id"))
    assert (price.type, price.description, price.constraints.nullable) == ("numeric", "Price in quote currency (USDT)", False)
    assert (buyer.type, buyer.constraints.nullable) == ("bigint", True)


def test_pictures_and_column_schemas_are_stored_once_a_run_with_its_last_slice(store: StoreUnderTest) -> None:
    store.land(every(1, 3600))
    result = run(store, HOUR)
    drawn = {}
    for event in _materializations(result):
        names = [name for name, value in event.materialization.metadata.items() if "data:image/svg+xml" in str(value.value)]
        assert ("dagster/column_schema" in event.materialization.metadata) == (event.partition == "2024-01-10T12:55Z")
        if names:
            assert event.partition == "2024-01-10T12:55Z"
            drawn[_table(event)] = names
    # 3,600 candles of a second would be too small to see, and one candle of an hour is not worth a picture.
    assert drawn == {
        "btc_ticks": ["volume and gaps of BTCUSDT"], "candles_30s": ["candlesticks of BTCUSDT"], "candles_1m": ["candlesticks of BTCUSDT"], "candles_5m": ["candlesticks of BTCUSDT"],
    }  # fmt: skip


def _table(event: dg.DagsterEvent) -> str:
    assert event.asset_key is not None
    return event.asset_key.path[-1]


def _materializations(result: dg.ExecuteInProcessResult) -> list[dg.DagsterEvent]:
    return [event for event in result.all_events if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION]


def test_all_five_minute_assets_share_one_partitions_definition_and_run_as_ranges(store: StoreUnderTest) -> None:
    assets = list(store.definitions.resolve_all_asset_specs())
    assert {spec.key.path[0] for spec in assets} == {"landing", "market_data", "signals", "ops"}
    assert {spec.partitions_def for spec in assets if spec.group_name in ("landing", "market_data", "signals")} == {
        Partitions.of(store.settings).slices
    }
    assert {spec.partitions_def for spec in assets if spec.group_name in ("encoders", "ops")} == {None}
    graph = store.definitions.resolve_asset_graph()
    assert {graph.get(spec.key).backfill_policy for spec in assets} == {dg.BackfillPolicy.single_run()}


def test_history_ends_where_the_slices_begin(store: StoreUnderTest) -> None:
    partitions = Partitions.of(store.settings)
    assert partitions.history is not None
    assert {spec.partitions_def for spec in store.definitions.resolve_all_asset_specs() if spec.group_name == "history"} == {
        partitions.history
    }
    assert partitions.history.get_last_partition_key() == "2020-01-31"
    end = partitions.history.time_window_for_partition_key("2020-01-31").end
    assert end == store.settings.first_slice == partitions.slices.start


def test_an_unreadable_object_a_bad_row_and_a_gap_each_fail_a_check_and_the_rest_loads(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    store.land(every(1, 60, start=NOON + timedelta(seconds=100), first_id=101))
    empty = store.put("2024/01/10/12/00/batch-x.parquet", b"")
    rows = (
        b"trade_id,symbol,trade_time,price,quantity,is_market_maker\n"
        b"900,BTCUSDT,1704888002000,,1,true\n"
        b"161,BTCUSDT,1704888160000,42000,1,true\n"
    )
    bad = store.put("2024/01/10/12/00/batch-y.csv", rows)
    result = run(store, HOUR)
    assert result.success
    assert failed_checks(result) == {
        "landing/raw_blobs_5m no_open_problem": (
            f"* {empty}: the object is empty (0 bytes): land it again\n"
            f"* {bad}: 1 row(s) are no valid trades of the feed, such as row 1: price is null"
        ),
        "landing/raw_blobs_5m no_rejected_object": f"* {empty}: the object is empty (0 bytes): land it again",
        "landing/raw_blobs_5m no_rejected_row": f"* {bad}, row 1: price is null",
        "market_data/btc_ticks trade_ids_contiguous": "* BTCUSDT 61 to 100 (40 trades) before 2024-01-10T12:00Z",
    }
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(121,)]


def test_a_run_makes_the_candles_of_the_other_slices_that_it_had_to_load(store: StoreUnderTest) -> None:
    late = timedelta(seconds=20)
    for name, sent in (("a-dump", None), ("stream", late)):  # a dump has no event times
        rows = every(10, 60).to_pylist()
        store.put(f"2024/01/10/12/09/{name}.jsonl", messages([row | {"event_time": sent and row["trade_time"] + sent} for row in rows]))
        window = HOUR if sent is None else Window.of_slice(NOON + 2 * SLICE)  # the second run takes two trades from the slice before
        result = run(store, window)
        assert result.success and failed_checks(result) == {}
        assert store.rows("SELECT count(*), count(DISTINCT trade_id) FROM market_data.btc_ticks") == [(60, 60)]
        for interval in ("1s", "1m", "1h", "1d"):
            assert store.rows(f"SELECT sum(trade_count) FROM market_data.candles_{interval}") == [(60,)]
    assert store.rows("SELECT bucket_5m, count(*) FROM market_data.btc_ticks GROUP BY 1 ORDER BY 1")[-1] == (NOON + 2 * SLICE, 2)


def checks_alone(store: StoreUnderTest, selection: dg.AssetSelection) -> dg.ExecuteInProcessResult:
    """Checks run by themselves, over the last week."""
    built = store.definitions
    job = dg.Definitions(
        assets=built.assets, asset_checks=built.asset_checks, resources=built.resources, executor=dg.in_process_executor,
        jobs=[dg.define_asset_job("checks", selection=selection)],
    )  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        return job.resolve_job_def("checks").execute_in_process(instance=instance)


def test_rows_changed_behind_the_store_fail_the_checks(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    run(store, HOUR)
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id = 60")
    store.connection.execute("INSERT INTO market_data.conflicting_trades VALUES (%s, 'BTCUSDT', 2, '[]')", (NOON,))
    for interval in INTERVALS:
        store.connection.execute(f"UPDATE market_data.candle_partials_{interval} SET volume = volume + 1 WHERE last_trade_id = 60")
    store.connection.execute("UPDATE signals.slice_features SET trade_count = 61")
    failed = failed_checks(checks_alone(store, dg.AssetSelection.all_asset_checks()))
    assert (
        failed["market_data/btc_ticks registry_equals_table"]
        == "* BTCUSDT 2024-01-10T12:00Z: loaded, 60 rows by the registry, 59 in the table"
    )
    assert "BTCUSDT 2024-01-10T12:00Z: 2 version(s) of trades contradict" in failed["market_data/btc_ticks versions_agree"]
    assert "BTCUSDT 2024-01-10T12:00Z: 59 ticks" in failed["signals/slice_features features_equal_ticks"]
    assert {name for name in failed if "volume_equals_ticks" in name} == {
        f"market_data/candles_{of} volume_equals_ticks" for of in (*INTERVALS, "history")
    }


def test_one_check_of_a_step_can_be_run_alone(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    run(store, HOUR)
    store.connection.execute("UPDATE market_data.btc_ticks SET price = price + 1 WHERE trade_id = 60")
    alone = dg.AssetSelection.checks(dg.AssetCheckKey(TICKS, "registry_equals_table"))
    assert list(failed_checks(checks_alone(store, alone))) == ["market_data/btc_ticks registry_equals_table"]
    green = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["market_data", "candles_1m"]), "volume_equals_ticks"))
    (evaluation,) = checks_alone(store, green).get_asset_check_evaluations()
    assert evaluation.passed and evaluation.check_name == "volume_equals_ticks"


def test_the_checks_of_a_run_are_four_steps_with_fifteen_results(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    result = run(store, HOUR)
    assert len(result.get_asset_check_evaluations()) == 15
    steps = {event.step_key for event in result.all_events if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION}
    assert steps == {"check_registry", "check_ticks", "check_candles", "check_signals"}


def test_a_landing_directory_that_does_not_exist_is_named(store: StoreUnderTest) -> None:
    store.landing.rmdir()
    assert failure(run(store, HOUR)) == (
        f"The landing zone {store.landing} is not a directory: create it, or set BTC_ASSETS_LANDING_URL to where objects land."
    )


def test_a_server_that_is_down_is_named_without_its_password(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", "postgresql://loader:s3cret@127.0.0.1:1/btc")
    assert failure(run(store, HOUR)) == "PostgreSQL at 127.0.0.1:1/btc cannot be reached: start it, or correct BTC_ASSETS_DSN."


def test_a_database_that_was_not_migrated_is_named(store: StoreUnderTest, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", empty_database)
    assert (
        failure(run(store, HOUR))
        == 'The database is not set up (relation "landing.raw_blobs_5m" does not exist): run btc-assets db migrate.'
    )


def test_an_object_that_is_gone_can_be_forced_from_the_launchpad(store: StoreUnderTest) -> None:
    uris = store.land(every(10, 60), seconds=300)
    run(store, HOUR)
    store.delete(uris[0])
    assert "is gone: restore it" in failure(run(store, HOUR))
    assert run(store, HOUR, run_config={"ops": {"market_data__btc_ticks": {"config": {"force": True}}}}).success
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(30,)]


CHAIN = "group:landing or group:market_data"
TICKS_ALONE = 'key:"market_data/btc_ticks"'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("select", "partitions", "expected"),
    [
        (CHAIN, ["--partition", "2024-01-10T12:00Z"], 300),
        (CHAIN, ["--partition-range", "2024-01-10T12:00Z...2024-01-10T12:05Z"], 600),
        (TICKS_ALONE, ["--partition-range", "2024-01-10T00:00Z...2024-01-10T23:55Z"], 600),
    ],
    ids=["a slice", "a range", "all ticks of a day"],
)
def test_the_dagster_command_line_materializes(store: StoreUnderTest, select: str, partitions: list[str], expected: int) -> None:
    store.land(every(1, 600))
    if select == TICKS_ALONE:
        store.register(HOUR)
    prepare_dagster_home(store.settings)
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "btc_assets.definitions", "--select", select, *partitions]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(expected,)]
    runs = store.rows("SELECT status FROM dagster.runs")  # Dagster's own tables, beside the rooms
    assert runs == [("SUCCESS",)]
