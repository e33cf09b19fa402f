"""Which rows may be fitted on when others are judged: purging and embargo, for evaluations and data sets alike.

A row is an interval of time, from the first moment that its inputs come from to the end of what its target is made of. A row that
overlaps what is judged is purged, and so is one that ends or starts too near to it (Lopez de Prado 2018, section 7.4).
"""

from __future__ import annotations

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import HOUR_US

EMBARGO_US = HOUR_US  # unless said otherwise


def require_spans(**spans: int) -> None:
    """Refuse negative spans, given in µs by their names.

    Raises:
        UserError: one is negative.
    """
    for name, span in spans.items():
        if span < 0:
            raise UserError(f"The {name} of {span} µs is negative: give 0 or more.")


def free_from(ends: np.ndarray, target_ends: np.ndarray, embargo: int) -> np.ndarray:
    """From when on something may be judged by a row: its target has ended by then, and the embargo since its own end is over.

    Args:
        ends: of what the rows' inputs come from, µs [n].
        target_ends: of what their targets are made of, µs [n].
        embargo: µs.
    """
    return np.maximum(ends + embargo, target_ends)


def keeps_clear(
    starts: np.ndarray, ends: np.ndarray, judged_from: np.ndarray | int, judged_until: np.ndarray | int | None = None,
    *, purge: int = 0, embargo: int = 0,
) -> np.ndarray:  # fmt: skip
    """Whether rows may be fitted on, although an interval is judged.

    Args:
        starts, ends: of the rows, µs [n]; half-open.
        judged_from, judged_until: the interval, half-open, µs; without an end, everything from then on is judged.
        purge: how long before the interval a row must have ended, µs.
        embargo: how long after the interval a row may start at the earliest, µs.

    Returns:
        bool [n].
    """
    before = ends + purge <= judged_from
    return before if judged_until is None else before | (starts >= judged_until + embargo)
