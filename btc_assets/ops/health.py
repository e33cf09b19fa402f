"""How far the store lags behind, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import SLICE, floor_slice
from btc_assets.domain.tables import TICKS
from btc_assets.ingestion.offsets import ListingPosition, read_listing_positions
from btc_assets.landing.arrivals import WaitingSlices, read_waiting_slices
from btc_assets.landing.states import SliceState
from btc_assets.landing.strays import read_strays, summarize
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_LISTING_OVERDUE = timedelta(minutes=2)  # the sensor lists every 30 s
_BUILT_FROM_TICKS = {"market_data": "candles", "signals": "features or embeddings"}  # by room
_RUN_OVERDUE = timedelta(minutes=5)  # request, queue, start and load take seconds for a slice, a minute for a day

_NAMED = 3  # prefixes in a sentence; there may be a hundred
_LATE_FOLDER = timedelta(hours=1)  # an object that was written this long after its folder's minute is no collector's

# When the objects of the newest folders were written; they lie in the registry's newest slices.
_LAST_WRITTEN = """
SELECT prefix, max(last_modified)
FROM unnest(%s::timestamptz[], %s::text[], %s::text[]) AS asked (first, label, prefix)
    LEFT JOIN landing.raw_blobs_5m ON bucket_5m >= first AND asset = label
