"""Encoders as immutable artifacts: one file per encoder, named by the hash of its content."""

from __future__ import annotations

import hashlib
import json
import re

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from btc_assets.domain.errors import UserError
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders.encoder import KINDS, Encoder, build_encoder
from btc_assets.signals.features import schema


def compute_model_id(encoder: Encoder) -> str:
    """`<kind>-<16 hex digits>`: SHA-256 over kind, configuration, feature schema, and name, type, shape and bytes of every tensor."""
    return _hash_content(_describe(encoder), _tensors(encoder))


def save_encoder(encoder: Encoder, zone: LandingZone) -> str:
    """Store an encoder below the URL of the landing zone, as `models/<model id>.safetensors`; an intact artifact is not written again.

    Returns:
        The model id.

    Raises:
        UserError: the landing zone cannot be written.
    """
    description, tensors = _describe(encoder), _tensors(encoder)
    model_id = _hash_content(description, tensors)
    stored = zone.get(artifact_path(model_id))
    if stored is None or _parse_intact(stored, model_id) is None:
        zone.put(artifact_path(model_id), safetensors.torch.save(tensors, description))
    return model_id


def load_encoder(model_id: str, zone: LandingZone) -> Encoder:
    """The encoder of a model, on the CPU, ready to embed.

    Raises:
        UserError: the artifact does not exist, does not match its id, is of a kind that this version lacks, or was trained on other
            features or bars than this version computes.
    """
    kind, _, digest = model_id.rpartition("-")
    if not re.fullmatch("[0-9a-f]{16}", digest) or kind not in KINDS:
        raise UserError(
            f"{model_id!r} is not a model id of this version: it must be one of {', '.join(KINDS)}, a dash and 16 hexadecimal digits."
        )
    location = f"{zone.url}/{artifact_path(model_id)}"
    data = zone.get(artifact_path(model_id))
    if data is None:
        raise UserError(f"The model {model_id} is missing at {location}: copy its artifact there, or train a model and activate that one.")
    content = _parse_intact(data, model_id)
    if content is None:
        raise UserError(
            f"The artifact {location} is damaged (its content does not match its name): restore it from a copy, or train a model again."
        )
    description, tensors = content
    if description["schema"] != schema.digest():
        raise UserError(
            f"The model {model_id} was trained on the features {description['schema']}, and this version computes {schema.digest()}: "
            "train a model, or use the version that trained this one."
        )
    encoder = build_encoder(kind, json.loads(description["config"]))
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"Another version, whose encoders have another structure, trained the model {model_id}: train a model with this version."
        ) from error
    return encoder.eval()


def artifact_path(model_id: str) -> str:
    """Where the artifact of a model is stored, below the URL of the landing zone."""
    return f"models/{model_id}.safetensors"


def _parse_intact(data: bytes, model_id: str) -> tuple[dict[str, str], dict[str, Tensor]] | None:
    """The content of an artifact; None if it does not match the id."""
    try:
        # A safetensors file starts with the length of its header in 8 bytes, and the header in JSON.
        description = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors = safetensors.torch.load(data)
        return (description, tensors) if _hash_content(description, tensors) == model_id else None
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None


def _describe(encoder: Encoder) -> dict[str, str]:
    return {"kind": encoder.kind, "config": json.dumps(encoder.config, sort_keys=True), "schema": schema.digest()}


def _tensors(encoder: Encoder) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}


def _hash_content(description: dict[str, str], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return f"{description['kind']}-{digest.hexdigest()[:16]}"
