"""The approximate index on the vectors of a model: plan it, build it, read its state, drop it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.search.recall import compute_recall, sample_neighbors
from btc_assets.store.database import identifier, only_row
from btc_assets.store.errors import server_errors

FEWEST_ROWS = 10_000  # comparing fewer vectors one by one takes 5 ms
WANTED_RECALL = 0.985  # of a new index; 100 queries measure it to within .005, and searches look as far as it takes
_BUILD_MEMORY = "512MB"
_MOST_EF_SEARCH = 1000  # that pgvector accepts


@dataclass(frozen=True)
class Index:
    """A row of `signals.embedding_indexes`; see the comments on its columns."""

    model_id: str
    index_name: str
    method: str
    element: str
    lists: int | None
    effort: int
    rows_built: int
    recall: float
    built_at: datetime | None = None
    checked_at: datetime | None = None

    def __str__(self) -> str:
        lists = f" with {self.lists} lists" if self.lists else ""
        return f"{self.method}{lists} on {self.rows_built:,} vectors, looking at {self.effort}: recall {self.recall:.3f}"


def plan_index(model: Model, rows: int, *, method: str = "ivfflat", element: str = "vector") -> Index | None:
    """The index for this number of vectors, or None if comparing all of them is fast enough.

    ivfflat gets sqrt(rows) lists; hnsw has the defaults of pgvector. How far a search must look for the wanted recall is measured
    after the build, starting from the effort given here.

    Raises:
        UserError: the method or the element does not exist.
    """
    if method not in ("ivfflat", "hnsw") or element not in ("vector", "halfvec"):
        raise UserError(f"There is no index {method} on {element}: choose ivfflat or hnsw, on vector or halfvec.")
    if rows < FEWEST_ROWS:
        return None
    lists = round(math.sqrt(rows)) if method == "ivfflat" else None
    effort = math.ceil(math.sqrt(lists)) if lists else 20
    return Index(model.model_id, "", method, element, lists, effort, rows, 0.0)


def read_index(connection: psycopg.Connection, model: Model) -> Index | None:
    """The index of a model; None if it has none, or if the index was dropped or is invalid."""
    with server_errors(), connection.transaction(), connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(
            "SELECT * FROM signals.embedding_indexes WHERE model_id = %s AND EXISTS ("
            "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(format('signals.%%I', index_name)) AND indisvalid)",
            (model.model_id,),
        ).fetchone()


def count_vectors(connection: psycopg.Connection, model: Model) -> int:
    """The number of slices of a model that have a vector."""
    with server_errors(), connection.transaction():
        statement = sql.SQL("SELECT count(*) FROM {} WHERE embedding IS NOT NULL").format(identifier(model.table))
        (count,) = only_row(connection.execute(statement))
    return count


def build_index(connection: psycopg.Connection, model: Model, index: Index, progress: Callable[[str], None] = lambda step: None) -> Index:
    """Build an index beside the one in use, replace that one, and measure how far a search must look.

    Searches and writes go on meanwhile.

    Args:
        connection: to the store, in autocommit mode.
        model: whose vectors.
        index: as planned.
        progress: called with the name of each step.

    Returns:
        The new index, with the measured recall.
    """
    with server_errors():
        before = {name for (name,) in connection.execute(_INDEXES, (model.table,)).fetchall()}
        prefix = f"{model.table.partition('.')[2]}_ann"
        index = replace(index, index_name=next(name for i in range(len(before) + 1) if (name := f"{prefix}{i}") not in before))
        progress(f"building {index.method}")
        connection.execute(sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(_BUILD_MEMORY)))
        try:
            connection.execute(_create_statement(model, index, *only_row(connection.execute(_VECTOR_SCHEMA))))
        finally:
            connection.execute("RESET maintenance_work_mem")
        _record_index(connection, replace(index, effort=4 * index.effort))  # farther than necessary, until it is measured
        for old in before:  # including what an interrupted build left
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier("signals", old)))
    progress("measuring recall")
    return _tune_effort(connection, model, index)


def _tune_effort(connection: psycopg.Connection, model: Model, index: Index) -> Index:
    """Raise the effort of searches until the recall is as wanted, and record both."""
    exact = sample_neighbors(connection, model, exact=True)
    most = index.lists or _MOST_EF_SEARCH
    effort = min(index.effort, most)
    while True:
        _record_effort(connection, model, effort)
        recall = compute_recall(sample_neighbors(connection, model, exact=False), exact)
        if recall >= WANTED_RECALL or effort == most:
            break
        effort = min(math.ceil(effort * 1.25), most)
    record_recall(connection, model, recall)
    return replace(index, effort=effort, recall=recall)


_INDEXES = """
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
WHERE indrelid = to_regclass(%s) AND amname IN ('ivfflat', 'hnsw')
"""


_VECTOR_SCHEMA = "SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"


def _create_statement(model: Model, index: Index, schema: str) -> sql.Composed:
    return sql.SQL(
        "CREATE INDEX CONCURRENTLY {name} ON {table} USING {method} ((embedding::{element}({dim})) {operators}) {options}"
    ).format(
        name=sql.Identifier(index.index_name),
        table=identifier(model.table),
        method=sql.Identifier(index.method),
        element=sql.Identifier(schema, index.element),
        dim=sql.Literal(model.dim),
        operators=sql.Identifier(schema, f"{index.element}_ip_ops"),
        options=sql.SQL("WITH (lists = {})").format(sql.Literal(index.lists)) if index.lists else sql.SQL(""),
    )


def _record_index(connection: psycopg.Connection, index: Index) -> None:
    connection.execute(
        """
        INSERT INTO signals.embedding_indexes (model_id, index_name, method, element, lists, effort, rows_built, recall)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (model_id) DO UPDATE SET (index_name, method, element, lists, effort, rows_built, recall, built_at, checked_at)
            = (excluded.index_name, excluded.method, excluded.element, excluded.lists, excluded.effort, excluded.rows_built,
               excluded.recall, now(), now())
        """,
        (index.model_id, index.index_name, index.method, index.element, index.lists, index.effort, index.rows_built, index.recall),
    )


def _record_effort(connection: psycopg.Connection, model: Model, effort: int) -> None:
    with server_errors():
        connection.execute("UPDATE signals.embedding_indexes SET effort = %s WHERE model_id = %s", (effort, model.model_id))


def record_recall(connection: psycopg.Connection, model: Model, recall: float) -> None:
    """Store the measured recall of the index of a model, and when it was measured."""
    with server_errors():
        connection.execute(
            "UPDATE signals.embedding_indexes SET recall = %s, checked_at = now() WHERE model_id = %s", (recall, model.model_id)
        )


def drop_index(connection: psycopg.Connection, model: Model) -> None:
    """Drop the index of a model; searches then compare all vectors."""
    with server_errors():
        connection.execute("DELETE FROM signals.embedding_indexes WHERE model_id = %s", (model.model_id,))
        for (name,) in connection.execute(_INDEXES, (model.table,)).fetchall():
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier("signals", name)))
