"""How an encoder is fitted, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass

from btc_assets.domain.errors import UserError

MOST_DIM = 2000  # that a pgvector index takes


@dataclass(frozen=True)
class FitOptions:
    """How to fit an encoder.

    Attributes:
        dim: of the vectors; if the windows span fewer dimensions, the rest is 0.
        seed: the same seed gives the same encoder on one machine.
        device: of PyTorch; by default, the GPU if there is one.
        epochs: passes of the `tcn` over its windows, chosen by their number by default; 0 leaves it untrained.

    Raises:
        UserError: a seed or a dimension is out of range.
    """

    dim: int = 256
    seed: int = 0
    device: str | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"The seed is {self.seed}: choose one from 0 to {2**32 - 1}.")
        if not 2 <= self.dim <= MOST_DIM:
            raise UserError(f"Vectors of {self.dim} dimensions cannot be indexed: choose from 2 to {MOST_DIM}.")
