"""The IO manager between Arrow and PostgreSQL: writes the slices of a run by binary COPY, and loads the same window as Arrow."""

import time
from collections.abc import Iterable
from typing import Any

import dagster as dg
import psycopg
import pyarrow as pa

from btc_assets.domain.slices import Window
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.metadata import Output, Shown, add_once, add_slice_rows, column_schema, pictures
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.database import Store, location
from btc_assets.store.read import stream_slices
from btc_assets.store.replace import Replacements
from btc_assets.store.tables import Target, count_all_rows
from btc_assets.store.writers import replace_all


class CopyIOManager(dg.IOManager):
    """Replaces the slices of a run by an asset's Arrow data, and loads the rows of the same window as input of another asset.

    An asset returns one of these:

    * a `pyarrow.Table`, a `RecordBatchReader`, or an iterable of `RecordBatch`es in the order of slices;
    * `Replacements`, if something must change in the same transactions as the rows;
    * an `Output`, or a list of them for several tables, if the UI is to show more than the number of rows.

    Each commit has about `BTC_ASSETS_COMMIT_ROWS` rows and whole slices, and `BTC_ASSETS_WRITERS` sessions write at once. The columns of
    the table, and pictures, are metadata of the last slice of the run only.

    Metadata of the asset: `table` (default: the asset key joined by a dot) and `slice_column` (default `bucket_5m`).
    """

    def __init__(self, store: Store, deployment: Deployment) -> None:
        self._store, self._partitions, self._settings = store, deployment.partitions, deployment.settings

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Replace the slices of the run."""
        window = self._window(context)
        with plain_failures(), self._store.connect() as connection:
            target = _target(connection, context)
            last = context.asset_partition_key_range.end
            shown_once: dict[str, Any] = {**column_schema(target.columns)}
            shown: dict[str, Any] = {}
            rows = 0
            started = time.perf_counter()
            for output in self._outputs(obj, window, target):
                into = Target.of(connection, output.replacements.table, target.slice_column) if output.replacements.table else target
                rows += replace_all(connection, into, output.replacements, writers=self._settings.writers, store=self._store)
                committed = output.show(connection)
                if committed.slice_rows:
                    add_slice_rows(context.step_context, context.asset_key, window, last, committed.slice_rows)
                shown_once |= pictures(committed.pictures)
                shown |= committed.metadata
            seconds = time.perf_counter() - started
            add_once(context.step_context, context.asset_key, last, shown_once)
            context.add_output_metadata(
                {
                    "dagster/row_count": count_all_rows(connection, target.table),
                    "rows": rows,
                    "dagster/table_name": target.table,
                    "dagster/uri": f"postgresql://{location(connection.info.dsn)}#{target.table}",
                    "seconds": round(seconds, 3),
                    "rows_per_second": round(rows / seconds) if seconds else 0,
                    **shown,
                }
            )

    def load_input(self, context: dg.InputContext) -> pa.Table | pa.RecordBatchReader:
        """The rows of the run's window, in the order of slices: a table, or a reader if the input is annotated as `RecordBatchReader`."""
        assert context.upstream_output is not None
        window = self._window(context)
        with plain_failures(), self._store.connect() as connection:
            target = _target(connection, context.upstream_output)
        reader = stream_slices(self._store, target, window)
        return reader if context.dagster_type.typing_type is pa.RecordBatchReader else reader.read_all()

    def _window(self, context: dg.OutputContext | dg.InputContext) -> Window:
        if not context.has_asset_partitions:
            raise dg.Failure(
                description=f"{context.asset_key.to_user_string()} has no partitions, but CopyIOManager replaces slices: "
                "give the asset the partitions of slices.",
                allow_retries=False,
            )
        with plain_failures():
            return self._partitions.own_slices(context.asset_partitions_time_window, context.asset_partitions_def)

    def _outputs(self, obj: object, window: Window, target: Target) -> list[Output]:
        if isinstance(obj, list) and all(isinstance(each, Output) for each in obj):
            return obj
        if isinstance(obj, Output):
            return [obj]
        if not isinstance(obj, Replacements):
            obj = ArrowReplacements(_batches(obj), window, target.slice_column, self._settings.commit_rows)
        return [Output(obj, lambda connection: Shown())]


def _target(connection: psycopg.Connection, context: dg.OutputContext) -> Target:
    metadata = context.definition_metadata or {}
    return Target.of(connection, metadata.get("table", ".".join(context.asset_key.path)), metadata.get("slice_column", "bucket_5m"))


def _batches(obj: object) -> pa.Table | Iterable[pa.RecordBatch]:
    if isinstance(obj, pa.RecordBatch):
        return pa.Table.from_batches([obj])
    if isinstance(obj, pa.Table | pa.RecordBatchReader) or (isinstance(obj, Iterable) and not isinstance(obj, str | bytes | dict)):
        return obj
    raise dg.Failure(
        description=f"CopyIOManager writes Arrow tables, readers or streams of record batches, not {type(obj).__name__}: "
        "convert it with pyarrow.Table first.",
        allow_retries=False,
    )