GROUP BY prefix ORDER BY prefix
"""

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


def read_health(
    connection: psycopg.Connection,
    feeds: Feeds,
    now: datetime,
    *,
    grace: timedelta,
    history_start: datetime | None = None,
    daemon_runs: Callable[[], bool] = lambda: False,
) -> Health:
    """Read what landed, what waits and what is loaded.

    Args:
        connection: to the store, in autocommit mode.
        feeds: of the landing zone.
        now: the present, in UTC.
        grace: how long after its end a slice is closed.
        history_start: the first day of the store; what landed for days before it is told, and does not count as late.
        daemon_runs: whether a daemon of Dagster runs, without which no sensor does; asked only if a sensor does not.
    """
    waiting = read_waiting_slices(connection, now, grace=grace, history_start=history_start, symbols=feeds.labels)
    with server_errors():
        rows = connection.execute("SELECT source, last_ts FROM ingestion.stream_offsets").fetchall()
        newest: dict[str, datetime | None] = dict(rows)
        (gone,) = only_row(
            connection.execute("SELECT count(DISTINCT bucket_5m) FROM landing.slices WHERE state = %s", (SliceState.SOURCE_GONE,))
        )
        behind = {room: _Behind(*rest) for room, *rest in connection.execute(_BEHIND).fetchall()}
    overdue = [due.since for due in waiting.due if now - due.since > _RUN_OVERDUE]
    late = [room for room in _BUILT_FROM_TICKS if room in behind and now - behind[room].since > _RUN_OVERDUE]
    reasons = [*_listing_problems(connection, feeds, now, grace, daemon_runs)]
    count, strays = read_strays(connection, feeds.labels)
    if count:
        reasons.append(summarize(count, strays))
    if retired := retired_symbols(newest, feeds):
        reasons.append(tell_retired(retired))
    if overdue:
        reasons.append(f"{len(overdue):,} slice(s) wait for their run, the oldest since {_at(min(overdue))}.")
    if waiting.before_history:
        reasons.append(
            f"{waiting.before_history:,} slice(s) with something to load lie before the history of this store, so nothing requests them: set "
            "BTC_ASSETS_HISTORY_START to an earlier day to load them."
        )
    if gone:
        reasons.append(f"{gone:,} slice(s) were loaded from an object that is gone: restore it, or load them with btc-assets load --force.")
    for room in late:
        reasons.append(
            f"The {_BUILT_FROM_TICKS[room]} of {behind[room].slices:,} slice(s) were not rebuilt since their ticks changed, "
            f"the oldest at {_at(behind[room].since)}."
        )
    return Health(
        symbols=[SymbolHealth(feed.label, newest.get(f"{TICKS}/{feed.label}")) for feed in feeds],
        waiting=waiting,
        candles_due=behind["market_data"].slices if "market_data" in behind else 0,
        signals_due=behind["signals"].slices if "signals" in behind else 0,
        reasons=reasons,
        stuck=bool(overdue or late),
    )


def retired_symbols(sources: Iterable[str], feeds: Feeds) -> list[str]:
    """The symbols that ticks were loaded of and that belong to no feed of today.

    Args:
        sources: of `ingestion.stream_offsets`.
        feeds: of the landing zone.
    """
    loaded = {source.removeprefix(f"{TICKS}/") for source in sources if source.startswith(f"{TICKS}/")}
    return sorted(loaded - set(feeds.labels))


def tell_retired(symbols: Sequence[str]) -> str:
    """A sentence about symbols that belong to no feed of today."""
    return (
        f"{', '.join(symbols)}: of no feed in BTC_ASSETS_LANDING_FEEDS, so what is loaded stays as it is, and nothing that landed is "
        "loaded; name the feed again if that is not meant."
    )


class _Behind(NamedTuple):
    """How many slices of a room are due, and since when the oldest is."""

    slices: int
    since: datetime


def _listing_problems(
    connection: psycopg.Connection, feeds: Feeds, now: datetime, grace: timedelta, daemon_runs: Callable[[], bool]
) -> Iterator[str]:
    """A sentence for each prefix that is not listed or in which nothing lands; one for all in which it is the same."""
    positions = read_listing_positions(connection, feeds.prefixes)
    never = [prefix for prefix, position in positions.items() if position.listed_at is None]
    overdue = [(position.listed_at, prefix) for prefix, position in positions.items() if _is_overdue(position, now)]
    current = {prefix: position for prefix, position in positions.items() if position.listed_at and not _is_overdue(position, now)}
    runs = bool(never or overdue) and daemon_runs()
    if never:
        remedy = _SENSOR_OFF if runs else "start btc-assets dev, or load without it (btc-assets load)."
        yield f"The landing sensor has not listed {_names(never)} yet: {remedy}"
    for since, prefixes in _together(overdue):
        remedy = _SENSOR_OFF if runs else "start btc-assets dev (or the host's dagster-daemon)."
        yield f"The landing sensor has not listed {_names(prefixes)} since {_at(since)}: {remedy}"
    for since, prefixes in _together(_silent_collectors(connection, feeds, current, now, SLICE + grace)):
        yield f"Nothing landed in {_names(prefixes)} since the folder of {_at(since)}: check the collector."


_SENSOR_OFF = "a daemon runs, so look in the Dagster UI whether the sensor is switched on and what its ticks say."


def _is_overdue(position: ListingPosition, now: datetime) -> bool:
    return position.listed_at is not None and now - position.listed_at > _LISTING_OVERDUE


def _together(found: Iterable[tuple[datetime | None, str]]) -> Iterator[tuple[datetime, list[str]]]:
    """The prefixes of each time, to the second, which is what is told of it."""
    by_time: dict[datetime, list[str]] = {}
    for time, prefix in found:
        assert time is not None
        by_time.setdefault(time.replace(microsecond=0), []).append(prefix)
    return iter(by_time.items())


def _names(prefixes: Sequence[str]) -> str:
    shown, more = prefixes[:_NAMED], len(prefixes) - _NAMED
    return ", ".join(shown) + (f" and {more:,} more prefixes" if more > 0 else "")


def _silent_collectors(
    connection: psycopg.Connection, feeds: Feeds, positions: Mapping[str, ListingPosition], now: datetime, limit: timedelta
) -> Iterator[tuple[datetime | None, str]]:
    """The prefixes in which objects landed as they do from a collector, and do no longer, with the time of the newest folder.

    Not where the newest objects were written long after the minute of their folder, as a landed file or a dump is; nor where one was
    written just now, whatever its folder says.
    """
    folders = {prefix: folder for prefix, (folder, _) in positions.items() if folder is not None and now - folder > limit}
    asked = [(floor_slice(folder) - SLICE, label, prefix) for prefix, folder in folders.items() for label in feeds.by_prefix(prefix).labels]
    if not asked:
        return
    with server_errors():
        rows = connection.execute(_LAST_WRITTEN, [list(column) for column in zip(*asked, strict=True)]).fetchall()
    for prefix, written in rows:
        folder = folders[prefix]
        if written is None or (written - folder <= _LATE_FOLDER and now - written > limit):
            yield folder, prefix


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
