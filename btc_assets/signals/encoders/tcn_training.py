"""Training of the `tcn`: contrast of two views, reconstruction of the features, and forecasts of the next window's labels if known.

Everything random in an epoch follows from the seed and the number of the epoch, so training that resumes from a checkpoint ends with
the same encoder as training that was never interrupted.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener
from btc_assets.signals.encoders.contrast import contrast_loss, disturb_view, draw_crop, hierarchical_loss, soft_targets, thin_bars
from btc_assets.signals.encoders.encoder import TcnEncoder
from btc_assets.signals.encoders.scaling import RobustScaler
from btc_assets.signals.encoders.windows import TrainingWindows
from btc_assets.signals.features.bars import CHANNELS

BATCH_TRAINED = 128  # windows per step
STEPS_TRAINED = 800  # steps that training takes at least, within the bounds on epochs
LEAST_EPOCHS, MOST_EPOCHS = 4, 16  # a network that sees the same windows more often memorizes them: neighbors were worse
LEARNING_RATE = 1e-3


class TcnTraining:
    """One training of an encoder.

    Args:
        encoder: to train in place, on its device.
        windows: to train on.
        seed: of everything random.
        epochs: passes over the windows; None chooses by the number of windows.
        checkpoint: file that holds the state after each epoch; if it exists, training resumes from it.
    """

    def __init__(self, encoder: TcnEncoder, windows: TrainingWindows, seed: int, epochs: int | None, checkpoint: Path | None) -> None:
        labels = np.empty((len(windows), 0), np.float32) if windows.next_labels is None else windows.next_labels.astype(np.float32)
        self.encoder, self.seed, self.checkpoint = encoder, seed, checkpoint
        self.bars, self.features = torch.from_numpy(windows.bars), torch.from_numpy(windows.features)
        self.labels = _label_scaler(labels)(torch.from_numpy(labels)).float()
        self.names = [channel.name for channel in CHANNELS] if windows.bars.shape[2] == len(CHANNELS) else []
        self.batch = min(BATCH_TRAINED, len(windows))
        self.batches = len(windows) // self.batch
        self.epochs = min(max(LEAST_EPOCHS, round(STEPS_TRAINED / self.batches)), MOST_EPOCHS) if epochs is None else epochs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            foretold = windows.features.shape[1] + labels.shape[1]
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
        """Train to the end, from the checkpoint if there is one.

        Raises:
            UserError: the checkpoint is unreadable or belongs to another training.
        """
        first = self._restore_checkpoint()
        for epoch in range(first, self.epochs):
            progress("epochs", epoch, self.epochs)
            self._run_epoch(epoch)
            if self.checkpoint:
                self._save_checkpoint(self.checkpoint, epoch + 1)
        progress("epochs", self.epochs, self.epochs)

    def _run_epoch(self, epoch: int) -> None:
        self.encoder.train()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.bars), generator=generator)
        for number in range(self.batches):
            done = (epoch * self.batches + number) / (self.epochs * self.batches)
            for group in self.optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, done / 0.05 + 0.02) * (1 + math.cos(math.pi * done)) / 2
            loss = self._loss(order[number * self.batch : (number + 1) * self.batch], generator)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
            self.optimizer.step()

    def _loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of a batch of windows, given by their numbers."""
        encoder = self.encoder
        bars, features, labels = (values[rows].to(self.device) for values in (self.bars, self.features, self.labels))
        scaled = encoder.feature_scaler(features).float()
        described = scaled if scaled.shape[1] else encoder.bar_scaler(bars).float().flatten(1)
        targets = soft_targets(described)
        part = draw_crop(encoder.steps, generator)
        # On a GPU, convolutions and products in bfloat16, whose range is that of float32; statistics of states and losses in float32.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            states, vectors = [], []
            for _ in range(2):
                view = encoder.bar_scaler(thin_bars(bars, self.names, generator)).float()
                view, hints = disturb_view(view, scaled, generator)
                states.append(encoder.tcn(view[:, part]).float())
                vectors.append(nn.functional.normalize(self.heads["contrast"](encoder.join(states[-1], hints))))
            predicted = self.heads["foretold"](torch.stack(vectors))
        one, other = (view.float() for view in vectors)
        loss = contrast_loss(one, other, targets) + hierarchical_loss(states[0], states[1], targets)
        truth = torch.cat([scaled, labels], dim=1)
        known = truth.isfinite()
        if known.any():
            errors = nn.functional.smooth_l1_loss(predicted.float(), truth.nan_to_num().expand_as(predicted), reduction="none")
            loss = loss + (errors * known).sum() / (2 * known.sum())
        return loss

    def _fingerprint(self) -> str:
        """A hash of everything that the result of the training depends on."""
        digest = hashlib.sha256(repr((self.encoder.config, self.seed, self.epochs, torch.__version__)).encode())
        for values in (self.bars, self.features, self.labels):
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    def _parts(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "heads": self.heads, "optimizer": self.optimizer}

    def _save_checkpoint(self, path: Path, epochs_done: int) -> None:
        new = path.with_name(path.name + ".new")
        states = {name: part.state_dict() for name, part in self._parts().items()}
        torch.save({"fingerprint": self._fingerprint(), "epochs_done": epochs_done, **states}, new)
        new.replace(path)

    def _restore_checkpoint(self) -> int:
        """The number of epochs that the checkpoint has completed; 0 if there is none."""
        if not (self.checkpoint and self.checkpoint.exists()):
            return 0
        try:
            saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            same = saved["fingerprint"] == self._fingerprint()
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                f"The checkpoint {self.checkpoint} cannot be read: delete it, and training starts from the beginning."
            ) from error
        if not same:
            raise UserError(
                f"The checkpoint {self.checkpoint} belongs to other windows, another seed or another number of epochs: "
                "train with those, or delete it."
            )
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        return int(saved["epochs_done"])


def _label_scaler(labels: np.ndarray) -> RobustScaler:
    """A scaler fitted on the known labels of each column."""
    scaler = RobustScaler(labels.shape[1])
    for column in range(labels.shape[1]):
        known = labels[np.isfinite(labels[:, column]), column]
        if len(known):
            one = RobustScaler(1)
            one.fit(known[:, None])
            scaler.centre[column], scaler.width[column] = one.centre[0], one.width[0]
    return scaler
