"""Which slices may stand as neighbours of a slice, and which of them are the nearest: purged and embargoed by construction.

Every search of the evaluation goes through `admissible`, and so do the fits of its baselines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY_US, HOUR_US, SLICE_US

_CELLS = 1 << 23  # of one block of distances: 32 MiB, and twice that for their order


def admissible(times: np.ndarray, queries: np.ndarray, *, embargo: int = HOUR_US, same_day: bool = False) -> np.ndarray:
    """How many slices, counted from the first, may serve each query.

    A neighbour's slice ends at least `embargo` before the query begins, its next slice, which its targets come from, has
    ended by then too (purging and embargo: Lopez de Prado 2018, chapter 7), and it lies on an earlier UTC day.

    Args:
        times: starts of the slices, µs, ascending [n].
        queries: starts of the queries, µs [q].
        embargo: µs.
        same_day: admit earlier slices of the query's own day.

    Returns:
        int64 [q]: the slices before this index are admissible.

    Raises:
        UserError: the embargo is negative.
    """
    if embargo < 0:
        raise UserError(f"An embargo of {embargo} µs is negative: give 0 or more.")
    latest = queries - SLICE_US - max(embargo, SLICE_US)
    if not same_day:
        latest = np.minimum(latest, queries // DAY_US * DAY_US - 1)
    return np.searchsorted(times, latest, side="right")


def violations(times: np.ndarray, queries: np.ndarray, neighbours: np.ndarray, *, embargo: int = HOUR_US, same_day: bool = False) -> int:
    """How many of the neighbours [q, k] (indices, -1 for none) break a rule of `admissible`, worked out pair by pair."""
    chosen = neighbours >= 0
    query, neighbour = np.broadcast_to(queries[:, None], chosen.shape)[chosen], times[neighbours[chosen]]
    late = (neighbour + SLICE_US + embargo > query) | (neighbour + 2 * SLICE_US > query)
    return int((late | ((query // DAY_US == neighbour // DAY_US) & (not same_day))).sum())


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of q queries: indices int64 [q, k], nearest first and -1 where there are fewer, and distances float32 [q, k]."""

    indices: np.ndarray
    distances: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over each query's neighbours of what is known of `values` [n]: float64 [q], NaN where nothing is."""
        known = (self.indices >= 0) & np.isfinite(values[self.indices])
        count = known.sum(axis=1)
        total = np.where(known, values[self.indices], 0.0).sum(axis=1)
        return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def nearest(vectors: np.ndarray, ends: np.ndarray, rows: np.ndarray, k: int) -> Neighbours:
    """Exact nearest neighbours by Euclidean distance; of unit vectors that is the order of the cosine.

    Args:
        vectors: [n, d]; a row that is not finite is no vector, and has and is no neighbour.
        ends: int64 [q], how many of the first rows are admissible, as `admissible` gives it.
        rows: int64 [q], the queries among the vectors.
        k: how many.

    Memory is bounded: the distances of a block of queries at a time.
    """
    valid = np.isfinite(vectors).all(axis=1)
    base_rows = np.flatnonzero(valid)
    # About the mean, so that squares in single precision lose nothing to an offset.
    base = np.ascontiguousarray(vectors[valid] - (vectors[valid].mean(axis=0) if valid.any() else 0.0), dtype=np.float32)
    norms = np.einsum("nd,nd->n", base, base)
    position = np.cumsum(valid) - 1
    base_ends = np.concatenate([[0], position + 1])[ends]
    indices = np.full((len(rows), k), -1)
    distances = np.full((len(rows), k), np.inf, np.float32)
    asked = np.flatnonzero(valid[rows] & (base_ends > 0))
    size = max(_CELLS // max(len(base), 1), 1)
    for block in (asked[i : i + size] for i in range(0, len(asked), size)):
        end, query = int(base_ends[block].max()), base[position[rows[block]]]
        squares = norms[:end] - 2 * query @ base[:end].T
        squares[np.arange(end) >= base_ends[block, None]] = np.inf
        found = min(k, end)
        chosen = np.argpartition(squares, found - 1, axis=1)[:, :found]
        apart = np.linalg.norm(base[chosen] - query[:, None], axis=2)
        apart[chosen >= base_ends[block, None]] = np.inf
        order = np.lexsort((chosen, apart))
        chosen, apart = (np.take_along_axis(each, order, axis=1) for each in (chosen, apart))
        indices[block, :found] = np.where(np.isfinite(apart), base_rows[chosen], -1)
        distances[block, :found] = apart
    return Neighbours(indices, distances)


def drawn(ends: np.ndarray, k: int, seed: int) -> Neighbours:
    """Random admissible neighbours, drawn with replacement: what an embedding has to beat."""
    draws = np.random.default_rng(seed).random((len(ends), k))
    return Neighbours(np.where(ends[:, None] > 0, (draws * ends[:, None]).astype(np.int64), -1), np.zeros_like(draws, np.float32))
