"""What the rest of the package knows of an encoder, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class Encoder(Protocol):
    """Turns bars and features of slices into vectors of length one.

    Attributes:
        kind: its name.
        dim: of the vectors.
        config: what else than arrays builds it again, as JSON has it.
    """

    @property
    def kind(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    def arrays(self) -> Mapping[str, np.ndarray]:
        """All that it has learned, by name."""

    def embed(self, bars: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Vectors [n, dim] of bars [n, steps, channels] and features [n, features], float32, of length one.

        Raises:
            UserError: the input has another shape than the encoder takes, or is not finite; or so is the result.
        """
