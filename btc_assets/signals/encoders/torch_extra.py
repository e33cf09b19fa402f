"""The extra `torch`: PyTorch and the file format of encoders, which are not installed everywhere."""

from __future__ import annotations

import os
from importlib.util import find_spec

from btc_assets.domain.errors import UserError


def explain_missing(*names: str) -> str | None:
    """A sentence that says which of these packages this Python lacks, and how to install them; None if it has all."""
    missing = [name for name in names if find_spec(name) is None]
    return f"Encoders need {' and '.join(missing)}, which this Python lacks: pip install 'btc-assets[torch]'." if missing else None


def require_torch() -> None:
    """Call this before importing a module that needs PyTorch.

    Raises:
        UserError: PyTorch, or the format of its artifacts, is not installed.
    """
    if missing := explain_missing("torch", "safetensors"):
        raise UserError(missing)
    calm_threads()


def calm_threads() -> None:
    """Call this before PyTorch starts its threads.

    They would spin while they wait for each other, and beside a busy PostgreSQL on the same two cores that makes everything twenty
    times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
