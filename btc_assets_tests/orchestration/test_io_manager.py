"""CopyIOManager: Arrow of any kind into any table with slices, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import dagster as dg
import pyarrow as pa
import pytest

from btc_assets.domain.slices import SLICE, Window
from btc_assets.orchestration.deployment import Deployment, SlicedAssetOptions
from btc_assets.orchestration.io_manager import CopyIOManager
from btc_assets.orchestration.partitions import partition_tags
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON
from btc_assets_tests.support.wide_table import rows


def io_manager(store: StoreUnderTest) -> CopyIOManager:
    return CopyIOManager(store.database, Deployment.of(store.settings))


def materialize(store: StoreUnderTest, data: object, window: Window, *downstream: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    """Materialize an asset whose output is `data`, over a range of slices."""

    @dg.asset(key=["signals", "wide"], io_manager_key="copy", **sliced(store))
    def wide_asset() -> dg.Output[object]:
        return dg.Output(data)

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [wide_asset, *downstream],
            resources={"copy": io_manager(store)},
            tags=partition_tags(window),
            instance=instance,
            raise_on_error=False,
        )


def sliced(store: StoreUnderTest) -> SlicedAssetOptions:
    """The options of an asset with 5-minute partitions."""
    deployment = Deployment.of(store.settings)
    return deployment.writes_slices(deployment.partitions.slices)


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The sentence that a person reads at the failed step."""
    data = result.failure_data_for_node("signals__wide")
    assert data is not None and data.user_failure_data is not None
    return data.user_failure_data.description or ""


def reader_of(table: pa.Table) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(max_chunksize=4)))


def batches_of(table: pa.Table) -> Iterator[pa.RecordBatch]:
    yield from table.to_batches(max_chunksize=5)


@pytest.mark.parametrize("kind", [pa.Table.combine_chunks, reader_of, batches_of], ids=["table", "reader", "stream of batches"])
def test_arrow_of_any_kind_is_written(wide: StoreUnderTest, kind: Callable[[pa.Table], object]) -> None:
    data = rows(36)
    assert materialize(wide, kind(data), HOUR).success
    written = wide.rows(
        "SELECT bucket_5m, name, count, ratio, amount, vector::text, labels, flag, filled_in FROM signals.wide ORDER BY count"
    )
    assert len(written) == 36
    assert written[7] == (NOON + 2 * SLICE, "n7", 7, 1.75, Decimal("0.8750"), "[7,0.5,-1.25]", {"n": 7}, False, 7)
    assert written[5][5] is None


def test_a_table_may_be_in_any_order(wide: StoreUnderTest) -> None:
    data = rows(36)
    assert materialize(wide, data.take(list(reversed(range(36)))), HOUR).success
    assert wide.rows("SELECT count(DISTINCT bucket_5m), count(*) FROM signals.wide") == [(12, 36)]


def test_a_second_write_replaces_the_range_and_nothing_outside_it(wide: StoreUnderTest) -> None:
    materialize(wide, rows(36), HOUR)
    inner = Window(NOON + SLICE, NOON + 3 * SLICE)
    materialize(wide, rows(2, start=NOON + SLICE), inner)
    assert wide.rows("SELECT bucket_5m, count(*) FROM signals.wide WHERE bucket_5m < %s GROUP BY 1 ORDER BY 1", NOON + 4 * SLICE) == [
        (NOON, 3),
        (NOON + SLICE, 2),
        (NOON + 3 * SLICE, 3),
    ]


def test_the_same_window_is_loaded_back_as_arrow(wide: StoreUnderTest) -> None:
    seen: list[pa.Table] = []

    @dg.asset(
        ins={"loaded": dg.AssetIn(key=["signals", "wide"])},
        key=["signals", "wide_copy"],
        io_manager_key="copy",
        metadata={"table": "signals.wide"},
        **sliced(wide),
    )
    def copy(loaded: pa.Table) -> pa.Table:
        seen.append(loaded)
        return loaded.drop_columns(["filled_in"])

    assert materialize(wide, rows(36), HOUR, copy).success
    assert len(seen[0]) == 36
    assert seen[0].schema.field("amount").type == pa.decimal128(20, 4)
    assert seen[0].sort_by("count")["vector"][7].as_py() == [7, 0.5, -1.25]
    assert wide.rows("SELECT count(*), sum(amount) FROM signals.wide") == [(36, sum(Decimal(i) / 8 for i in range(36)))]


def test_the_metadata_of_a_materialization_is_what_the_ui_understands(wide: StoreUnderTest) -> None:
    result = materialize(wide, rows(36), HOUR)
    metadata = result.asset_materializations_for_node("signals__wide")[-1].metadata
    assert metadata["dagster/row_count"].value == metadata["rows"].value == 36
    assert metadata["dagster/table_name"].value == "signals.wide"
    schema = metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema) and [column.name for column in schema.columns][:2] == ["bucket_5m", "name"]
    again = materialize(wide, rows(3), Window.of_slice(HOUR.start)).asset_materializations_for_node("signals__wide")[-1].metadata
    ((stored,),) = wide.rows("SELECT count(*) FROM signals.wide")
    assert again["dagster/row_count"].value == stored > again["rows"].value == 3
    assert "password" not in str(metadata) and str(metadata["dagster/uri"].value).endswith("#signals.wide")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (rows(3, start=HOUR.end), "outside the range 2024-01-10T12:00Z to 2024-01-10T13:00Z that is being written."),
        (
            reader_of(rows(36).take(list(reversed(range(36))))),
            "The stream of batches is not in order of bucket_5m: sort it, or give it as one table.",
        ),
        (
            rows(3).append_column("mood", pa.array(["a", "b", "c"])),
            "The Arrow data does not fit the table: signals.wide has no column mood.",
        ),
        (rows(3).drop_columns(["bucket_5m"]), "The Arrow data has no column bucket_5m, which says what slice a row belongs to."),
        (rows(3).set_column(2, "count", pa.array(["x", "y", "z"])), "Column count (string) does not convert to bigint"),
        (
            {"a": 1},
            "CopyIOManager writes Arrow tables, readers or streams of record batches, not dict: convert it with pyarrow.Table first.",
        ),
    ],
    ids=["outside the range", "out of order", "unknown column", "no slice column", "wrong type", "no Arrow"],
)
def test_data_that_does_not_fit_is_refused_in_one_sentence_and_nothing_is_written(
    wide: StoreUnderTest, data: object, sentence: str
) -> None:
    result = materialize(wide, data, HOUR)
    assert not result.success
    assert sentence in failure(result)
    assert wide.rows("SELECT count(*) FROM signals.wide") == [(0,)]


@pytest.mark.slow
def test_a_range_longer_than_a_day_without_rows_is_emptied(wide: StoreUnderTest) -> None:
    long = Window(NOON, NOON + timedelta(days=3))
    wide.connection.execute(
        "INSERT INTO signals.wide (bucket_5m) SELECT generate_series(%s, %s, interval '1 hour')", (NOON, NOON + timedelta(days=3))
    )
    assert materialize(wide, rows(0), long).success
    assert wide.rows("SELECT count(*) FROM signals.wide") == [(1,)]


def test_an_asset_without_partitions_is_refused(store: StoreUnderTest) -> None:
    @dg.asset(io_manager_key="copy", key=["signals", "wide"])
    def unpartitioned() -> pa.Table:
        return rows(1)

    result = dg.materialize([unpartitioned], resources={"copy": io_manager(store)}, raise_on_error=False)
    assert failure(result) == "signals/wide has no partitions, but CopyIOManager replaces slices: give the asset the partitions of slices."
