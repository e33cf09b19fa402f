"""Recall@10 of a search by index: the share of the 10 nearest slices of exact search that it finds."""

from __future__ import annotations

from datetime import datetime

import psycopg
from psycopg import sql

from btc_assets.signals.encoders.models import Model
from btc_assets.store.database import identifier
from btc_assets.store.errors import server_errors

QUERIES = 100
NEIGHBORS = 10

_NEIGHBORS_OF_QUERIES = """
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

SampledNeighbors = dict[datetime, set[datetime]]  # the nearest slices of each query


def sample_neighbors(connection: psycopg.Connection, model: Model, *, exact: bool, queries: int = QUERIES) -> SampledNeighbors:
    """The 10 nearest slices of stored queries, spread evenly over time, without the queries themselves.

    Args:
        connection: to the store.
        model: whose vectors.
        exact: compare all vectors, instead of searching as the active model does.
        queries: how many.
    """
    statement = sql.SQL(_NEIGHBORS_OF_QUERIES).format(
        queries=sql.Literal(queries),
        table=identifier(model.table),
        model=sql.Literal(model.model_id),
        k=sql.Literal(NEIGHBORS),
        exact=sql.Literal(exact),
    )
    with server_errors(), connection.transaction():
        return {bucket: set(nearest) for bucket, nearest in connection.execute(statement).fetchall()}


def compute_recall(found: SampledNeighbors, exact: SampledNeighbors) -> float:
    """The share of exact neighbors that were found; 1 if there are none."""
    wanted = sum(map(len, exact.values()))
    return sum(len(exact[bucket] & found[bucket]) for bucket in exact) / wanted if wanted else 1.0


def measure_recall(connection: psycopg.Connection, model: Model, *, queries: int = QUERIES) -> float:
    """Recall@10 of the index of a model, or 1 if it has none."""
    exact = sample_neighbors(connection, model, exact=True, queries=queries)
    return compute_recall(sample_neighbors(connection, model, exact=False, queries=queries), exact)
