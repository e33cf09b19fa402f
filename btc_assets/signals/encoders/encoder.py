"""Encoders: from the bars and features of a slice to a vector of length one, through one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.rocket import MiniRocket
from btc_assets.signals.encoders.scaling import RobustScaler
from btc_assets.signals.encoders.tcn import Tcn, pooled

BATCH = 512  # windows at once
T = TypeVar("T")


class Encoder(nn.Module):
    """Raw bars and features to vectors; whatever that takes, the scaling too, is a parameter or a buffer of it.

    Args:
        steps, channels: of the bars; `channels` at least 1.
        features: how many; none where the bars stand alone.
        dim: of the vectors.

    Attributes:
        kind: the name in `KINDS`.
        dim: of the vectors.
        config: the arguments that make an encoder of the same shape.
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
            UserError: another number of steps, channels, features or rows, or values that are not finite.
        """
        self._check("Bars", bars, (len(features), self.steps, self.channels))
        self._check("Features", features, (len(bars), self.features))
        return nn.functional.normalize(self.encode(self.bar_scaler(bars), self.feature_scaler(features)), eps=1e-12)

    def encode(self, bars: Tensor, features: Tensor) -> Tensor:
        """The vectors before they are normalised, of scaled input (float64)."""
        raise NotImplementedError

    def _check(self, what: str, values: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(values.shape) != shape:
            raise UserError(
                f"{what} of shape {tuple(values.shape)} do not fit this {self.kind} encoder, which takes {shape}: "
                "compute them with the version that trained it, or train another model."
            )
        check_finite(what, values)


def check_finite(what: str, values: Tensor) -> None:
    """Raise a `UserError` that names the columns of the last dimension where `values` are NaN or infinite."""
    if values.isfinite().all():
        return
    rows = ~values.isfinite().view(len(values), -1, values.shape[-1]).all(1)
    columns = ", ".join(str(column) for column in rows.any(0).nonzero().flatten().tolist()[:8])
    raise UserError(
        f"{what} are NaN or infinite in {rows.any(1).sum()} of {len(rows)} rows, in columns {columns} (counted from 0): "
        "compute these slices again from their ticks, or leave them out."
    )


class RocketPca(Encoder):
    """MiniRocket's proportions and the features, weighted, reduced to their principal components.

    Weighting and projecting are one affine map, which training puts into `mean` and `projection`.
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

    Training contrasts the output of a linear head that is then left out, because what views do not share is lost there first
    (Chen et al. 2020). In its place stands an affine map as in `RocketPca`; it is random until training has ended.
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
        """What states [n, channels, steps] and scaled features amount to [n, width]."""
        return torch.cat([pooled(states)] + ([self.perceptron(features)] if self.perceptron else []), dim=1)


KINDS: dict[str, type[Encoder]] = {RocketPca.kind: RocketPca, TcnEncoder.kind: TcnEncoder}
"""Encoders by name; the first is the default."""


def build(kind: str, config: dict[str, Any]) -> Encoder:
    """An untrained encoder.

    Raises:
        UserError: a kind that does not exist.
    """
    if kind not in KINDS:
        raise UserError(f"There is no encoder of the kind {kind!r}: choose one of {', '.join(KINDS)}.")
    return KINDS[kind](**config)


def embed(encoder: Encoder, bars: np.ndarray, features: np.ndarray, *, batch_size: int = BATCH) -> np.ndarray:
    """Vectors [n, dim] of bars [n, steps, channels] and features [n, features], float32, on the encoder's device.

    They differ by less than 1e-5 between batch sizes.

    Raises:
        UserError: input of another shape than the encoder's, or that is not finite.
    """
    encoder.eval()
    device = next(encoder.buffers()).device
    if len(bars) != len(features):
        raise UserError(f"There are bars of {len(bars)} slices and features of {len(features)}: embed the same slices of both.")
    vectors = np.empty((len(bars), encoder.dim), np.float32)

    def fill(rows: slice) -> None:
        batch = (torch.from_numpy(np.ascontiguousarray(values[rows], dtype=np.float32)).to(device) for values in (bars, features))
        vectors[rows] = encoder(*batch).cpu().numpy()

    for _ in each_batch(fill, len(bars), batch_size, device):
        pass
    return vectors


def each_batch(work: Callable[[slice], T], count: int, size: int, device: torch.device) -> Iterator[T]:
    """What `work` makes of each `size` rows of `count`, in order, without gradients.

    On a CPU, PyTorch's threads take a batch each instead of sharing every operation: these are so short that threads would mostly
    wait for each other, and sums then do not depend on how many there are.
    """

    @torch.inference_mode()
    def alone(start: int) -> T:
        return work(slice(start, min(start + size, count)))

    threads = torch.get_num_threads()
    if device.type != "cpu" or count <= size or threads == 1:
        yield from map(alone, range(0, count, size))
        return
    with one_thread(), ThreadPoolExecutor(threads) as pool:  # its threads take the number over
        yield from pool.map(alone, range(0, count, size))


@contextmanager
def one_thread() -> Iterator[None]:
    """Have each operation of PyTorch run in the thread that calls it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
