"""Recordings: the trades that a play plays, from a file or generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import MICROSECOND, from_microseconds
from btc_assets.domain.ticks import int64
from btc_assets.simulation.generate_day import generate_day
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets.simulation.trade_table import FirstTrade

GENERATED = "generated"  # instead of a file: a generated day
LATE = timedelta(minutes=1)  # how far event times may step back from one trade to a later one
_GENERATED_DAY = datetime(2024, 1, 10, tzinfo=UTC)
_GENERATED_TICKS = 500_000


@dataclass(frozen=True)
class Recording:
    """Trades to be played, read once to learn their number and the time that they span.

    Attributes:
        name: for people.
        tables: opens the trades from the beginning; canonical ticks, in order of event time except for `LATE`.
        ticks, first, last, first_id: their number, earliest and latest event time, and lowest id.
        rejected: of the rows that are not valid trades, the first few with the reason.
        rejected_rows: number of such rows.
    """

    name: str
    tables: Callable[[], Iterator[pa.Table]]
    ticks: int
    first: datetime
    last: datetime
    first_id: int
    rejected: list[str] = field(default_factory=list)
    rejected_rows: int = 0

    @property
    def length(self) -> timedelta:
        return self.last - self.first


def read_recording(source: str, feed: Feed) -> Recording:
    """Read through a trades file, or generate a day if `source` is `GENERATED`.

    Raises:
        UserError: the file cannot be read, holds no trade, or is not in order of time.
    """
    if source == GENERATED:
        return survey("a generated day", lambda: generate_day(_GENERATED_DAY, _GENERATED_TICKS, first=FirstTrade(feed.label)))
    landed = Landed()
    recording = survey(source, lambda: read_trades(Path(source), feed, landed))
    return replace(
        recording,
        tables=lambda: read_trades(Path(source), feed, Landed()),
        rejected=landed.rejected,
        rejected_rows=landed.rejected_rows,
    )


def survey(name: str, tables: Callable[[], Iterator[pa.Table]]) -> Recording:
    """Read all trades once.

    Args:
        name: of the recording, for people.
        tables: opens the trades from the beginning.

    Raises:
        UserError: there is no trade, or the trades are not in order of time.
    """
    count, first, last, first_id = 0, None, 0, 0
    for table in filter(len, tables()):
        times, ids = int64(table["event_time"]), table["trade_id"].to_numpy()
        first, first_id = (times[0], ids[0]) if first is None else (first, first_id)
        arrival = np.maximum(np.maximum.accumulate(times), last)
        if (arrival - times).max() > LATE // MICROSECOND:
            late = from_microseconds(times[np.argmax(arrival - times)])
            raise UserError(f"{name} is not in order of time (a trade of {late} comes after later ones): sort it by event time first.")
        count, first, last, first_id = count + len(table), min(first, times.min()), arrival[-1], min(first_id, ids.min())
    if first is None:
        raise UserError(f"{name} holds no valid trade: give a file with at least one.")
    return Recording(name, tables, count, from_microseconds(first), from_microseconds(last), int(first_id))
