"""When did the market look like this before? The searches of SQL's `signals.similar_slices` and `signals.nearest`, for Python."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.rows import class_row

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import Window, floor_slice
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors


@dataclass(frozen=True)
class Neighbor:
    """A slice similar to the query.

    Attributes:
        bucket_5m: its start.
        symbol: its symbol.
        distance: cosine distance, from 0 (the same direction) to 2 (the opposite direction).
        tick_count: its ticks.
        label_snapshot: what the slice after it brought, see `signals.btc_embeddings`; None if that is not known.
    """

    bucket_5m: datetime
    symbol: str
    distance: float
    tick_count: int
    label_snapshot: dict[str, Any] | None


# Its parameters are those of the SQL function; all but the time are optional.
def find_similar_slices(  # noqa: PLR0913  # the options of a search, each by its keyword
    connection: psycopg.Connection,
    time: datetime,
    k: int = 10,
    *,
    before_only: bool = False,
    within: Window | None = None,
    apart: timedelta = timedelta(0),
    symbol: str | None = None,
    model_id: str | None = None,
    exact: bool = False,
) -> list[Neighbor]:
    """The slices most similar to the slice that contains `time`, nearest first, without that slice itself.

    Args:
        connection: to the store.
        time: any moment of the slice, with a timezone.
        k: how many.
        before_only: only slices before it, as a forecast requires.
        within: only slices that start in this window.
        apart: only slices that start at least this long before or after it.
        symbol: of the slice; needed if several symbols have an active model.
        model_id: search with this model instead of the active one.
        exact: compare all vectors even if there is an index.

    Raises:
        UserError: the model does not exist, or the slice has no vector; the message says why.
    """
    window = (within.start, within.end) if within else ("-infinity", "infinity")
    return _fetch_neighbors(
        connection,
        "SELECT * FROM signals.similar_slices(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (floor_slice(time), k, before_only, *window, apart, symbol, model_id, exact),
    )


def find_nearest_slices(
    connection: psycopg.Connection,
    embedding: np.ndarray,
    k: int = 10,
    *,
    model_id: str,
    within: Window | None = None,
    exact: bool = False,
) -> list[Neighbor]:
    """The slices nearest to a vector, nearest first.

    Args:
        connection: to the store.
        embedding: [dim], of any length.
        k, within, exact: as `find_similar_slices` takes them.
        model_id: the model that computed the vector.

    Raises:
        UserError: the model does not exist, its vectors have another dimension, or the vector has values that are not finite.
    """
    if not np.isfinite(embedding).all():
        raise UserError("The query vector has values that are not finite: embed the slice again.")
    with server_errors():
        register_vector(connection)
    window = (within.start, within.end) if within else ("-infinity", "infinity")
    return _fetch_neighbors(
        connection,
        "SELECT * FROM signals.nearest(%s, %s, %s, %s, %s, p_exact => %s)",
        (model_id, Vector(embedding), k, *window, exact),
    )


def _fetch_neighbors(connection: psycopg.Connection, statement: str, parameters: tuple[object, ...]) -> list[Neighbor]:
    with server_errors(), connection.transaction(), connection.cursor(row_factory=class_row(Neighbor)) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def read_newest_slice(connection: psycopg.Connection, model_id: str) -> datetime:
    """The newest slice that has a vector.

    Raises:
        UserError: no slice has one.
    """
    with server_errors(), connection.transaction():
        (newest,) = only_row(
            connection.execute(
                "SELECT max(bucket_5m) FROM signals.btc_embeddings WHERE model_id = %s AND embedding IS NOT NULL", (model_id,)
            )
        )
    if newest is None:
        raise UserError(f"There are no embeddings of {model_id} yet: run btc-assets models activate {model_id}.")
    return newest


def read_active_model(connection: psycopg.Connection, symbol: str | None = None) -> str:
    """The id of the model that answers searches.

    Raises:
        UserError: no model is active, or several symbols have one and `symbol` is not given.
    """
    with server_errors(), connection.transaction():
        (model_id,) = only_row(connection.execute("SELECT signals.active_model(%s)", (symbol,)))
    return model_id
