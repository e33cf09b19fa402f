"""When did the market look like this before? The search of SQL's `signals.similar_slices`, for Python."""

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
from btc_assets.store.errors import server_errors


@dataclass(frozen=True)
class Neighbour:
    """A slice that looks like the one that was asked about.

    Attributes:
        bucket_5m: its start.
        symbol: its symbol.
        distance: cosine distance, 0 (the same) to 2 (the opposite).
        tick_count: its ticks.
        label_snapshot: what the slice after it brought, see `signals.btc_embeddings`; None where that is not known.
    """

    bucket_5m: datetime
    symbol: str
    distance: float
    tick_count: int
    label_snapshot: dict[str, Any] | None


def similar(
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
) -> list[Neighbour]:
    """The slices that look most like the one that `time` lies in, nearest first, without itself.

    Args:
        connection: to the store.
        time: any moment of the slice, with a timezone.
        k: how many.
        before_only: leave out what came after it, as a forecast must.
        within: leave out what does not start in this window.
        apart: leave out what starts less than this before or after it.
        symbol: of the slice; needed where several symbols have an active model.
        model_id: another model than the active one.
        exact: compare all vectors, also where there is an index.

    Raises:
        UserError: there is no such model, or no vector of that slice: it says why.
    """
    window = (within.start, within.end) if within else ("-infinity", "infinity")
    return _neighbours(
        connection,
        "SELECT * FROM signals.similar_slices(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (floor_slice(time), k, before_only, *window, apart, symbol, model_id, exact),
    )


def nearest(
    connection: psycopg.Connection,
    embedding: np.ndarray,
    k: int = 10,
    *,
    model_id: str,
    within: Window | None = None,
    exact: bool = False,
) -> list[Neighbour]:
    """The slices nearest to a vector that a model made, nearest first.

    Args:
        connection: to the store.
        embedding: [dim], of any length.
        k, within, exact: as `similar` takes them.
        model_id: the model that made it.

    Raises:
        UserError: there is no such model, or its vectors have another dimension; or the vector has values that are not finite.
    """
    if not np.isfinite(embedding).all():
        raise UserError("The query vector has values that are not finite: embed the slice again.")
    with server_errors():
        register_vector(connection)
    window = (within.start, within.end) if within else ("-infinity", "infinity")
    return _neighbours(
        connection,
        "SELECT * FROM signals.nearest(%s, %s, %s, %s, %s, p_exact => %s)",
        (model_id, Vector(embedding), k, *window, exact),
    )


def _neighbours(connection: psycopg.Connection, statement: str, parameters: tuple[object, ...]) -> list[Neighbour]:
    with server_errors(), connection.transaction(), connection.cursor(row_factory=class_row(Neighbour)) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def read_newest_slice(connection: psycopg.Connection, model_id: str) -> datetime:
    """The newest slice that has a vector.

    Raises:
        UserError: none has.
    """
    with server_errors(), connection.transaction():
        row = connection.execute(
            "SELECT max(bucket_5m) FROM signals.btc_embeddings WHERE model_id = %s AND embedding IS NOT NULL", (model_id,)
        ).fetchone()
    if row is None or row[0] is None:
        raise UserError(f"There are no embeddings of {model_id} yet: run btc-assets models activate {model_id}.")
    return row[0]


def read_active_model(connection: psycopg.Connection, symbol: str | None = None) -> str:
    """The id of the model that answers searches.

    Raises:
        UserError: none does, or several symbols have one and none was named.
    """
    with server_errors(), connection.transaction():
        row = connection.execute("SELECT signals.active_model(%s)", (symbol,)).fetchone()
    assert row is not None
    return row[0]
