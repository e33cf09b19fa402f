"""How far behind the store is, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import SLICE
from btc_assets.domain.ticks import TABLE
from btc_assets.ingestion.offsets import read_listing_position
from btc_assets.landing.arrivals import WaitingSlices, read_waiting_slices
from btc_assets.landing.states import SliceState
from btc_assets.store.errors import server_errors

_SENSOR_RESTS = timedelta(minutes=2)  # it lists every 30 s
_MADE_OF_TICKS = {"market_data": "candles", "signals": "features or embeddings"}  # room, and what it makes
_RUN_TAKES = timedelta(minutes=5)  # asked for, queued, started, loaded: seconds for a slice, a minute for a day

_BEHIND = """
SELECT split_part(asset, '/', 1), count(DISTINCT bucket_5m), min(due_since) FROM ingestion.makeable_slices GROUP BY 1
"""


@dataclass(frozen=True)
class Symbol:
    """How far one symbol is loaded; `newest` is the event time of its newest tick."""

    label: str
    newest: datetime | None


@dataclass(frozen=True)
class Health:
    """The state of the store at one moment.

    Attributes:
        symbols: how far each is loaded.
        waiting: slices with something to load.
        candles_due: slices whose candles are not made since their ticks changed.
        signals_due: the same of their features and embeddings.
        reasons: why it is behind, a sentence each; none where it is as far as it can be.
        stuck: whether work waits for longer than a run takes, so that a failed run may tell why.
    """

    symbols: list[Symbol]
    waiting: WaitingSlices
    candles_due: int
    signals_due: int
    reasons: list[str]
    stuck: bool


def read_health(connection: psycopg.Connection, feeds: Feeds, now: datetime, *, grace: timedelta) -> Health:
    """Look at what landed, what waits and what is loaded.

    Args:
        connection: to the store; in autocommit.
        feeds: what lands.
        now: the present, in UTC.
        grace: how long after its end a slice is closed.
    """
    waiting = read_waiting_slices(connection, now, grace=grace)
    with server_errors():
        offsets: dict[str, datetime | None] = dict(connection.execute("SELECT source, last_ts FROM ingestion.stream_offsets").fetchall())
        gone = connection.execute(
            "SELECT count(DISTINCT bucket_5m) FROM landing.slices WHERE state = %s", (SliceState.SOURCE_GONE,)
        ).fetchone()
        behind: dict[str, tuple[int, datetime]] = {room: (count, since) for room, count, since in connection.execute(_BEHIND).fetchall()}
    assert gone
    overdue = [one for one in waiting.due if now - one.since > _RUN_TAKES]
    reasons = list(_landing(connection, feeds, now, grace))
    if overdue:
        reasons.append(f"{len(overdue):,} slices wait for their run, the oldest since {_at(min(one.since for one in overdue))}.")
    if gone[0]:
        reasons.append(
            f"Of {gone[0]:,} slices an object is gone that they were loaded from: restore it, or load them with btc-assets load --force."
        )
    late = [(name, *behind[room]) for room, name in _MADE_OF_TICKS.items() if room in behind and now - behind[room][1] > _RUN_TAKES]
    reasons += [
        f"The {name} of {count:,} slices are not made since their ticks changed, the oldest at {_at(since)}." for name, count, since in late
    ]
    symbols = [Symbol(feed.label, offsets.get(f"{TABLE}/{feed.label}")) for feed in feeds]
    candles_due, signals_due = (behind[room][0] if room in behind else 0 for room in _MADE_OF_TICKS)
    return Health(symbols, waiting, candles_due, signals_due, reasons, bool(overdue or late))


def _landing(connection: psycopg.Connection, feeds: Feeds, now: datetime, grace: timedelta) -> Iterator[str]:
    for prefix in feeds.prefixes:
        newest, listed_at = read_listing_position(connection, prefix)
        if listed_at is None:
            yield f"The landing sensor has not looked at {prefix} yet: btc-assets dev starts it, btc-assets load does without it."
        elif now - listed_at > _SENSOR_RESTS:
            yield f"The landing sensor has not looked at {prefix} since {_at(listed_at)}: start btc-assets dev, or see its ticks there."
        elif newest is not None and now - newest > SLICE + grace:
            yield f"Nothing landed in {prefix} since the folder of {_at(newest)}: look after the collector."


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
