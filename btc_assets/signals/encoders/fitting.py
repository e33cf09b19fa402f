"""Fitting an encoder of any kind: the one door to training."""

from __future__ import annotations

from pathlib import Path

from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener, ignore_progress
from btc_assets.signals.encoders.custom import CustomEncoder
from btc_assets.signals.encoders.interface import Encoder
from btc_assets.signals.encoders.kinds import OURS, Kinds
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows, require_finite


def fit_encoder(
    kind: str,
    windows: TrainingWindows,
    options: FitOptions | None = None,
    *,
    kinds: Kinds | None = None,
    checkpoint: Path | None = None,
    progress: Listener = ignore_progress,
) -> Encoder:
    """Fit an encoder on these windows and on nothing else.

    Args:
        kind: the name of one of `kinds`.
        windows: to learn from.
        options: by default, those of `FitOptions`.
        kinds: of this process; by default, those that no setting names.
        checkpoint: a file in which the `tcn` saves its state; interrupted training resumes from it and ends with the same encoder.
        progress: called with stage, done and total; only by our own kinds.

    Raises:
        UserError: the kind or the device does not exist, there are fewer than two windows, all windows are alike, values are not
            finite, or an encoder of yours breaks its protocol.
    """
    options, kinds = options or FitOptions(), kinds or Kinds()
    kinds.require(kind)
    if len(windows) < 2:
        raise UserError(f"An encoder cannot be trained on {len(windows)} windows: give at least two, better thousands.")
    require_finite("Bars", windows.bars)
    require_finite("Features", windows.features)
    if kind not in OURS:
        return CustomEncoder.fit(kinds.find(kind), windows, options)
    from btc_assets.signals.encoders.torch_fitting import fit_ours

    encoder = fit_ours(kind, windows, options, checkpoint, progress)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return encoder
