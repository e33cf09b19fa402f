"""Does a slice still find itself when some of its trades are missing, or when the clock is a second off? No labels are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from btc_assets.domain.slices import SLICE_US

if TYPE_CHECKING:
    from btc_assets.signals.features.tick_arrays import TickArrays

_ROWS = 512


@dataclass(frozen=True)
class Rates:
    """The shares of slices that find themselves as the nearest, and among the ten nearest."""

    at_1: float
    at_10: float

    def __str__(self) -> str:
        return f"{self.at_1:.3f} / {self.at_10:.3f}"


@dataclass(frozen=True)
class Retrieval:
    """The rates under each change, by its name."""

    rates: Mapping[str, Rates]


def thinned(ticks: TickArrays, share: float = 0.1, seed: int = 0) -> TickArrays:
    """The ticks without a random share of them; the slices stay."""
    kept = np.random.default_rng(seed).random(len(ticks.time)) >= share
    return _chosen(ticks, np.flatnonzero(kept), np.concatenate([[0], np.cumsum(kept)])[ticks.offsets])


def shifted(ticks: TickArrays, by: int = 1_000_000) -> TickArrays:
    """The ticks as a clock that is slow by `by` µs would cut them into slices.

    Ticks that leave the first slice, or move into a gap, are lost.
    """
    time = ticks.time - by
    slices = np.minimum(np.searchsorted(ticks.starts, time, side="right") - 1, len(ticks.starts) - 1)
    rows = np.flatnonzero((slices >= 0) & (time - ticks.starts[slices] < SLICE_US))
    # Event times may step back a little between trades: each goes to its own slice, and their order stays.
    rows = rows[np.argsort(slices[rows], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(slices[rows], minlength=len(ticks.starts)))])
    return _chosen(replace(ticks, time=time), rows, offsets)


def _chosen(ticks: TickArrays, rows: np.ndarray, offsets: np.ndarray) -> TickArrays:
    columns = {name: getattr(ticks, name)[rows] for name in ("time", "price", "quantity", "buy")}
    return replace(ticks, offsets=offsets, **columns)


def retrieval(ticks: TickArrays, embed: Callable[[TickArrays], np.ndarray], *, seed: int = 0) -> Retrieval:
    """How often slices are found among all n by what is left of them.

    Args:
        ticks: of n slices.
        embed: from ticks to vectors [n, d]; rows that are not finite are no vectors, and are not asked for.
        seed: of the thinning.
    """
    originals = embed(ticks)
    changes = {"10 % of trades missing": thinned(ticks, seed=seed), "clock 1 s slow": shifted(ticks)}
    return Retrieval({name: self_retrieval(originals, embed(changed)) for name, changed in changes.items()})


def self_retrieval(originals: np.ndarray, changed: np.ndarray) -> Rates:
    """The rates at which row i of `changed` [n, d] has row i of `originals` [n, d] as its nearest by Euclidean distance.

    Originals that are as near as the own one count as nearer, so vectors that are all the same find nothing.
    """
    rows = np.flatnonzero(np.isfinite(originals).all(axis=1) & np.isfinite(changed).all(axis=1))
    centre = originals[rows].mean(axis=0) if len(rows) else 0.0
    one, other = ((vectors[rows] - centre).astype(np.float32) for vectors in (originals, changed))
    half_norms = np.einsum("nd,nd->n", one, one) / 2
    nearer = np.empty(len(rows), np.int64)
    for first in range(0, len(rows), _ROWS):
        block = np.arange(first, min(first + _ROWS, len(rows)))
        closeness = other[block] @ one.T - half_norms
        nearer[block] = (closeness >= closeness[np.arange(len(block)), block][:, None]).sum(axis=1) - 1
    return Rates(*(float((nearer < k).mean()) if len(rows) else float("nan") for k in (1, 10)))
