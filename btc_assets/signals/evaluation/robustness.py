"""Whether a slice still finds itself when some of its trades are missing, or when the clock is a second off. This takes no labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.features.tick_arrays import TickArrays

_BLOCK = 512  # rows


@dataclass(frozen=True)
class Rates:
    """The shares of slices that find themselves as the nearest, and among the ten nearest."""

    at_1: float
    at_10: float

    def __str__(self) -> str:
        return f"{self.at_1:.3f} / {self.at_10:.3f}"


@dataclass(frozen=True)
class Robustness:
    """The rates under each disturbance, by its name."""

    rates: Mapping[str, Rates]


def thin_ticks(ticks: TickArrays, share: float = 0.1, seed: int = 0) -> TickArrays:
    """The ticks without a random share of them; all slices stay."""
    kept = np.random.default_rng(seed).random(len(ticks.time)) >= share
    return _choose_ticks(ticks, np.flatnonzero(kept), np.concatenate([[0], np.cumsum(kept)])[ticks.offsets])


def shift_clock(ticks: TickArrays, by: int = 1_000_000) -> TickArrays:
    """The ticks cut into slices by a clock that is slow by `by` µs.

    Ticks that leave the first slice, or move into a gap, are lost.
    """
    time = ticks.time - by
    slices = np.minimum(np.searchsorted(ticks.starts, time, side="right") - 1, len(ticks.starts) - 1)
    rows = np.flatnonzero((slices >= 0) & (time - ticks.starts[slices] < SLICE_US))
    # Event times may step back a little between trades: each tick goes to its own slice, and ticks of a slice keep their order.
    rows = rows[np.argsort(slices[rows], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(slices[rows], minlength=len(ticks.starts)))])
    return _choose_ticks(replace(ticks, time=time), rows, offsets)


def _choose_ticks(ticks: TickArrays, rows: np.ndarray, offsets: np.ndarray) -> TickArrays:
    columns = {name: getattr(ticks, name)[rows] for name in ("time", "price", "quantity", "buy")}
    return replace(ticks, offsets=offsets, **columns)


def measure_robustness(ticks: TickArrays, embed_ticks: Callable[[TickArrays], np.ndarray], *, seed: int = 0) -> Robustness:
    """How often slices are found among all n when their ticks are disturbed.

    Args:
        ticks: of n slices.
        embed_ticks: from ticks to vectors [n, d]; rows that are not finite count as no vectors and are not queried.
        seed: of the thinning.
    """
    originals = embed_ticks(ticks)
    disturbed = {"10 % of trades missing": thin_ticks(ticks, seed=seed), "clock 1 s slow": shift_clock(ticks)}
    return Robustness({name: self_retrieval(originals, embed_ticks(changed)) for name, changed in disturbed.items()})


def self_retrieval(originals: np.ndarray, changed: np.ndarray) -> Rates:
    """The rates at which row i of `changed` [n, d] has row i of `originals` [n, d] as its nearest by Euclidean distance.

    Other originals at the same distance count as nearer, so vectors that are all equal find nothing.
    """
    rows = np.flatnonzero(np.isfinite(originals).all(axis=1) & np.isfinite(changed).all(axis=1))
    center = originals[rows].mean(axis=0) if len(rows) else 0.0
    one, other = ((vectors[rows] - center).astype(np.float32) for vectors in (originals, changed))
    half_norms = np.einsum("nd,nd->n", one, one) / 2
    nearer = np.empty(len(rows), np.int64)
    for first in range(0, len(rows), _BLOCK):
        block = np.arange(first, min(first + _BLOCK, len(rows)))
        closeness = other[block] @ one.T - half_norms
        nearer[block] = (closeness >= closeness[np.arange(len(block)), block][:, None]).sum(axis=1) - 1
    return Rates(*(float((nearer < k).mean()) if len(rows) else float("nan") for k in (1, 10)))
