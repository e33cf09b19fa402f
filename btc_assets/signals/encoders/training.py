"""Training encoders: seeded, label-free, and the same on every run of one machine."""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.encoders.contrast import contrast, crop, disturb, hierarchical, soft_targets, thin
from btc_assets.signals.encoders.encoder import BATCH, Encoder, RocketPca, TcnEncoder, build, check_finite, each_batch, one_thread
from btc_assets.signals.encoders.kinetic import kinetic_map
from btc_assets.signals.encoders.rocket import principal_components
from btc_assets.signals.encoders.scaling import RobustScaler
from btc_assets.signals.features.bars import CHANNELS

MOST_DIM = 2000  # of a pgvector index
MOST_WINDOWS = 20_160  # of the training windows, drawn at random, that scalers and principal components are taken from
DAY_WINDOWS = 288
BIAS_STEPS = 4096  # of training windows, whose convolutions the biases are quantiles of; more were not better
HALF_WHITE = 0.5  # 1 leaves principal components as large as they are, 0 makes all alike: between them, neighbours were best
FEATURE_VARIANCE = 4.0  # of the features, that of the bars being 1: they tell regimes apart better
BATCH_TRAINED = 128  # windows a step of the `tcn`, and the number of steps below which training does not end
STEPS_TRAINED = 800
LEAST_EPOCHS, MOST_EPOCHS = 4, 16  # a network that sees the same windows more often learns them by heart: neighbours were worse
LEARNING_RATE = 1e-3


def fit(
    kind: str,
    bars: np.ndarray,
    features: np.ndarray,
    *,
    times: np.ndarray | None = None,
    next_labels: np.ndarray | None = None,
    dim: int = 256,
    seed: int = 0,
    device: str | None = None,
    epochs: int | None = None,
    progress: Listener | None = None,
    checkpoint: Path | None = None,
) -> Encoder:
    """Train an encoder of a kind on the windows given, and on nothing else.

    Args:
        kind: one of `encoders.KINDS`.
        bars, features: [n, steps, channels] and [n, features] in raw units; `features` may have no column.
        times: starts of the slices, int64 µs [n], ascending; where they are known, directions are weighed by how long they last.
        next_labels: [n, 3], of the window after each, NaN where unknown; only `tcn` uses them, as a second aim.
        dim: of the vectors; where the windows do not span as many dimensions, the rest is 0.
        seed: the same one gives the same encoder on one machine.
        device: of PyTorch; the GPU where there is one.
        epochs: of `tcn`; with 0 it stays what it was drawn as.
        progress: told how far it is.
        checkpoint: a file that `tcn` keeps its state in; training that was killed goes on from it, to the same end.

    Raises:
        UserError: an unknown kind or device, a seed or dimension out of range, fewer than two windows or all of them alike, shapes that do not fit, or values that are not finite.
    """
    if len(bars) != len(features) or bars.ndim != 3 or features.ndim != 2:
        raise UserError(
            f"Bars of shape {bars.shape} and features of shape {features.shape} do not fit: give [n, steps, channels] and [n, features]."
        )
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed is {seed}: choose one from 0 to {2**32 - 1}.")
    if not 2 <= dim <= MOST_DIM:
        raise UserError(f"Vectors of {dim} dimensions cannot be indexed: choose from 2 to {MOST_DIM}.")
    if len(bars) < 2:
        raise UserError(f"An encoder cannot be trained on {len(bars)} windows: give at least two, better thousands.")
    check_finite("Bars", torch.from_numpy(bars))
    check_finite("Features", torch.from_numpy(features))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build(kind, {"steps": bars.shape[1], "channels": bars.shape[2], "features": features.shape[1], "dim": dim})
    generator = torch.Generator().manual_seed(seed)
    drawn = _drawn(len(bars), generator)
    encoder.bar_scaler.fit(bars[drawn].reshape(-1, bars.shape[2]))
    encoder.feature_scaler.fit(features[drawn])
    encoder.to(_device(device))
    progress = progress or (lambda *_: None)
    some = bars[drawn], features[drawn]
    follows = None if times is None else np.diff(times[drawn], prepend=0) == SLICE_US
    if isinstance(encoder, RocketPca):
        with torch.inference_mode():
            _fit_components(encoder, *some, follows, generator, progress)
    elif isinstance(encoder, TcnEncoder):
        training = _Contrastive(encoder, bars, features, next_labels, seed, epochs, checkpoint)
        training.run(progress)
        if training.epochs:  # else it stays what it was drawn as
            with torch.inference_mode():
                _fit_states(encoder, *some, follows, generator)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return encoder.eval()


