"""Making a model the one that answers searches: embed what is stored, build the index, measure it, then move the pointer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from btc_assets.errors import UserError
from btc_assets.landing.objects import LandingZone
from btc_assets.signals import embeddings, indexes, models
from btc_assets.signals.artefacts import load
from btc_assets.signals.models import Model


@dataclass(frozen=True)
class Activation:
    """What it took: rows that were written, the state of the index, and the model that answered until now."""

    model_id: str
    written: int
    care: indexes.Care
    before: str | None

    def __str__(self) -> str:
        index = f"index: {self.care.index}" if self.care.index else self.care.why
        return (
            f"{self.model_id} is active ({self.written:,} slices embedded; {index}){f', in place of {self.before}' if self.before else ''}"
        )


def activate(
    connection: psycopg.Connection,
    connect: Callable[[], psycopg.Connection],
    dsn: str,
    artefacts: LandingZone,
    model: Model,
    *,
    method: str | None = None,
    element: str | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Activation:
    """Have `model` answer the searches of its symbol. Until the last step, the one that does now goes on.

    Args:
        connection: to the store, in autocommit.
        connect: opens another one.
        dsn: of the same store.
        artefacts: where models lie.
        model: a registered one.
        method, element: of its index, see `indexes.care`.
        progress: told what is being done.

    Raises:
        UserError: there are no slices to embed, the artefact is missing or damaged, or the index finds too few of the nearest.
    """
    encoder = load(model.model_id, artefacts)
    models.keep_up(connection, model)  # first, so that what is loaded meanwhile is embedded by whoever loads it
    written = embeddings.backfill(connection, connect, dsn, model, encoder, lambda done, total: progress("embeddings", done, total))
    if not indexes.count_vectors(connection, model):
        raise UserError(
            f"There is no slice of {model.symbol} with {embeddings.FEWEST_TICKS} ticks or more to embed: load ticks first (btc-assets load)."
        )
    care = indexes.care(connection, model, method=method, element=element)
    if care.index is not None and care.index.recall < indexes.LEAST_RECALL:
        raise UserError(
            f"The index of {model.model_id} finds only {care.index.recall:.3f} of the nearest slices: activate it with --method hnsw."
        )
    return Activation(model.model_id, written, care, models.point_to(connection, model))
