"""The Dagster IO manager between Arrow and PostgreSQL: slices in by binary COPY, the same window out as Arrow."""

import time
from collections.abc import Iterable
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import dagster as dg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.settings import settings
from btc_assets.domain.slices import Window
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.metadata import add_once, add_slice_rows, column_schema, pictures
from btc_assets.orchestration.partitions import own_slices
from btc_assets.orchestration.resources import Store
from btc_assets.store.copy import ArrowReplacements, Replacements, Target, replace_all
from btc_assets.store.database import dsn, identifier, where


class CopyIOManager(dg.ConfigurableIOManager):
    """Writes an asset's Arrow data to a table, slice by slice, and loads it back for the same window.

    The asset's output is a `pyarrow.Table`, a `RecordBatchReader`, or any iterable of `RecordBatch`es in order of
    slices; or `Replacements` where more must change in the same transaction than the rows, or a list of them where they go
    to several tables. The slices of the run are replaced; each commit holds about `BTC_ASSETS_COMMIT_ROWS` rows and whole slices, and
    `BTC_ASSETS_WRITERS` of them are on their way at once.

    The schema of the table and what the replacements draw are shown with the last slice of the run only.

    Metadata of the asset: `table` (default: the asset key joined by a dot) and `slice_column` (default `bucket_5m`).
    """

    store: dg.ResourceDependency[Store]

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        window = _window(context)
        with plain_failures(), self.store.connect() as connection:
            connection.autocommit = True  # each replacement opens its own transaction
            target = _target(connection, context)
            last = context.asset_partition_key_range.end
            large: dict[str, Any] = {**column_schema(target.columns)}
            told: dict[str, Any] = {}
            rows = 0
            started = time.perf_counter()
            for replacements in _all_replacements(obj, window, target):
                rows += replace_all(
                    connection,
                    _elsewhere(connection, target, replacements),
                    replacements,
                    writers=settings().writers,
                    connect=self.store.connect,
                )
                if counts := replacements.slice_rows():
                    add_slice_rows(context.step_context, context.asset_key, window, last, counts)
                large |= pictures(replacements.pictures(connection))
                told |= replacements.metadata()
            seconds = time.perf_counter() - started
            add_once(context.step_context, context.asset_key, last, large)
            context.add_output_metadata(
                {
                    "dagster/row_count": rows,
                    "dagster/table_name": target.table,
                    "dagster/uri": f"postgresql://{where(connection.info.dsn)}#{target.table}",
                    "seconds": round(seconds, 3),
                    "rows_per_second": round(rows / seconds) if seconds else 0,
                    **told,
                }
            )

    def load_input(self, context: dg.InputContext) -> pa.Table | pa.RecordBatchReader:
        """The rows of the run's window, by slice: a table, or a reader where the input is annotated as `RecordBatchReader`."""
        assert context.upstream_output is not None
        window = _window(context)
        with plain_failures(), self.store.connect() as connection:
            target = _target(connection, context.upstream_output)
        reader = read_slices(target, window)
        return reader if context.dagster_type.typing_type is pa.RecordBatchReader else reader.read_all()


def read_slices(target: Target, window: Window) -> pa.RecordBatchReader:
    """Stream a window of a table as Arrow, ordered by slice; numerics keep their precision and scale.

    The reader holds a connection of its own until it is exhausted or closed.
    """
    connection = adbc.connect(dsn())
    cursor = connection.cursor()
    numeric = {column.name for column in target.columns if column.type == "numeric"}
    vector = {column.name for column in target.columns if column.type == "vector"}
    columns = sql.SQL(", ").join(
        sql.SQL("{0}::real[] AS {0}" if column.name in vector else "{0}").format(sql.Identifier(column.name)) for column in target.columns
    )
    statement = sql.SQL("SELECT {} FROM {} WHERE {slice} >= {start} AND {slice} < {end} ORDER BY {slice}").format(
        columns,
        identifier(target.table),
        slice=sql.Identifier(target.slice_column),
        start=sql.Literal(window.start),
        end=sql.Literal(window.end),
    )
    cursor.execute(statement.as_string(None))
    reader = cursor.fetch_record_batch()
    schema = pa.schema([pa.field(field.name, _decimal_type(field) if field.name in numeric else field.type) for field in reader.schema])

    def batches() -> Iterable[pa.RecordBatch]:
        with connection, cursor:
            for batch in reader:
                yield pa.RecordBatch.from_arrays(
                    [
                        batch.column(field.name).cast(pa.string()).cast(field.type) if field.name in numeric else batch.column(field.name)
                        for field in schema
                    ],
                    schema=schema,
                )

    return pa.RecordBatchReader.from_batches(schema, batches())


def _decimal_type(field: pa.Field) -> pa.DataType:
    """NUMERIC(p, s) as it is declared; of a column without precision, the widest that keeps 12 decimals."""
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    if modifier < 4:
        return pa.decimal128(38, 12)
    return pa.decimal128((modifier - 4) >> 16, (modifier - 4) & 0x7FF)


def _window(context: dg.OutputContext | dg.InputContext) -> Window:
    if not context.has_asset_partitions:
        raise dg.Failure(
            description=f"{context.asset_key.to_user_string()} has no partitions, but CopyIOManager replaces slices: "
            "give the asset the five_minutes partitions.",
            allow_retries=False,
        )
    with plain_failures():
        return own_slices(context.asset_partitions_time_window, context.asset_partitions_def)


def _target(connection, context: dg.OutputContext) -> Target:  # type: ignore[no-untyped-def]
    metadata = context.definition_metadata or {}
    return Target.of(connection, metadata.get("table", ".".join(context.asset_key.path)), metadata.get("slice_column", "bucket_5m"))


def _elsewhere(connection, target: Target, replacements: Replacements) -> Target:  # type: ignore[no-untyped-def]
    """Where replacements go that name a table of their own."""
    return Target.of(connection, replacements.table, target.slice_column) if replacements.table else target


def _all_replacements(obj: object, window: Window, target: Target) -> list[Replacements]:
    if isinstance(obj, list) and all(isinstance(one, Replacements) for one in obj):
        return obj
    if isinstance(obj, Replacements):
        return [obj]
    return [ArrowReplacements(_batches(obj), window, target.slice_column, settings().commit_rows)]


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
