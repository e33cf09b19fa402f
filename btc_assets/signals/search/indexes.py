"""The approximate index on a model's vectors: choosing it, building it, measuring it, and building it again in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.models import Model
from btc_assets.store.database import identifier
from btc_assets.store.errors import server_errors

FEWEST_ROWS = 10_000  # below, comparing all of them takes 5 ms
WANTED_RECALL = 0.985  # when it is built, by 100 queries, which can be off by .005; the search looks as far as that takes
LEAST_RECALL = 0.97  # below, it is built again
GROWTH = 1.5  # so many times the rows that it was built on, and it is built again: its lists are those of old
QUERIES = 100
NEIGHBOURS = 10
_BUILD_MEMORY = "512MB"
_MOST_EF_SEARCH = 1000  # of pgvector
_WAIT = 0.2  # seconds


@dataclass(frozen=True)
class Index:
    """A row of `signals.embedding_indexes`; see the comments of its columns."""

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


@dataclass(frozen=True)
class IndexMaintenance:
    """What was found and done for a model's index: `action` is none, checked, built, rebuilt or dropped, `why` in words."""

    model_id: str
    action: str
    why: str
    index: Index | None


def plan_index(model: Model, rows: int, *, method: str = "ivfflat", element: str = "vector") -> Index | None:
    """The index for so many vectors, or None where comparing all of them is fast enough.

    ivfflat has sqrt(rows) lists; hnsw has pgvector's defaults. How far a search must look for the wanted recall is measured
    once the index is built, from the effort here on.

    Raises:
        UserError: there is no such method or element.
    """
    if method not in ("ivfflat", "hnsw") or element not in ("vector", "halfvec"):
        raise UserError(f"There is no index {method} on {element}: choose ivfflat or hnsw, on vector or halfvec.")
    if rows < FEWEST_ROWS:
        return None
    lists = round(math.sqrt(rows)) if method == "ivfflat" else None
    effort = math.ceil(math.sqrt(lists)) if lists else 20
    return Index(model.model_id, "", method, element, lists, effort, rows, 0.0)


def read_index(connection: psycopg.Connection, model: Model) -> Index | None:
    """A model's index; None where there is none (any more)."""
    with server_errors(), connection.transaction(), connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(
            "SELECT * FROM signals.embedding_indexes WHERE model_id = %s AND EXISTS ("
            "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(format('signals.%%I', index_name)) AND indisvalid)",
            (model.model_id,),
        ).fetchone()


def count_vectors(connection: psycopg.Connection, model: Model) -> int:
    """Vectors of a model, those that are NULL left out."""
    with server_errors(), connection.transaction():
        row = connection.execute(sql.SQL("SELECT count(*) FROM {} WHERE embedding IS NOT NULL").format(identifier(model.table))).fetchone()
    assert row is not None
    return row[0]


def build_index(connection: psycopg.Connection, model: Model, index: Index, progress: Callable[[str], None] = lambda step: None) -> Index:
    """Build an index beside the one that is in use, put it in its place, and find out how far a search must look.

    Searches go on meanwhile, and so does writing.

    Args:
        connection: to the store, in autocommit.
        model: whose vectors.
        index: as planned.
        progress: told what is being done.

    Returns:
        The index as it is in use now, with the recall that was measured.
    """
    with server_errors():
        before = {name for (name,) in connection.execute(_INDEXES, (model.table,)).fetchall()}
        prefix = f"{model.table.partition('.')[2]}_ann"
        index = replace(index, index_name=next(name for i in range(len(before) + 1) if (name := f"{prefix}{i}") not in before))
        progress(f"building {index.method}")
        connection.execute(sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(_BUILD_MEMORY)))
        try:
            connection.execute(_create(model, index))
        finally:
            connection.execute("RESET maintenance_work_mem")
        planned = index.effort
        _record(connection, replace(index, effort=4 * planned))  # farther than is needed, until it is measured
        for old in before:  # also what an earlier attempt left half-built
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier("signals", old)))
    progress("measuring recall")
    right = find_nearest(connection, model, exact=True)
    most = index.lists or _MOST_EF_SEARCH
    effort = min(planned, most)
    while True:
        _set_effort(connection, model, effort)
        measured = recall(find_nearest(connection, model, exact=False), right)
        if measured >= WANTED_RECALL or effort == most:
            break
        effort = min(math.ceil(effort * 1.25), most)
    _set_recall(connection, model, measured)
    return replace(index, effort=effort, recall=measured)


_INDEXES = """
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
WHERE indrelid = to_regclass(%s) AND amname IN ('ivfflat', 'hnsw')
"""


def _create(model: Model, index: Index) -> sql.Composed:
    return sql.SQL(
        "CREATE INDEX CONCURRENTLY {name} ON {table} USING {method} ((embedding::{element}({dim})) {operators}) {options}"
    ).format(
        name=sql.Identifier(index.index_name),
        table=identifier(model.table),
        method=sql.Identifier(index.method),
        element=sql.Identifier(index.element),
        dim=sql.Literal(model.dim),
        operators=sql.Identifier(f"{index.element}_ip_ops"),
        options=sql.SQL("WITH (lists = {})").format(sql.Literal(index.lists)) if index.lists else sql.SQL(""),
    )


def _record(connection: psycopg.Connection, index: Index) -> None:
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


