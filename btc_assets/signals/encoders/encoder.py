"""Encoders: from the bars and features of a slice to a vector of length one, through one interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.batches import BATCH, map_batches
from btc_assets.signals.encoders.device import choose_device, full_precision
from btc_assets.signals.encoders.rocket import MiniRocket
from btc_assets.signals.encoders.scaling import RobustScaler
from btc_assets.signals.encoders.tcn import Tcn, pool_states
from btc_assets.signals.encoders.windows import require_finite


class Encoder(nn.Module):
    """Maps raw bars and features to vectors. All it needs, including the scaling, is a parameter or a buffer of the module.

    Args:
        steps, channels: of the bars; `channels` is at least 1.
        features: number of features; 0 to encode the bars alone.
        dim: of the vectors.

    Attributes:
        kind: the name in `KINDS`.
        dim: of the vectors.
        config: the arguments that build an encoder of the same shape.
    """

    kind: ClassVar[str]

    def __init__(self, *, steps: int, channels: int, features: int, dim: int, **more: int) -> None:
        super().__init__()
        self.steps, self.channels, self.features, self.dim = steps, channels, features, dim
        self.config: dict[str, int] = {"steps": steps, "channels": channels, "features": features, "dim": dim, **more}
        self.bar_scaler = RobustScaler(channels)
        self.feature_scaler = RobustScaler(features)

    def forward(self, bars: Tensor, features: Tensor) -> Tensor:
        """Embed bars [n, steps, channels] and features [n, features] as rows of length one [n, dim], float32.

        Raises:
            UserError: the number of steps, channels, features or rows does not fit, or values are not finite.
        """
        self._check("Bars", bars, (len(features), self.steps, self.channels))
        self._check("Features", features, (len(bars), self.features))
        return nn.functional.normalize(self.encode(self.bar_scaler(bars), self.feature_scaler(features)), eps=1e-12)

    def encode(self, bars: Tensor, features: Tensor) -> Tensor:
        """The vectors of scaled input (float64) before they are normalized."""
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        """Every tensor of the encoder by name, on the CPU."""
        return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in self.state_dict().items()}

    def embed(self, bars: np.ndarray, features: np.ndarray, *, batch_size: int = BATCH) -> np.ndarray:
        """Vectors [n, dim] of bars [n, steps, channels] and features [n, features], float32, computed on the encoder's device.

        They differ by less than 1e-5 between batch sizes, and by little more between devices.

        Raises:
            UserError: the input has another shape than the encoder takes, or is not finite.
        """
        self.eval()
        device = next(self.buffers()).device
        if len(bars) != len(features):
            raise UserError(f"There are bars of {len(bars)} slices and features of {len(features)}: embed the same slices of both.")
        vectors = np.empty((len(bars), self.dim), np.float32)

        def fill(rows: slice) -> None:
            batch = (torch.from_numpy(np.ascontiguousarray(values[rows], dtype=np.float32)).to(device) for values in (bars, features))
            vectors[rows] = self(*batch).cpu().numpy()

        with full_precision(device):
            for _ in map_batches(fill, len(bars), batch_size, device):
                pass
        return vectors

    def _check(self, what: str, values: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(values.shape) != shape:
            raise UserError(
                f"{what} of shape {tuple(values.shape)} do not fit this {self.kind} encoder, which takes {shape}: "
                "compute them with the version that trained it, or train another model."
            )
        if not values.isfinite().all():
            require_finite(what, values.cpu().numpy())


class RocketPca(Encoder):
    """The proportions of MiniRocket and the features, weighted, reduced to their principal components.

    Weighting and projection are one affine map, which fitting stores in `mean` and `projection`.
    """

    kind = "rocket-pca"
    mean: Tensor
    projection: Tensor

    def __init__(self, *, steps: int, channels: int, features: int, dim: int, biases: int = 119) -> None:
        super().__init__(steps=steps, channels=channels, features=features, dim=dim, biases=biases)
        self.rocket = MiniRocket(steps, channels, biases)
        self.register_buffer("mean", torch.zeros(self.rocket.width + features))
        self.register_buffer("projection", torch.zeros(self.rocket.width + features, dim))

    def encode(self, bars: Tensor, features: Tensor) -> Tensor:
        return (torch.cat([self.rocket(bars), features.float()], dim=1) - self.mean) @ self.projection


class TcnEncoder(Encoder):
    """A temporal convolutional network of the bars, a perceptron of the features, and the features, reduced to principal components.

    Training contrasts the output of a linear head. The head is discarded afterwards, because it is the first to lose what two views
    do not share (Chen et al. 2020). An affine map as in `RocketPca` replaces it; until training has ended that map is random.
    """

    kind = "tcn"
    mean: Tensor
    projection: Tensor

    def __init__(self, *, steps: int, channels: int, features: int, dim: int, width: int = 128) -> None:
        super().__init__(steps=steps, channels=channels, features=features, dim=dim, width=width)
        self.tcn = Tcn(steps, channels, width)
        self.perceptron = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width)) if features else None
        self.width = width * (4 if features else 3)
        self.register_buffer("mean", torch.zeros(self.width + features))
        self.register_buffer("projection", torch.randn(self.width + features, dim) / self.width**0.5)
        self.projection[self.width :] = 0

    def encode(self, bars: Tensor, features: Tensor) -> Tensor:
        features = features.float()
        return (torch.cat([self.join(self.tcn(bars.float()), features), features], dim=1) - self.mean) @ self.projection

    def join(self, states: Tensor, features: Tensor) -> Tensor:
        """Combine states [n, channels, steps] and scaled features into rows [n, width]."""
        return torch.cat([pool_states(states)] + ([self.perceptron(features)] if self.perceptron else []), dim=1)


KINDS: dict[str, type[Encoder]] = {RocketPca.kind: RocketPca, TcnEncoder.kind: TcnEncoder}
"""Encoders by name; the first is the default."""


def build_encoder(kind: str, config: dict[str, Any]) -> Encoder:
    """An untrained encoder.

    Raises:
        UserError: the kind does not exist.
    """
    if kind not in KINDS:
        raise UserError(f"There is no encoder of the kind {kind!r}: choose one of {', '.join(KINDS)}.")
    return KINDS[kind](**config)


def restore_ours(model_id: str, config: dict[str, Any], arrays: Mapping[str, np.ndarray], device: str | None) -> Encoder:
    """The encoder of a model of one of our kinds, from what its artifact holds, on a device and ready to embed.

    Raises:
        UserError: another version trained it, or the device does not exist.
    """
    encoder = build_encoder(model_id.rpartition("-")[0], config)
    try:
        encoder.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except RuntimeError as error:
        raise UserError(
            f"Another version, whose encoders have another structure, trained the model {model_id}: train a model with this version."
        ) from error
    return encoder.to(choose_device(device)).eval()
