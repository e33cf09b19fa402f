"""Encoders: how well their vectors separate classes of labeled data sets, and how many slices per second they embed.

`--aeon` trains the sequence branch of each kind anew on the training part of nine data sets that come with aeon, without labels. It
then evaluates the vectors of both parts by a ridge classifier, and by the nearest neighbor by cosine. Windows of unequal length are
stretched to the longest of their set by linear interpolation; the `tcn` sees at most 128 steps of each.

`--rate` trains on random windows of the production shape and embeds more of them, with the threads that PyTorch has.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from btc_assets.signals.encoders.encoder import KINDS
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.formulas import FEATURES

SETS = (
    "ACSF1", "ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels", "OSULeaf", "PickupGestureWiimoteZ", "UnitTest",
)  # fmt: skip
GOALS = (0.926, 0.897)  # of TS2Vec, by the same measures
TCN_STEPS, TCN_EPOCHS = 128, 200


def stretch(series: np.ndarray, steps: int) -> np.ndarray:
    """Interpolate [channels, any number of steps] to [steps, channels]."""
    at = np.linspace(0, series.shape[1] - 1, steps)
    return np.column_stack([np.interp(at, np.arange(series.shape[1]), channel) for channel in series])


def load_data_set(name: str, most: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Windows and labels of the training part, and of the test part."""
    import aeon.datasets

    parts = []
    folder = Path(aeon.datasets.__file__).parent / "data" / name
    for part in ("TRAIN", "TEST"):
        parts.append(aeon.datasets.load_from_ts_file(folder / f"{name}_{part}.ts"))
    steps = min(max(series.shape[1] for many, _ in parts for series in many), most or 1 << 30)
    (trained, labels), (judged, truth) = (
        (np.stack([stretch(series, steps) for series in many]).astype(np.float32), classes) for many, classes in parts
    )
    return trained, labels, judged, truth


def measure_accuracies(kind: str, name: str, seed: int) -> tuple[float, float]:
    """Accuracies of a linear probe, and of the nearest neighbor."""
    from sklearn.linear_model import RidgeClassifierCV

    trained, labels, judged, truth = load_data_set(name, TCN_STEPS if kind == "tcn" else None)
    none = np.empty((len(trained), 0), np.float32)
    encoder = fit_encoder(kind, TrainingWindows(trained, none), FitOptions(seed=seed, epochs=TCN_EPOCHS))
    known = encoder.embed(trained, none)
    asked = encoder.embed(judged, np.empty((len(judged), 0), np.float32))
    probe = RidgeClassifierCV(alphas=np.logspace(-4, 4, 17)).fit(known, labels)
    nearest = labels[(asked @ known.T).argmax(1)]
    return float(probe.score(asked, truth)), float((nearest == truth).mean())


def show_accuracies(kinds: list[str], seeds: int, console: Console) -> None:
    table = Table("data set", *(f"{kind} {measure}" for kind in kinds for measure in ("probe", "1-NN")))
    rows = []
    for name in SETS:
        rows.append([np.mean([measure_accuracies(kind, name, seed) for seed in range(seeds)], axis=0) for kind in kinds])
        table.add_row(name, *(f"{value:.3f}" for value in np.ravel(rows[-1])))
        console.print(f"[dim]{name}: {np.ravel(rows[-1]).round(3).tolist()}")
    table.add_row("mean", *(f"{value:.3f}" for value in np.ravel(np.mean(rows, axis=0))), style="bold")
    table.add_row("goal", *(f"{goal:.3f}" for _ in kinds for goal in GOALS))
    console.print(table)


def show_rates(kinds: list[str], windows: int, console: Console) -> None:
    random = np.random.default_rng(0)
    bars = random.standard_t(3, (windows, STEPS, len(CHANNELS))).astype(np.float32)
    features = random.standard_t(3, (windows, len(FEATURES))).astype(np.float32)
    table = Table("kind", "windows", "training, s", "slices/s", "1 M slices, min", "one slice, ms (median)")
    for kind in kinds:
        started = time.perf_counter()
        encoder = fit_encoder(kind, TrainingWindows(bars, features), progress=lambda *step: console.print(f"[dim]{step}", end="\r"))
        training = time.perf_counter() - started
        encoder.embed(bars[:512], features[:512])
        started = time.perf_counter()
        encoder.embed(bars, features)
        rate = windows / (time.perf_counter() - started)
        alone = []
        for row in range(min(50, windows)):
            started = time.perf_counter()
            encoder.embed(bars[row : row + 1], features[row : row + 1])
            alone.append(time.perf_counter() - started)
        table.add_row(kind, f"{windows:,}", f"{training:.0f}", f"{rate:,.0f}", f"{1e6 / rate / 60:.1f}", f"{1e3 * np.median(alone):.1f}")
    console.print(table, f"{torch.get_num_threads()} threads, {'cuda' if torch.cuda.is_available() else 'CPU'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aeon", action="store_true", help="accuracies on nine data sets")
    parser.add_argument("--rate", action="store_true", help="training time and slices per second")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind (may be repeated)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings to average")
    parser.add_argument(
        "--windows", type=int, default=8640, help="windows to train on and to embed (default: %(default)s, a month of slices)"
    )
    arguments = parser.parse_args()
    kinds, console = arguments.kind or list(KINDS), Console()
    if arguments.aeon:
        show_accuracies(kinds, arguments.seeds, console)
    if arguments.rate:
        show_rates(kinds, arguments.windows, console)
    if not (arguments.aeon or arguments.rate):
        parser.print_help()


if __name__ == "__main__":
    main()
