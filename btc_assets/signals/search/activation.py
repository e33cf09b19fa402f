"""Activating a model: embed what is stored, index the vectors, then let the model answer searches."""

from __future__ import annotations

from dataclasses import dataclass

from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener, ignore_progress
from btc_assets.signals.encoders.interface import Encoder
from btc_assets.signals.encoders.models import Model, activate_model, set_maintained
from btc_assets.signals.features.formulas import FEWEST_TICKS
from btc_assets.signals.search.embeddings import backfill_embeddings
from btc_assets.signals.search.index_maintenance import LEAST_RECALL, IndexMaintenance, maintain_index
from btc_assets.signals.search.indexes import count_vectors
from btc_assets.store.database import Store


@dataclass(frozen=True)
class Activation:
    """The outcome of an activation.

    Attributes:
        model_id: of the model that is now active.
        written: rows that were embedded.
        maintenance: of its index.
        before: the model that was active before, if it is another one.
    """

    model_id: str
    written: int
    maintenance: IndexMaintenance
    before: str | None

    def __str__(self) -> str:
        index = f"index: {self.maintenance.index}" if self.maintenance.index else self.maintenance.why
        replaced = f", in place of {self.before}" if self.before else ""
        return f"{self.model_id} is active ({self.written:,} slices embedded; {index}){replaced}"


def embed_and_activate(
    store: Store,
    model: Model,
    encoder: Encoder,
    *,
    method: str | None = None,
    element: str | None = None,
    progress: Listener = ignore_progress,
) -> Activation:
    """Let a model answer the searches of its symbol. The active model answers them until the last step.

    Args:
        store: holds the slices to embed.
        model: a registered one.
        encoder: of the model.
        method, element: of its index, as `maintain_index` takes them.
        progress: called with stage, done and total.

    Raises:
        UserError: there are no slices to embed, or the recall of the index is too low.
    """
    with store.connect(owner=True) as connection:
        set_maintained(connection, model, True)  # first, so that slices loaded meanwhile are embedded too
        try:
            written = backfill_embeddings(connection, store, model, encoder, lambda done, total: progress("embeddings", done, total))
            if not count_vectors(connection, model):
                raise UserError(
                    f"There is no slice of {model.symbol} with {FEWEST_TICKS} ticks or more to embed: load ticks first (btc-assets load)."
                )
            maintenance = maintain_index(connection, model, method=method, element=element)
            if maintenance.index is not None and maintenance.index.recall < LEAST_RECALL:
                raise UserError(
                    f"The index of {model.model_id} finds only {maintenance.index.recall:.3f} of the nearest slices: activate it with --method hnsw."
                )
        except UserError:
            set_maintained(connection, model, model.kept_up)
            raise
        return Activation(model.model_id, written, maintenance, activate_model(connection, model))
