"""Raw tables: what the readers of all formats hand over, and how they refuse an object.

A raw table has the columns as the producer named them. `formats.py` makes raw tables of bytes, `decode.py` makes ticks of them.
"""

from __future__ import annotations

# How producers write a missing value. `NA` is not one of them: it is a word of the exchange's own in a message.
NULLS = ["", "NaN", "nan", "null", "None", "NULL", r"\N", "<NA>", "N/A"]

# The column that holds the text of a row that could not be parsed.
UNPARSED = "__unparsed__"
# Beside it, the reason that such a row is rejected for, if there is a better one than that.
REASON = "__reason__"


# What is not trades, but looks like it.
AGGREGATES = "it holds aggregate trades (aggTrades), which join several trades and have no trade ids: land the dump called trades"
KLINES = "it holds klines (candles), no trades: land the dump called trades"

AGAIN = ": land it again"  # the advice for an object that was damaged on its way


class ObjectRejected(Exception):
    """The content of the object is unusable; the message says why and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(without_nul(reason))


class Damaged(ObjectRejected):
    """The bytes are not those that the producer wrote."""


class NoRows(ObjectRejected):
    """There is not even a header."""

    def __init__(self) -> None:
        super().__init__(f"the object holds no rows, not even a header{AGAIN}")


class TooLarge(ObjectRejected):
    """A bound of `bounds.py` is exceeded."""


def without_nul(text: str) -> str:
    """The text with NUL replaced, which PostgreSQL cannot store in text or jsonb."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def join_names(names: list[str]) -> str:
    """Column names for a message, shortened."""
    return ", ".join(name[:40] for name in names[:12]) or "none"
