"""Reading the store as Arrow, by ADBC: streamed, exact, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
from psycopg import sql

from btc_assets.domain.slices import Window
from btc_assets.store.database import Store, identifier, location, prepare_conninfo
from btc_assets.store.errors import ended, plain_error
from btc_assets.store.refusals import refusal
from btc_assets.store.sessions import opening_statement
from btc_assets.store.tables import Target

if TYPE_CHECKING:
    import adbc_driver_postgresql.dbapi as adbc


def fetch_table(store: Store, statement: sql.Composable) -> pa.Table:
    """All rows of a query.

    Raises:
        UserError: the server refuses the query.
        TransientError: the server ends the session before all rows are there.
    """
    with _query_errors(), _connect(store) as connection, connection.cursor() as cursor:
        cursor.execute(statement.as_string(None))
        return cursor.fetch_arrow_table()


@contextmanager
def _query_errors() -> Iterator[None]:
    """Turn errors of ADBC and of its stream, which are no errors of psycopg, into one sentence where there is one."""
    import adbc_driver_postgresql.dbapi as adbc

    try:
        yield
    except adbc.Error as error:
        plain = plain_error(error)
        if plain is None:
            raise
        raise plain from error
    except OSError as error:  # what a stream of Arrow makes of any error
        raise ended(str(error)) from error


def stream_slices(store: Store, target: Target, window: Window) -> pa.RecordBatchReader:
    """Stream a window of a table in order of slices; numerics keep their precision and scale, vectors become lists of float32.

    The reader holds a connection of its own until it is exhausted or closed.
    """
    with ExitStack() as opened:
        connection = opened.enter_context(_connect(store))
        cursor = opened.enter_context(connection.cursor())
        cursor.execute(_select_slices(target, window).as_string(None))
        reader = cursor.fetch_record_batch()
        numeric = {column.name for column in target.columns if column.type == "numeric"}
        schema = pa.schema([pa.field(field.name, _decimal_type(field) if field.name in numeric else field.type) for field in reader.schema])
        return pa.RecordBatchReader.from_batches(schema, _cast_batches(reader, schema, opened.pop_all()))


def _connect(store: Store) -> adbc.Connection:
    """A session for reading Arrow; it is in a transaction, to whose end it is as `sessions` makes all of ours."""
    import adbc_driver_postgresql.dbapi as adbc  # it imports Polars and pandas if they are there

    conninfo = prepare_conninfo(store.dsn)
    connection = None
    try:
        connection = adbc.connect(conninfo)
        with connection.cursor() as cursor:
            cursor.execute(opening_statement(conninfo, read_only=store.read_only))
            cursor.fetchall()
    except adbc.Error as error:
        if connection:
            connection.close()
        raise refusal(conninfo, location(conninfo), str(error), "BTC_ASSETS_DSN") from None
    return connection


def _select_slices(target: Target, window: Window) -> sql.Composed:
    columns = (
        sql.SQL("{0}::real[] AS {0}" if column.type == "vector" else "{0}").format(sql.Identifier(column.name)) for column in target.columns
    )
    return sql.SQL("SELECT {} FROM {} WHERE {slice} >= {start} AND {slice} < {end} ORDER BY {slice}").format(
        sql.SQL(", ").join(columns),
        identifier(target.table),
        slice=sql.Identifier(target.slice_column),
        start=sql.Literal(window.start),
        end=sql.Literal(window.end),
    )


def _cast_batches(reader: pa.RecordBatchReader, schema: pa.Schema, opened: ExitStack) -> Iterator[pa.RecordBatch]:
    """Batches in a schema in which text may have become decimals; closes `opened` at the end."""
    with opened:
        for batch in reader:
            columns = [
                column if column.type == field.type else column.cast(pa.string()).cast(field.type)
                for field, column in zip(schema, batch.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _decimal_type(field: pa.Field) -> pa.DataType:
    """The declared NUMERIC(p, s); if it declares none, the widest type with 12 decimal places."""
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    if modifier < 4:
        return pa.decimal128(38, 12)
    return pa.decimal128((modifier - 4) >> 16, (modifier - 4) & 0x7FF)
