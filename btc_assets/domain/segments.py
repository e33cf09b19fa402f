"""Arithmetic on segments of arrays, each by itself."""

from __future__ import annotations

import numpy as np


def reduce_segments(ufunc: np.ufunc, values: np.ndarray, offsets: np.ndarray, *, empty: float = 0, dtype: type | None = None) -> np.ndarray:
    """Reduce each of `values[offsets[i]:offsets[i + 1]]` by itself, so that no segment depends on another, to the last bit.

    Args:
        ufunc: such as `np.add`.
        values: [m].
        offsets: [k + 1], ascending from 0 to m.
        empty: the result of a segment without values.
        dtype: of the result; by default, that of the values.

    Returns:
        [k].
    """
    filled = offsets[:-1] < offsets[1:]
    result = np.full(len(filled), empty, dtype or values.dtype)
    if filled.any():
        result[filled] = ufunc.reduceat(values, offsets[:-1][filled], dtype=dtype)
    return result
