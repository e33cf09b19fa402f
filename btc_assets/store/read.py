"""Reading the store as Arrow, by ADBC: streamed, exact, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.slices import Window
from btc_assets.store.database import Store, identifier
from btc_assets.store.tables import Target


def fetch_table(store: Store, statement: sql.Composable) -> pa.Table:
    """All rows of a query."""
    with adbc.connect(store.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(statement.as_string(None))
        return cursor.fetch_arrow_table()


def stream_slices(store: Store, target: Target, window: Window) -> pa.RecordBatchReader:
    """A window of a table, ordered by slice; numerics keep their precision and scale, vectors become lists of float32.

    The reader holds a connection of its own until it is exhausted or closed.
    """
    types = {column.name: column.type for column in target.columns}
    columns = sql.SQL(", ").join(
        sql.SQL("{0}::real[] AS {0}" if type_name == "vector" else "{0}").format(sql.Identifier(name)) for name, type_name in types.items()
    )
    statement = sql.SQL("SELECT {} FROM {} WHERE {slice} >= {start} AND {slice} < {end} ORDER BY {slice}").format(
        columns,
        identifier(target.table),
        slice=sql.Identifier(target.slice_column),
        start=sql.Literal(window.start),
        end=sql.Literal(window.end),
    )
    connection = adbc.connect(store.dsn)
    cursor = connection.cursor()
    cursor.execute(statement.as_string(None))
    reader = cursor.fetch_record_batch()
    numeric = {name for name, type_name in types.items() if type_name == "numeric"}
    schema = pa.schema([pa.field(field.name, _decimal_type(field) if field.name in numeric else field.type) for field in reader.schema])

    def batches() -> Iterator[pa.RecordBatch]:
        with connection, cursor:
            for batch in reader:
                columns = (batch.column(field.name) for field in schema)
                yield pa.RecordBatch.from_arrays(
                    [
                        column.cast(pa.string()).cast(field.type) if field.name in numeric else column
                        for field, column in zip(schema, columns, strict=True)
                    ],
                    schema=schema,
                )

    return pa.RecordBatchReader.from_batches(schema, batches())


def _decimal_type(field: pa.Field) -> pa.DataType:
    """The declared NUMERIC(p, s); for a column without a precision, the widest type that keeps 12 decimals."""
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    if modifier < 4:
        return pa.decimal128(38, 12)
    return pa.decimal128((modifier - 4) >> 16, (modifier - 4) & 0x7FF)
