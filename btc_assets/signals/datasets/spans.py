"""Spans of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY_US, HOUR_US, MICROSECOND

SECOND_US = 1_000_000

_UNITS = {"s": SECOND_US, "m": 60 * SECOND_US, "h": HOUR_US, "d": DAY_US}

Span = timedelta | str | float


def to_span(name: str, value: Span) -> int:
    """A span as µs: a timedelta, a text such as `90s`, `5m`, `1h` or `7d`, or a number of seconds.

    Raises:
        UserError: it is none of them, or negative.
    """
    if isinstance(value, timedelta):
        span = value // MICROSECOND
    elif isinstance(value, str) and (parts := re.fullmatch(r"(\d+)\s*([smhd])", value.strip())):
        span = int(parts[1]) * _UNITS[parts[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        span = round(value * SECOND_US)
    else:
        raise UserError(f"The {name} {value!r} is no span of time: write 90s, 5m, 1h or 7d, or pass a timedelta.")
    if span < 0:
        raise UserError(f"The {name} {value!r} is negative: give 0 or more.")
    return span
