"""Maintaining the index of a model: build it once it pays, measure it, rebuild it when it has become worse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg

from btc_assets.signals.encoders.models import Model
from btc_assets.signals.search.indexes import (
    FEWEST_ROWS,
    Index,
    build_index,
    count_vectors,
    drop_index,
    plan_index,
    read_index,
    record_recall,
)
from btc_assets.signals.search.recall import measure_recall

LEAST_RECALL = 0.97  # an index that finds less is rebuilt
GROWTH = 1.5  # an index is rebuilt at this multiple of the rows it was built on, because its lists fit the old rows
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class IndexMaintenance:
    """What was done for the index of a model.

    Attributes:
        model_id: of the model.
        action: none, checked, built, rebuilt or dropped.
        why: the reason, in words.
        index: the index afterwards, if any.
    """

    model_id: str
    action: str
    why: str
    index: Index | None


def maintain_index(
    connection: psycopg.Connection,
    model: Model,
    *,
    method: str | None = None,
    element: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> IndexMaintenance:
    """Build the index of a model if it is due, else measure it, and rebuild it if it has become worse.

    Args:
        connection: to the store, in autocommit mode.
        model: whose index.
        method, element: the wanted kind of index; by default the present kind, or else ivfflat on vectors.
        progress: called with the name of each step.
    """
    with _exclusive_maintenance(connection, model, progress):
        present, rows = read_index(connection, model), count_vectors(connection, model)
        wanted = plan_index(
            model,
            rows,
            method=method or (present.method if present else "ivfflat"),
            element=element or (present.element if present else "vector"),
        )
        if wanted is None:
            return _go_without_index(connection, model, present, rows)
        if present is None:
            built = build_index(connection, model, wanted, progress)
            return IndexMaintenance(model.model_id, "built", f"there was none for {rows:,} vectors", built)
        why = _reason_to_rebuild(present, wanted)
        if why is None:
            progress("measuring recall")
            recall = measure_recall(connection, model)
            if recall >= LEAST_RECALL:
                record_recall(connection, model, recall)
                return IndexMaintenance(model.model_id, "checked", f"recall is {recall:.3f}", replace(present, recall=recall))
            why = f"its recall had fallen to {recall:.3f}"
        return IndexMaintenance(model.model_id, "rebuilt", why, build_index(connection, model, wanted, progress))


@contextmanager
def _exclusive_maintenance(connection: psycopg.Connection, model: Model, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a model's index: two builds at once on one table would wait for each other."""
    key = f"index of {model.table}"
    announced = False
    # Poll instead of waiting for the lock: a build waits for all running statements, so it would wait for this one.
    while connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (key,)).fetchone() == (False,):
        if not announced:
            progress("waiting for another run that maintains this index")
            announced = True
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(hashtext(%s))", (key,))


def _go_without_index(connection: psycopg.Connection, model: Model, present: Index | None, rows: int) -> IndexMaintenance:
    if present is None:
        why = f"{rows:,} vectors are compared one by one; an index is built from {FEWEST_ROWS:,} vectors on"
        return IndexMaintenance(model.model_id, "none", why, None)
    drop_index(connection, model)
    return IndexMaintenance(model.model_id, "dropped", f"{rows:,} vectors are compared one by one", None)


def _reason_to_rebuild(present: Index, wanted: Index) -> str | None:
    """Why a rebuild is due before the recall is measured; None if it is not."""
    if (present.method, present.element) != (wanted.method, wanted.element):
        return f"it was {present.method} on {present.element}s"
    if wanted.rows_built > GROWTH * present.rows_built:
        return f"it was built on {present.rows_built:,} vectors, and there are {wanted.rows_built:,}"
    return None
