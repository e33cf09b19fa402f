"""Segments are reduced each by itself."""

from __future__ import annotations

import numpy as np

from btc_assets.domain.segments import reduce_segments


def test_empty_segments_reduce_to_a_given_value() -> None:
    values, offsets = np.array([3.0, 1.0, 2.0]), np.array([0, 0, 2, 2, 3])
    assert reduce_segments(np.add, values, offsets).tolist() == [0, 4, 0, 2]
    assert reduce_segments(np.maximum, values, offsets, empty=-1).tolist() == [-1, 3, -1, 2]