def _set_effort(connection: psycopg.Connection, model: Model, effort: int) -> None:
    with server_errors():
        connection.execute("UPDATE signals.embedding_indexes SET effort = %s WHERE model_id = %s", (effort, model.model_id))


def _set_recall(connection: psycopg.Connection, model: Model, recall: float) -> None:
    with server_errors():
        connection.execute(
            "UPDATE signals.embedding_indexes SET recall = %s, checked_at = now() WHERE model_id = %s", (recall, model.model_id)
        )


_QUERIES = """
SELECT query.bucket_5m, ARRAY(
    SELECT bucket_5m FROM signals.nearest({model}, query.embedding, {k}, p_not_near => query.bucket_5m, p_exact => {exact})
)
FROM (
    SELECT min(bucket_5m) AS bucket_5m FROM (
        SELECT bucket_5m, ntile({queries}) OVER (ORDER BY bucket_5m) AS part FROM {table} WHERE embedding IS NOT NULL
    ) AS numbered GROUP BY part
) AS spread
JOIN {table} AS query USING (bucket_5m)
"""

Nearest = dict[datetime, set[datetime]]  # of some slices, the nearest others


def find_nearest(connection: psycopg.Connection, model: Model, *, exact: bool, queries: int = QUERIES) -> Nearest:
    """The 10 nearest of some stored vectors, spread evenly over time, as a search finds them, or by comparing all."""
    statement = sql.SQL(_QUERIES).format(
        queries=sql.Literal(queries),
        table=identifier(model.table),
        model=sql.Literal(model.model_id),
        k=sql.Literal(NEIGHBOURS),
        exact=sql.Literal(exact),
    )
    with server_errors(), connection.transaction():
        return {bucket: set(nearest) for bucket, nearest in connection.execute(statement).fetchall()}


def recall(found: Nearest, right: Nearest) -> float:
    """Of the right neighbours, the share that was found; 1 where there are none."""
    wanted = sum(map(len, right.values()))
    return sum(len(right[bucket] & found[bucket]) for bucket in right) / wanted if wanted else 1.0


def measure_recall(connection: psycopg.Connection, model: Model, *, queries: int = QUERIES) -> float:
    """Recall@10 of a model's index, against exact search; the queries themselves are left out."""
    right = find_nearest(connection, model, exact=True, queries=queries)
    return recall(find_nearest(connection, model, exact=False, queries=queries), right)


def maintain_index(
    connection: psycopg.Connection,
    model: Model,
    *,
    method: str | None = None,
    element: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> IndexMaintenance:
    """See to a model's index: build it where it is due, measure it where it is there, build it again where it got worse.

    Args:
        connection: to the store, in autocommit.
        model: whose index.
        method, element: what it is to be; by default what it is, or else ivfflat on vectors.
        progress: told what is being done.
    """
    with _alone(connection, model, progress):
        return _maintain(connection, model, method, element, progress)


@contextmanager
def _alone(connection: psycopg.Connection, model: Model, progress: Callable[[str], None]) -> Iterator[None]:
    """While nobody else cares for a model's index: two that build at once on one table wait for each other."""
    key = f"index of {model.table}"
    told = False
    # Not by waiting for the lock: who builds an index waits for every statement that is under way.
    while connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (key,)).fetchone() == (False,):
        if not told:
            progress("waiting for another run that cares for this index")
            told = True
        time.sleep(_WAIT)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(hashtext(%s))", (key,))


def _maintain(
    connection: psycopg.Connection, model: Model, method: str | None, element: str | None, progress: Callable[[str], None]
) -> IndexMaintenance:
    now, rows = read_index(connection, model), count_vectors(connection, model)
    wanted = plan_index(
        model, rows, method=method or (now.method if now else "ivfflat"), element=element or (now.element if now else "vector")
    )
    if wanted is None:
        if now is not None:
            drop_index(connection, model)
            return IndexMaintenance(model.model_id, "dropped", f"{rows:,} vectors are compared one by one", None)
        return IndexMaintenance(
            model.model_id, "none", f"{rows:,} vectors are compared one by one; an index comes with {FEWEST_ROWS:,}", None
        )
    if now is None:
        return IndexMaintenance(
            model.model_id, "built", f"there was none for {rows:,} vectors", build_index(connection, model, wanted, progress)
        )
    if (now.method, now.element) != (wanted.method, wanted.element):
        why = f"it was {now.method} on {now.element}s"
    elif rows > GROWTH * now.rows_built:
        why = f"it was built on {now.rows_built:,} vectors, and there are {rows:,}"
    else:
        progress("measuring recall")
        measured = measure_recall(connection, model)
        if measured >= LEAST_RECALL:
            _set_recall(connection, model, measured)
            return IndexMaintenance(model.model_id, "checked", f"recall is {measured:.3f}", replace(now, recall=measured))
        why = f"its recall had fallen to {measured:.3f}"
    return IndexMaintenance(model.model_id, "rebuilt", why, build_index(connection, model, wanted, progress))


def drop_index(connection: psycopg.Connection, model: Model) -> None:
    """Remove a model's index; searches compare all vectors then."""
    with server_errors():
        connection.execute("DELETE FROM signals.embedding_indexes WHERE model_id = %s", (model.model_id,))
        for (name,) in connection.execute(_INDEXES, (model.table,)).fetchall():
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier("signals", name)))
