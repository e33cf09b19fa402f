"""The table `signals.models`: trained encoders, which of them are maintained, and which one answers searches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import Window
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

if TYPE_CHECKING:
    from btc_assets.market_data.versions import SliceDigests


@dataclass(frozen=True)
class Model:
    """A row of `signals.models`; see the comments on its columns. A maintained model has `kept_up` set: new slices are embedded with it."""

    model_id: str
    kind: str
    symbol: str
    dim: int
    feature_schema: str
    trained_from: datetime
    trained_to: datetime
    metrics: dict[str, Any]
    uri: str
    kept_up: bool = False
    active: bool = False
    created_at: datetime | None = None
    data_version: str | None = None

    @property
    def table(self) -> str:
        """The partition of `signals.btc_embeddings` that holds the vectors of this model."""
        return f"signals.embeddings_{self.model_id.replace('-', '_')}"


def register_model(connection: psycopg.Connection, model: Model, data: SliceDigests | None = None) -> None:
    """Insert a trained encoder. Registering it again changes no more than what it was trained on, because its id is a hash of its content.

    Args:
        connection: to the store.
        model: the encoder.
        data: the ticks that it was trained on, from `trained_from` to `trained_to`; None if nobody knows.

    Raises:
        UserError: it is registered for another symbol.
    """
    with server_errors(), connection.transaction():
        connection.execute(
            "INSERT INTO signals.models (model_id, kind, symbol, dim, feature_schema, trained_from, trained_to, metrics, uri, data_version, "
            "data_digests) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (model_id) DO UPDATE SET "
            "data_version = excluded.data_version, data_digests = excluded.data_digests "
            "WHERE excluded.data_version IS NOT NULL AND models.symbol = excluded.symbol AND models.trained_from = excluded.trained_from "
            "AND models.trained_to = excluded.trained_to",
            (
                model.model_id, model.kind, model.symbol, model.dim, model.feature_schema, model.trained_from, model.trained_to,
                Jsonb(model.metrics), model.uri, data.version if data else None, data.to_bytes() if data else None,
            ),
        )  # fmt: skip
    registered = read_model(connection, model.model_id)
    if registered.symbol != model.symbol:
        raise UserError(f"The model {model.model_id} is registered for {registered.symbol}: train another one for {model.symbol}.")


_COLUMNS = "model_id, kind, symbol, dim, feature_schema, trained_from, trained_to, metrics, uri, kept_up, active, created_at, data_version"


def read_models(connection: psycopg.Connection) -> list[Model]:
    """All models, newest first."""
    with server_errors(), connection.transaction(), connection.cursor(row_factory=class_row(Model)) as cursor:
        return cursor.execute(f"SELECT {_COLUMNS} FROM signals.models ORDER BY created_at DESC, model_id").fetchall()  # noqa: S608  # our own columns


def read_model(connection: psycopg.Connection, model_id: str) -> Model:
    """The model of an id.

    Raises:
        UserError: it does not exist.
    """
    for model in read_models(connection):
        if model.model_id == model_id:
            return model
    raise UserError(f"There is no model {model_id}: btc-assets models lists them.")


def read_changed_slices(connection: psycopg.Connection, model: Model) -> list[datetime] | None:
    """The slices that a model was trained on and that hold other ticks now, ascending.

    None if nobody knows: a release that kept no versions trained it, or a release that recorded nothing loaded much of what it was
    trained on, then or now.
    """
    with server_errors(), connection.transaction():
        (digests,) = only_row(connection.execute("SELECT data_digests FROM signals.models WHERE model_id = %s", (model.model_id,)))
    if digests is None:
        return None
    from btc_assets.market_data.versions import read_recorded_digests  # with NumPy, for which `status` and `models` need not wait

    now = read_recorded_digests(connection, model.symbol, Window(model.trained_from, model.trained_to))
    return now.changed_since(digests) if now else None


def read_maintained_models(connection: psycopg.Connection) -> list[Model]:
    """The models with which new slices are embedded."""
    return [model for model in read_models(connection) if model.kept_up]


def set_maintained(connection: psycopg.Connection, model: Model, maintained: bool) -> None:
    """Start or stop embedding new slices with a model. The active model is always maintained."""
    with server_errors(), connection.transaction():
        connection.execute("UPDATE signals.models SET kept_up = active OR %s WHERE model_id = %s", (maintained, model.model_id))


def activate_model(connection: psycopg.Connection, model: Model) -> str | None:
    """Let a model answer the searches of its symbol, in place of the active model, in one transaction.

    Returns:
        The id of the model that was active before, if it is another one.
    """
    with server_errors(), connection.transaction():
        connection.execute(
            "LOCK TABLE signals.models IN SHARE ROW EXCLUSIVE MODE"
        )  # else two activations at once would leave two active models
        before = connection.execute(
            "UPDATE signals.models SET active = false, kept_up = false WHERE symbol = %s AND active AND model_id <> %s RETURNING model_id",
            (model.symbol, model.model_id),
        ).fetchone()
        connection.execute("UPDATE signals.models SET active = true, kept_up = true WHERE model_id = %s", (model.model_id,))
    return before[0] if before else None


def remove_model(connection: psycopg.Connection, model: Model) -> None:
    """Delete a model and its vectors. Its artifact stays.

    Raises:
        UserError: the model is active.
    """
    with server_errors(), connection.transaction():
        connection.execute("DELETE FROM signals.models WHERE model_id = %s AND NOT active", (model.model_id,))
        if connection.execute("SELECT FROM signals.models WHERE model_id = %s", (model.model_id,)).rowcount:
            raise UserError(f"The model {model.model_id} answers the searches of {model.symbol}: activate another one first.")
        connection.execute("SELECT signals.drop_embeddings_table(%s)", (model.model_id,))
