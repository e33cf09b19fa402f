"""What only some installations have."""

from __future__ import annotations

from importlib.util import find_spec

from btc_assets.errors import UserError


def require_torch() -> None:
    """Call it before importing a module that needs PyTorch.

    Raises:
        UserError: PyTorch, or the format of its artefacts, is not installed.
    """
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"Embeddings need {' and '.join(missing)}, which this Python lacks: pip install 'btc-assets[torch]' "
            "(add --extra-index-url https://download.pytorch.org/whl/cpu for the smaller builds without CUDA)."
        )
