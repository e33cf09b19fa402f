"""Which slices may serve as neighbors of a query, and which of them are nearest: purged and embargoed by construction.

Every search of an evaluation uses `admissible`, and so do the fits of its baselines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from btc_assets.domain.slices import DAY_US, SLICE_US
from btc_assets.signals.evaluation.purging import EMBARGO_US, free_from, keeps_clear, require_spans

_CELLS = 1 << 23  # distances in one block: 32 MiB, and twice that for their order


def admissible(times: np.ndarray, queries: np.ndarray, *, embargo: int = EMBARGO_US, same_day: bool = False) -> np.ndarray:
    """The number of slices, counted from the first, that each query may use.

    A neighbor ends at least `embargo` before the query starts, its next slice (which its targets come from) has ended by then too
    (`purging`), and it lies on an earlier UTC day.

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
    require_spans(embargo=embargo)
    ends = np.searchsorted(free_from(times + SLICE_US, times + 2 * SLICE_US, embargo), queries, side="right")
    return ends if same_day else np.minimum(ends, np.searchsorted(times, queries // DAY_US * DAY_US))


def count_violations(
    times: np.ndarray, queries: np.ndarray, neighbors: np.ndarray, *, embargo: int = EMBARGO_US, same_day: bool = False
) -> int:
    """How many of the neighbors [q, k] (indices, -1 for none) break a rule of `admissible`, checked pair by pair."""
    chosen = neighbors >= 0
    query, neighbor = np.broadcast_to(queries[:, None], chosen.shape)[chosen], times[neighbors[chosen]]
    clear = keeps_clear(neighbor, neighbor + SLICE_US, query, purge=embargo) & keeps_clear(neighbor, neighbor + 2 * SLICE_US, query)
    return int((~clear | ((query // DAY_US == neighbor // DAY_US) & (not same_day))).sum())


@dataclass(frozen=True)
class Neighbors:
    """The neighbors of q queries: indices int64 [q, k], nearest first, -1 for missing ones, and distances float32 [q, k]."""

    indices: np.ndarray
    distances: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of the known `values` [n] over the neighbors of each query: float64 [q], NaN if none is known."""
        known = (self.indices >= 0) & np.isfinite(values[self.indices])
        count = known.sum(axis=1)
        total = np.where(known, values[self.indices], 0.0).sum(axis=1)
        return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def nearest_neighbors(vectors: np.ndarray, ends: np.ndarray, rows: np.ndarray, k: int) -> Neighbors:
    """Exact nearest neighbors by Euclidean distance, which orders unit vectors as the cosine does.

    Memory is bounded: distances are computed for one block of queries at a time.

    Args:
        vectors: [n, d]; a row that is not finite counts as no vector: it has no neighbors and is none.
        ends: int64 [q], how many of the first rows are admissible, as `admissible` returns it.
        rows: int64 [q], the queries among the vectors.
        k: how many.
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
    return Neighbors(indices, distances)


def random_neighbors(ends: np.ndarray, k: int, seed: int) -> Neighbors:
    """Random admissible neighbors, drawn with replacement: the least that an embedding has to beat."""
    draws = np.random.default_rng(seed).random((len(ends), k))
    return Neighbors(np.where(ends[:, None] > 0, (draws * ends[:, None]).astype(np.int64), -1), np.zeros_like(draws, np.float32))
