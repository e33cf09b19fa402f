"""How far the store lags behind, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import SLICE
from btc_assets.domain.ticks import TABLE
from btc_assets.ingestion.offsets import read_listing_position
from btc_assets.landing.arrivals import WaitingSlices, read_waiting_slices
from btc_assets.landing.states import SliceState
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_LISTING_OVERDUE = timedelta(minutes=2)  # the sensor lists every 30 s
_BUILT_FROM_TICKS = {"market_data": "candles", "signals": "features or embeddings"}  # by room
_RUN_OVERDUE = timedelta(minutes=5)  # request, queue, start and load take seconds for a slice, a minute for a day

_BEHIND = """
SELECT split_part(asset, '/', 1), count(DISTINCT bucket_5m), min(due_since) FROM ingestion.makeable_slices GROUP BY 1
"""


@dataclass(frozen=True)
class SymbolHealth:
    """How far a symbol is loaded: its label, and the event time of its newest tick; None if it has none."""

    label: str
    newest: datetime | None


@dataclass(frozen=True)
class Health:
    """The state of the store at one moment.

    Attributes:
        symbols: how far each symbol is loaded.
        waiting: slices with something to load.
        candles_due: slices whose ticks changed since their candles were built.
        signals_due: slices whose ticks changed since their features or embeddings were built.
        reasons: why the store lags behind, a sentence each; none if it does not.
        stuck: whether work has waited for longer than a run takes, so that the last failed run may say why.
    """

    symbols: list[SymbolHealth]
    waiting: WaitingSlices
    candles_due: int
    signals_due: int
    reasons: list[str]
    stuck: bool


def read_health(connection: psycopg.Connection, feeds: Feeds, now: datetime, *, grace: timedelta) -> Health:
    """Read what landed, what waits and what is loaded.

    Args:
        connection: to the store, in autocommit mode.
        feeds: of the landing zone.
        now: the present, in UTC.
        grace: how long after its end a slice is closed.
    """
    waiting = read_waiting_slices(connection, now, grace=grace)
    with server_errors():
        rows = connection.execute("SELECT source, last_ts FROM ingestion.stream_offsets").fetchall()
        newest: dict[str, datetime | None] = dict(rows)
        (gone,) = only_row(
            connection.execute("SELECT count(DISTINCT bucket_5m) FROM landing.slices WHERE state = %s", (SliceState.SOURCE_GONE,))
        )
        behind = {room: _Behind(*rest) for room, *rest in connection.execute(_BEHIND).fetchall()}
    overdue = [due.since for due in waiting.due if now - due.since > _RUN_OVERDUE]
    late = [room for room in _BUILT_FROM_TICKS if room in behind and now - behind[room].since > _RUN_OVERDUE]
    reasons = [*_listing_problems(connection, feeds, now, grace)]
    if overdue:
        reasons.append(f"{len(overdue):,} slice(s) wait for their run, the oldest since {_at(min(overdue))}.")
    if gone:
        reasons.append(f"{gone:,} slice(s) were loaded from an object that is gone: restore it, or load them with btc-assets load --force.")
    for room in late:
        reasons.append(
            f"The {_BUILT_FROM_TICKS[room]} of {behind[room].slices:,} slice(s) were not rebuilt since their ticks changed, "
            f"the oldest at {_at(behind[room].since)}."
        )
    return Health(
        symbols=[SymbolHealth(feed.label, newest.get(f"{TABLE}/{feed.label}")) for feed in feeds],
        waiting=waiting,
        candles_due=behind["market_data"].slices if "market_data" in behind else 0,
        signals_due=behind["signals"].slices if "signals" in behind else 0,
        reasons=reasons,
        stuck=bool(overdue or late),
    )


class _Behind(NamedTuple):
    """How many slices of a room are due, and since when the oldest is."""

    slices: int
    since: datetime


def _listing_problems(connection: psycopg.Connection, feeds: Feeds, now: datetime, grace: timedelta) -> Iterator[str]:
    for prefix in feeds.prefixes:
        position = read_listing_position(connection, prefix)
        if position.listed_at is None:
            yield f"The landing sensor has not listed {prefix} yet: start btc-assets dev, or load without it (btc-assets load)."
        elif now - position.listed_at > _LISTING_OVERDUE:
            yield (
                f"The landing sensor has not listed {prefix} since {_at(position.listed_at)}: start btc-assets dev, or look at the "
                "sensor's ticks there."
            )
        elif position.newest_folder is not None and now - position.newest_folder > SLICE + grace:
            yield f"Nothing landed in {prefix} since the folder of {_at(position.newest_folder)}: check the collector."


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
