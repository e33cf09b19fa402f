"""Encoders as immutable artifacts: one file per encoder, named by the hash of its content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import KIND
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders.custom import CustomEncoder
from btc_assets.signals.encoders.interface import Encoder
from btc_assets.signals.encoders.kinds import OURS, Kinds, MissingKind
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.features import schema


def compute_model_id(encoder: Encoder) -> str:
    """`<kind>-<16 hex digits>`: SHA-256 over kind, configuration, feature schema, and name, type, shape and bytes of every array."""
    return _hash_content(_describe(encoder), encoder.arrays())


def save_encoder(encoder: Encoder, zone: LandingZone) -> str:
    """Store an encoder below the URL of the landing zone, as `models/<model id>.safetensors`; an intact artifact is not written again.

    Returns:
        The model id.

    Raises:
        UserError: the landing zone cannot be written.
    """
    import safetensors.numpy

    description, arrays = _describe(encoder), encoder.arrays()
    model_id = _hash_content(description, arrays)
    stored = zone.get(artifact_path(model_id))
    if stored is None or _parse_intact(stored, model_id) is None:
        zone.put(artifact_path(model_id), safetensors.numpy.save(dict(arrays), description))
    return model_id


def load_encoder(model_id: str, zone: LandingZone, *, kinds: Kinds | None = None, device: str | None = None) -> Encoder:
    """The encoder of a model, ready to embed. An artifact is numbers; which class they belong to is looked up among `kinds`.

    Args:
        model_id: of the model.
        zone: where encoders are stored.
        kinds: of this process; by default, those that no setting names.
        device: of PyTorch, for our own kinds; by default, the GPU if there is one.

    Raises:
        MissingKind: this process lacks the kind, or a package that it needs.
        UserError: the artifact does not exist, does not match its id, or was trained on other features or bars than this version
            computes, or the device does not exist.
    """
    kind, _, digest = model_id.rpartition("-")
    if not re.fullmatch("[0-9a-f]{16}", digest) or not re.fullmatch(KIND, kind):
        raise UserError(f"{model_id!r} is no model id: it must be the name of a kind, a dash and 16 hexadecimal digits.")
    kinds = kinds or Kinds()
    kinds.require(kind)
    location = f"{zone.url}/{artifact_path(model_id)}"
    data = zone.get(artifact_path(model_id))
    if data is None:
        raise UserError(f"The model {model_id} is missing at {location}: copy its artifact there, or train a model and activate that one.")
    content = _parse_intact(data, model_id)
    if content is None:
        raise UserError(
            f"The artifact {location} is damaged (its content does not match its name): restore it from a copy, or train a model again."
        )
    description, arrays = content
    if description["schema"] != schema.digest():
        raise UserError(
            f"The model {model_id} was trained on the features {description['schema']}, and this version computes {schema.digest()}: "
            "train a model, or use the version that trained this one."
        )
    config = json.loads(description["config"])
    if kind not in OURS:
        return CustomEncoder.restore(kinds.find(kind), arrays, config["dim"])
    from btc_assets.signals.encoders.encoder import restore_ours

    return restore_ours(model_id, config, arrays, device)


def load_maintained(
    models: Sequence[Model], zone: LandingZone, kinds: Kinds, *, device: str | None = None
) -> tuple[list[tuple[Model, Encoder]], list[str]]:
    """The encoders of these models, and a sentence for each model whose kind this process lacks.

    The arguments are those of `load_encoder`.

    Raises:
        UserError: an artifact cannot be loaded.
    """
    encoders, lacks = [], []
    for model in models:
        lack = kinds.explain_lack(model)
        try:
            if lack is None:
                encoders.append((model, load_encoder(model.model_id, zone, kinds=kinds, device=device)))
        except MissingKind as error:  # its module cannot be imported
            lack = f"{model.model_id} does not embed: {error}"
        if lack:
            lacks.append(lack)
    return encoders, lacks


def artifact_path(model_id: str) -> str:
    """Where the artifact of a model is stored, below the URL of the landing zone."""
    return f"models/{model_id}.safetensors"


def _parse_intact(data: bytes, model_id: str) -> tuple[dict[str, str], dict[str, np.ndarray]] | None:
    """The content of an artifact; None if it does not match the id."""
    import safetensors.numpy

    try:
        # A safetensors file starts with the length of its header in 8 bytes, and the header in JSON.
        description = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        arrays = safetensors.numpy.load(data)
        return (description, arrays) if _hash_content(description, arrays) == model_id else None
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None


def _describe(encoder: Encoder) -> dict[str, str]:
    return {"kind": encoder.kind, "config": json.dumps(encoder.config, sort_keys=True), "schema": schema.digest()}


def _hash_content(description: dict[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        # The types are spelled as PyTorch does: ids of encoders that were stored before depend on it.
        digest.update(json.dumps([name, f"torch.{array.dtype}", list(array.shape)]).encode())
        digest.update(array.tobytes())
    return f"{description['kind']}-{digest.hexdigest()[:16]}"
