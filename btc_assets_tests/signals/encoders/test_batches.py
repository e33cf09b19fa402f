"""Batches: results do not depend on the number of threads."""

from __future__ import annotations

import numpy as np
import torch

from btc_assets.signals.encoders.batches import map_batches
from btc_assets.signals.encoders.encoder import Encoder
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets_tests.support.windows import training_windows, windows


def test_batches_cover_all_rows_in_order() -> None:
    parts = map_batches(lambda rows: (rows.start, rows.stop), 10, 4, torch.device("cpu"))
    assert list(parts) == [(0, 4), (4, 8), (8, 10)]


def test_a_vector_does_not_depend_on_the_number_of_threads() -> None:
    bars, features = windows(30, seed=1)
    encoder = fit_encoder("rocket-pca", training_windows(40), FitOptions(dim=16))
    assert isinstance(encoder, Encoder)
    alone = encoder.embed(bars, features, batch_size=8)
    torch.set_num_threads(2)
    try:
        together = encoder.embed(bars, features, batch_size=8)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(together, alone)