def _drawn(windows: int, generator: torch.Generator) -> np.ndarray:
    """Indices of at most `MOST_WINDOWS` windows, in order: runs of a day's length, drawn at random."""
    if windows <= MOST_WINDOWS:
        return np.arange(windows)
    days = torch.randperm(windows // DAY_WINDOWS, generator=generator)[: MOST_WINDOWS // DAY_WINDOWS].sort().values.numpy()
    return (days[:, None] * DAY_WINDOWS + np.arange(DAY_WINDOWS)).ravel()


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"PyTorch has no device {name!r} here ({str(error).splitlines()[0]}): leave it out to have it chosen.") from error
    return device


def _fit_components(
    encoder: RocketPca,
    bars: np.ndarray,
    features: np.ndarray,
    follows: np.ndarray | None,
    generator: torch.Generator,
    progress: Listener,
) -> None:
    """Biases from a few windows, all windows' counts, and what they are projected on."""
    device = encoder.mean.device
    some = torch.randperm(len(bars), generator=generator)[: max(4, BIAS_STEPS // encoder.steps)].numpy()
    encoder.rocket.fit(encoder.bar_scaler(torch.from_numpy(bars[some]).to(device)), generator)

    small = torch.uint8 if encoder.steps <= 255 else torch.int16  # of counts there are ten thousand a window

    def convolve(rows: slice) -> tuple[Tensor, Tensor]:
        windows, columns = (torch.from_numpy(values[rows]).to(device) for values in (bars, features))
        return encoder.rocket.counts(encoder.bar_scaler(windows)).to(small), encoder.feature_scaler(columns).float()

    counts, scaled = [], []
    for block, columns in each_batch(convolve, len(bars), BATCH, device):
        counts.append(block)
        scaled.append(columns)
        progress("convolutions", min(len(counts) * BATCH, len(bars)), len(bars))
    with one_thread():  # how a sum is shared among threads shows in its last bit, and so would in the model's id
        _fit_projection(encoder, lambda: map(encoder.rocket.angles, counts), torch.cat(scaled), follows, generator)
    progress("principal components", 1, 1)


def _fit_states(
    encoder: TcnEncoder, bars: np.ndarray, features: np.ndarray, follows: np.ndarray | None, generator: torch.Generator
) -> None:
    """What the states of all windows are projected on."""
    device = encoder.mean.device

    def states(rows: slice) -> tuple[Tensor, Tensor]:
        windows, columns = (torch.from_numpy(values[rows]).to(device) for values in (bars, features))
        scaled = encoder.feature_scaler(columns).float()
        return encoder.join(encoder.tcn(encoder.bar_scaler(windows).float()), scaled), scaled

    with one_thread():
        joined, scaled = zip(*each_batch(states, len(bars), BATCH, device), strict=True)
        _fit_projection(encoder, lambda: iter(joined), torch.cat(scaled), follows, generator)


def _fit_projection(
    encoder: RocketPca | TcnEncoder,
    blocks: Callable[[], Iterator[Tensor]],
    scaled: Tensor,
    follows: np.ndarray | None,
    generator: torch.Generator,
) -> None:
    """The principal components of what is made of all windows' bars (it comes in blocks), and then those of them and the features.

    The features, standardised, and the bars' components, half whitened, are given their shares of the whole variance: else the
    ten thousand angles of MiniRocket would drown the features. Where it is known which windows follow each other, the kinetic map weighs the
    components of both; else their variance does.
    """
    device, width, rows = encoder.mean.device, len(encoder.mean) - encoder.features, len(scaled)
    centre = torch.zeros(width, dtype=torch.float64, device=device)
    for block in blocks():
        centre += block.sum(0, dtype=torch.float64) / rows
    columns = scaled.double()
    encoder.mean.copy_(torch.cat([centre, columns.mean(0)]))

    def centred() -> Iterator[Tensor]:
        return (block - encoder.mean[:width] for block in blocks())

    components, values = principal_components(centred, width, min(encoder.dim, rows - 1), generator)
    spanned = values > max(1e-4 * float(values[0]), 1e-6)
    components, values = components[:, spanned], values[spanned]
    # Singular values to this power are what the components are as large as; the share is of their squares' sum.
    components *= values ** (HALF_WHITE - 1) / values.pow(2 * HALF_WHITE).sum().sqrt()
    deviations = (columns - columns.mean(0)).square().sum(0).sqrt()
    weights = torch.where(deviations > 1e-6, 1 / deviations, 0.0).float()
    weights *= math.sqrt(FEATURE_VARIANCE) / max(1, int((weights > 0).sum())) ** 0.5

    of_bars = torch.cat([block @ components for block in centred()])
    joined = torch.cat([of_bars, (scaled - encoder.mean[width:]) * weights], dim=1).double()
    variances, axes = torch.linalg.eigh(joined.T @ joined / rows)
    most = min(encoder.dim, rows - 1, int((variances > 1e-8 * variances[-1]).sum()))
    if most == 0:
        raise UserError(f"The {rows:,} windows are all alike, so nothing can be learned from them: give a range in which more was traded.")
    variances, axes = variances.flip(0)[:most], axes.flip(1)[:, :most]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    if follows is not None:
        axes /= variances.sqrt()
        axes @= kinetic_map((joined @ axes).float(), torch.from_numpy(follows).to(device)).double()
    axes = axes.float()
    within = len(values)
    encoder.projection.zero_()
    encoder.projection[:, : axes.shape[1]] = torch.cat([components @ axes[:within], weights[:, None] * axes[within:]])


class _Contrastive:
    """Training of the `tcn`: contrast of views, reconstruction of the features, and the next window's labels where known.

    Whatever is random in an epoch follows from the seed and the epoch's number: training that goes on from a checkpoint ends
    as training that was never interrupted.
    """

    def __init__(
        self,
        encoder: TcnEncoder,
        bars: np.ndarray,
        features: np.ndarray,
        next_labels: np.ndarray | None,
        seed: int,
        epochs: int | None,
        checkpoint: Path | None,
    ) -> None:
        labels = np.empty((len(bars), 0), np.float32) if next_labels is None else next_labels.astype(np.float32)
        if len(labels) != len(bars):
            raise UserError(
                f"There are labels of {len(labels)} windows and bars of {len(bars)}: give one row of labels a window, NaN where unknown."
            )
        self.encoder, self.seed, self.checkpoint = encoder, seed, checkpoint
        self.bars, self.features = torch.from_numpy(bars), torch.from_numpy(features)
        scaler = RobustScaler(labels.shape[1])
        for column in range(labels.shape[1]):
            known = labels[np.isfinite(labels[:, column]), column]
            if len(known):
                one = RobustScaler(1)
                one.fit(known[:, None])
                scaler.centre[column], scaler.width[column] = one.centre[0], one.width[0]
        self.labels = scaler(torch.from_numpy(labels)).float()
        self.names = [channel.name for channel in CHANNELS] if bars.shape[2] == len(CHANNELS) else []
        self.batch = min(BATCH_TRAINED, len(bars))
        self.batches = len(bars) // self.batch
        self.epochs = min(max(LEAST_EPOCHS, round(STEPS_TRAINED / self.batches)), MOST_EPOCHS) if epochs is None else epochs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            foretold = features.shape[1] + labels.shape[1]
            self.heads = nn.ModuleDict(
                {
                    "contrast": nn.Linear(encoder.width, encoder.dim),
                    "foretold": nn.Linear(encoder.dim, foretold) if foretold else nn.Identity(),
                }
            ).to(self.device)
        parameters = [*encoder.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-4)

    @property
    def device(self) -> torch.device:
        return self.encoder.projection.device

    def run(self, progress: Listener) -> None:
        first = self._restore()
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            for epoch in range(first, self.epochs):
                progress("epochs", epoch, self.epochs)
                self._epoch(epoch)
                if self.checkpoint:
                    self._keep(epoch + 1)
        progress("epochs", self.epochs, self.epochs)

    def _epoch(self, epoch: int) -> None:
        self.encoder.train()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.bars), generator=generator)
        for number in range(self.batches):
            done = (epoch * self.batches + number) / (self.epochs * self.batches)
            for group in self.optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, done / 0.05 + 0.02) * (1 + math.cos(math.pi * done)) / 2
            loss = self.loss(order[number * self.batch : (number + 1) * self.batch], generator)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
            self.optimizer.step()

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Of a batch of windows, given by their numbers."""
        encoder = self.encoder
        bars, features, labels = (values[rows].to(self.device) for values in (self.bars, self.features, self.labels))
        scaled = encoder.feature_scaler(features).float()
        described = scaled if scaled.shape[1] else encoder.bar_scaler(bars).float().flatten(1)
        targets = soft_targets(described)
        part = crop(encoder.steps, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            states, vectors = [], []
            for _ in range(2):
                view = encoder.bar_scaler(thin(bars, self.names, generator)).float()
                view, hints = disturb(view, scaled, generator)
                states.append(encoder.tcn(view[:, part]))
                vectors.append(nn.functional.normalize(self.heads["contrast"](encoder.join(states[-1], hints))))
            predicted = self.heads["foretold"](torch.stack(vectors))
        one, other = (view.float() for view in vectors)
        loss = contrast(one, other, targets) + hierarchical(states[0].float(), states[1].float(), targets)
        truth = torch.cat([scaled, labels], dim=1)
        known = truth.isfinite()
        if known.any():
            errors = nn.functional.smooth_l1_loss(predicted.float(), truth.nan_to_num().expand_as(predicted), reduction="none")
            loss = loss + (errors * known).sum() / (2 * known.sum())
        return loss

    def _state(self) -> dict[str, Any]:
        return {"encoder": self.encoder.state_dict(), "heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict()}

    def _fingerprint(self) -> str:
        """Of all that the end of training depends on."""
        digest = hashlib.sha256(repr((self.encoder.config, self.seed, self.epochs, torch.__version__)).encode())
        for values in (self.bars, self.features, self.labels):
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    def _keep(self, epochs_done: int) -> None:
        assert self.checkpoint is not None
        new = self.checkpoint.with_name(self.checkpoint.name + ".new")
        torch.save({"fingerprint": self._fingerprint(), "epochs_done": epochs_done, **self._state()}, new)
        new.replace(self.checkpoint)

    def _restore(self) -> int:
        """How many epochs the checkpoint has seen, which are not run again."""
        if not (self.checkpoint and self.checkpoint.exists()):
            return 0
        try:
            kept = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            mine = kept["fingerprint"] == self._fingerprint()
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(f"The checkpoint {self.checkpoint} cannot be read: delete it, and training begins anew.") from error
        if not mine:
            raise UserError(
                f"The checkpoint {self.checkpoint} is of other windows, another seed or another number of epochs: "
                "train with those, or delete it."
            )
        for name, part in (("encoder", self.encoder), ("heads", self.heads), ("optimizer", self.optimizer)):
            part.load_state_dict(kept[name])
        return int(kept["epochs_done"])
