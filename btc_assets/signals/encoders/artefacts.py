"""Encoders as immutable artefacts: one file each, under a name that is the hash of its content."""

from __future__ import annotations

import hashlib
import json
import re

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from btc_assets.domain.errors import UserError
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders.encoder import KINDS, Encoder, build
from btc_assets.signals.features import schema


def model_id(encoder: Encoder) -> str:
    """`<kind>-<16 hex digits>`: SHA-256 over kind, configuration, feature schema, and name, type, shape and bytes of every tensor."""
    return _hashed(_described(encoder), _tensors(encoder))


def save(encoder: Encoder, zone: LandingZone) -> str:
    """Store an encoder below the landing zone's URL as `models/<model id>.safetensors`, unless it is there intact, and return its id.

    Raises:
        UserError: the landing zone cannot be written.
    """
    described, tensors = _described(encoder), _tensors(encoder)
    name = _hashed(described, tensors)
    there = zone.get(_path(name))
    if there is None or _intact(there, name) is None:
        zone.put(_path(name), safetensors.torch.save(tensors, described))
    return name


def load(model_id: str, zone: LandingZone) -> Encoder:
    """The encoder of an id, on the CPU, ready to embed.

    Raises:
        UserError: no such artefact, one whose content does not match its id, one of a kind that this version lacks, or one for
            other features or bars than this version computes.
    """
    kind, _, digest = model_id.rpartition("-")
    if not re.fullmatch("[0-9a-f]{16}", digest) or kind not in KINDS:
        raise UserError(
            f"{model_id!r} is no model id of this version: it must be one of {', '.join(KINDS)}, a dash and 16 hexadecimal digits."
        )
    where = f"{zone.url}/{_path(model_id)}"
    data = zone.get(_path(model_id))
    if data is None:
        raise UserError(f"The model {model_id} is missing at {where}: copy its artefact there, or train a model and activate that one.")
    content = _intact(data, model_id)
    if content is None:
        raise UserError(
            f"The artefact {where} is damaged (its content does not match its name): restore it from a copy, or train a model again."
        )
    described, tensors = content
    if described["schema"] != schema.digest():
        raise UserError(
            f"The model {model_id} was trained on the features {described['schema']}, and this version computes {schema.digest()}: "
            "train a model, or use the version that trained this one."
        )
    encoder = build(kind, json.loads(described["config"]))
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"The model {model_id} was made by another version, whose encoders are built otherwise: train a model.") from error
    return encoder.eval()


def _intact(data: bytes, name: str) -> tuple[dict[str, str], dict[str, Tensor]] | None:
    """What an artefact holds; None where that does not match its name."""
    try:
        # A safetensors file begins with the length of its header, 8 bytes, and the header, which is JSON.
        described = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors = safetensors.torch.load(data)
        return (described, tensors) if _hashed(described, tensors) == name else None
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None


def _path(name: str) -> str:
    return f"models/{name}.safetensors"


def _described(encoder: Encoder) -> dict[str, str]:
    return {"kind": encoder.kind, "config": json.dumps(encoder.config, sort_keys=True), "schema": schema.digest()}


def _tensors(encoder: Encoder) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}


def _hashed(described: dict[str, str], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return f"{described['kind']}-{digest.hexdigest()[:16]}"
