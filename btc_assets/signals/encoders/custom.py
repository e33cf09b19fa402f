"""Encoders of other people: their classes, held to what `EncoderKind` promises."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.kinds import EncoderKind
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows, require_finite

_TRIED = 16  # windows that a new encoder embeds on trial
_TOLERANCE = 1e-4  # between the vectors of a window alone, among others, and after the encoder was restored
_STORED = {"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float16", "float32", "float64"}


class CustomEncoder:
    """An encoder whose class is not ours.

    Args:
        made: by the class.
        dim: of the vectors that it has to make.
    """

    def __init__(self, made: EncoderKind, dim: int) -> None:
        self._made, self.kind, self.dim, self.config = made, made.kind, dim, {"dim": dim}
        self._name = f"{type(made).__module__}:{type(made).__qualname__}"

    @classmethod
    def fit(cls, kind: type[EncoderKind], windows: TrainingWindows, options: FitOptions) -> CustomEncoder:
        """Fit an encoder, and see that it can be used: after its arrays were stored, for one window and for many.

        Raises:
            UserError: it breaks the protocol.
        """
        encoder = cls(kind.fit(windows, options), options.dim)
        bars, features = windows.bars[:_TRIED], windows.features[:_TRIED]
        vectors = encoder.embed(bars, features)
        restored = cls.restore(kind, encoder.arrays(), options.dim)
        if not np.allclose(restored.embed(bars, features), vectors, atol=_TOLERANCE):
            raise UserError(
                f"The encoder {encoder._name} makes other vectors once it was restored: arrays() must return all that it needs."
            )
        if not np.allclose(encoder.embed(bars[:1], features[:1]), vectors[:1], atol=_TOLERANCE):
            raise UserError(
                f"The encoder {encoder._name} makes another vector of a slice alone than of the same among others: let no row depend on the others."
            )
        return encoder

    @classmethod
    def restore(cls, kind: type[EncoderKind], arrays: Mapping[str, np.ndarray], dim: int) -> CustomEncoder:
        """The encoder whose arrays these are."""
        return cls(kind.restore(arrays), dim)

    def arrays(self) -> Mapping[str, np.ndarray]:
        """What it has learned, as the artifact stores it.

        Raises:
            UserError: it is something else than arrays of numbers by name.
        """
        given: object = self._made.arrays()
        if not isinstance(given, Mapping):
            raise UserError(f"arrays() of the encoder {self._name} returns a {type(given).__name__}: let it return arrays by name.")
        wrong = [name for name, array in given.items() if not isinstance(array, np.ndarray) or array.dtype.name not in _STORED]
        if wrong or not all(isinstance(name, str) for name in given):
            raise UserError(
                f"arrays() of the encoder {self._name} returns what is no NumPy array of numbers, such as {wrong[:3]}: convert it."
            )
        return {name: np.array(array, array.dtype.newbyteorder("="), order="C") for name, array in given.items()}

    def embed(self, bars: np.ndarray, features: np.ndarray) -> np.ndarray:
        """See `Encoder`."""
        if len(bars) != len(features):
            raise UserError(f"There are bars of {len(bars)} slices and features of {len(features)}: embed the same slices of both.")
        require_finite("Bars", bars)
        require_finite("Features", features)
        if not len(bars):
            return np.empty((0, self.dim), np.float32)
        given: object = self._made.embed(
            np.array(bars, np.float32, order="C"), np.array(features, np.float32, order="C")
        )  # copies, to do with what it likes
        shape, dtype = getattr(given, "shape", None), getattr(given, "dtype", None)
        if not isinstance(given, np.ndarray) or given.shape != (len(bars), self.dim) or given.dtype.kind not in "fiu":
            raise UserError(
                f"The encoder {self._name} returned {type(given).__name__} of shape {shape} and type {dtype}, and must return an array of numbers of "
                f"shape {(len(bars), self.dim)}."
            )
        vectors = given.astype(np.float64)
        lengths = np.sqrt(np.square(vectors).sum(1, keepdims=True))
        wrong = int((~(np.isfinite(lengths) & (lengths > 0))).sum())
        if wrong:
            raise UserError(
                f"The encoder {self._name} returned NaN, infinite or zero vectors for {wrong} of {len(bars)} slices: let it return a direction for each."
            )
        return (vectors / lengths).astype(np.float32)
