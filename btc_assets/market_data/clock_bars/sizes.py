"""The clocks, and what the size of a bar means on each of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Literal, NamedTuple, get_args

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND
from btc_assets.domain.ticks import PRICE, QUANTITY

Clock = Literal[
    "tick", "volume", "dollar", "time",
    "tick_imbalance", "volume_imbalance", "dollar_imbalance", "tick_runs", "volume_runs", "dollar_runs",
]  # fmt: skip
CLOCKS: tuple[str, ...] = get_args(Clock)
ADAPTIVE = CLOCKS[4:]

Size = int | float | str | Decimal | timedelta

# What a trade counts on a clock, and the decimal places of that: one, its quantity, or its price times its quantity.
Measure = Literal["tick", "volume", "dollar"]
SCALES: dict[str, int] = {"tick": 0, "volume": QUANTITY.scale, "dollar": PRICE.scale + QUANTITY.scale}

SIDES = ("aggressor", "tick_rule")
Side = Literal["aggressor", "tick_rule"]

_EXACT = Context(prec=1000)  # no size is rounded
_MOST_DIGITS = 30  # before the point: no market trades more

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_WHAT = {
    "tick": "a number of trades, such as 1000",
    "volume": "base units, such as 50 or Decimal('0.5')",
    "dollar": "quote units, such as 1_000_000",
    "time": "a duration, such as '1m', '90s' or a timedelta",
}


class Rule(NamedTuple):
    """What a clock counts, and how a bar closes on it.

    Attributes:
        measure: of a trade; for time, it is `tick`.
        kind: `fixed`, `time`, `imbalance` or `runs`.
    """

    measure: str
    kind: str


@dataclass(frozen=True)
class Expectation:
    """How imbalance and runs clocks learn what to expect of the next bar from the bars before it.

    Attributes:
        span: of the exponentially weighted averages, in bars; a new bar has the weight 2 / (span + 1).
        shortest: the least expected number of trades, as a multiple of the size.
        longest: the largest one; a bar of this many trades closes whatever its imbalance is.
        floor: the least threshold of an imbalance clock, as a multiple of the imbalance that a market without drift reaches in as many
            trades as the size says, on average. 0 and infinite bounds give the book's rule, which may explode or collapse.
    """

    span: float = 20.0
    shortest: float = 0.5
    longest: float = 5.0
    floor: float = 1.0

    def __post_init__(self) -> None:
        fine = self.span >= 1 and 0 <= self.shortest <= 1 <= self.longest and 0 <= self.floor < math.inf and self.span < math.inf
        if not fine:  # also if one of them is not a number
            raise UserError(
                f"{self} is no expectation of bars: span must be 1 or more, shortest from 0 to 1, longest 1 or more, and floor 0 or more."
            )


def rule_of(clock: str) -> Rule:
    """What a clock counts and how it closes.

    Raises:
        UserError: there is no such clock.
    """
    if clock not in CLOCKS:
        raise UserError(f"There is no clock {clock!r}: use one of {', '.join(CLOCKS)}.")
    if clock == "time":
        return Rule("tick", "time")
    measure, _, kind = clock.partition("_")
    return Rule(measure, kind or "fixed")


def parse_size(clock: str, size: Size | None) -> int:
    """The size of a bar as an integer: of trades, of the smallest unit of the measure (see `SCALES`), or of microseconds.

    Raises:
        UserError: it is missing, no number, not above zero, or finer than what is stored. A float is rounded instead: nobody means its
            last digits.
    """
    wanted = _WHAT[clock if clock in _WHAT else "tick"]
    if size is None:
        raise UserError(f"Bars on the clock {clock!r} need a size: give {wanted}.")
    if clock == "time":
        count = _microseconds(size)
    else:
        value = _decimal(size)
        count = None if value is None else value.scaleb(SCALES.get(clock, 0), _EXACT)
        if count is not None and isinstance(size, float) and SCALES.get(clock):
            count = count.to_integral_value()
    if count is None or count <= 0:
        raise UserError(f"{size!r} is no size of a bar on the clock {clock!r}: give {wanted}; it must be above zero.")
    if count != int(count):
        finest = "whole numbers of trades" if clock not in SCALES or clock == "tick" else f"{SCALES[clock]} decimal places"
        raise UserError(f"The size {size!r} is finer than the clock {clock!r} can count: it counts in {finest}.")
    return int(count)


def _decimal(size: Size) -> Decimal | None:
    if isinstance(size, timedelta | bool):
        return None
    try:
        value = Decimal(str(size))
    except InvalidOperation:
        return None
    return value if value.is_finite() and value.adjusted() < _MOST_DIGITS else None


def _microseconds(size: Size) -> Decimal | None:
    if isinstance(size, timedelta):
        return Decimal(size // MICROSECOND)
    if found := _DURATION.fullmatch(size.strip()) if isinstance(size, str) else None:
        try:
            return Decimal(timedelta(**{_UNITS[found[2]]: int(found[1])}) // MICROSECOND)
        except OverflowError:
            return None
    return None
