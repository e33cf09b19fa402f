"""The open slice, loaded every few seconds, so that its candles are at most some seconds old.

A pass registers and loads the slices that are not closed yet with the functions that every load uses: what it leaves is exact for the
objects that it saw. Each slice is loaded once more when it is closed, by a run that Dagster records, because a pass marks its ticks as due
(`ingestion.due.mark_open`); that run makes features and embeddings as well. So a loader that is killed, late or not there costs freshness
and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event

import psycopg
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.printable import printable
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.domain.ticks import TABLE
from btc_assets.ingestion.due import read_due_marks
from btc_assets.landing.arrivals import last_close
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.resources import Landing
from btc_assets.landing.spool import Spool
from btc_assets.landing.states import SliceState
from btc_assets.market_data.candles import enabled_intervals, refresh_candles
from btc_assets.market_data.keys import candles_key
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.market_data.partial_candles import CandlesOfTicks
from btc_assets.store.database import Store, only_row
from btc_assets.store.errors import plain_error, server_errors
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all

log = logging.getLogger(__name__)

MARGIN = timedelta(minutes=2)  # how far before its trades the folder of an object is looked for; the closed load looks farther
_LONGEST_PAUSE = 60.0  # seconds, while the database or the landing zone is away

_WAITING = """
SELECT DISTINCT bucket_5m FROM landing.slices WHERE bucket_5m >= %s AND bucket_5m < %s AND asset = ANY(%s) AND state = ANY(%s) ORDER BY 1
"""
_LOCK = "SELECT pg_try_advisory_lock(hashtext('market_data.open_slices'))"


@dataclass(frozen=True)
class Pass:
    """What one pass did.

    Attributes:
        window: the slices that are open.
        read: objects that were read.
        rows: ticks of the slices that were loaded.
    """

    window: Window
    read: int
    rows: int


class KeptSpool(Spool):
    """Ticks of the open slices' objects: each pass loads the whole slice, and reads only what is new."""

    def take(self, versions: Sequence[ObjectVersion]) -> Iterator[tuple[ObjectVersion, pa.Table]]:
        """Hand over the ticks of these objects, and keep them."""
        return self.look_at(versions)


def open_window(now: datetime, grace: timedelta) -> Window:
    """The slices that are not closed yet: the present one, and the one before it during its grace."""
    return Window(last_close(now, grace), floor_slice(now) + SLICE)


class LiveLoader:
    """Loads open slices.

    Args:
        store: to load into.
        landing: where the objects land.
        settings: of the store.
        followers: keys of all assets that are made from ticks.
    """

    def __init__(self, store: Store, landing: Landing, settings: Settings, followers: Sequence[str]) -> None:
        self._store, self._landing, self._settings, self._followers = store, landing, settings, followers
        self._derived = [CandlesOfTicks(enabled_intervals(settings))]  # features are made once, of the closed slice
        self._spool, self._spooled_from = KeptSpool(), datetime.min.replace(tzinfo=UTC)

    def load_open_slices(self, connection: psycopg.Connection, now: datetime) -> Pass:
        """Register and load what has landed for the slices that are open, and make their candles.

        Args:
            connection: to the store; in autocommit mode.
            now: the present, in UTC.

        Raises:
            UserError: the landing zone or the server fails, or slices are left as they are because a source is gone.
        """
        settings, feeds = self._settings, self._settings.landing_feeds
        window = open_window(now, settings.landing_grace)
        if window.start != self._spooled_from:
            self._derived = [CandlesOfTicks(enabled_intervals(settings))]  # features are made once, of the closed slice
        self._spool, self._spooled_from = KeptSpool(), window.start  # what belongs to the slice that was closed is not kept for ever
        zone = self._landing.zone()
        options = RegisterOptions(min(settings.landing_margin, MARGIN), spool=self._spool)
        registered = register_window(connection, zone, feeds, window, options)
        rows = 0
        for part in _contiguous(self._waiting_slices(connection, window)):
            load = TickLoad(
                self._store,
                zone,
                feeds,
                part,
                LoadOptions(settings.commit_rows, self._followers, spool=self._spool, derivations=self._derived, still_open=True),
            )
            rows += replace_all(connection, Target.of(connection, TABLE), load, store=self._store)
            self._make_candles([part, *load.loaded_outside])
        self._make_candles([window])  # what an earlier pass left
        return Pass(window, registered.read, rows)

    def _waiting_slices(self, connection: psycopg.Connection, window: Window) -> list[datetime]:
        states = [SliceState.PENDING.value, SliceState.STALE.value]
        with server_errors():
            rows = connection.execute(_WAITING, (window.start, window.end, list(self._settings.landing_feeds.labels), states)).fetchall()
        return [bucket for (bucket,) in rows]

    def _make_candles(self, windows: Iterable[Window]) -> None:
        """Make the candles of all intervals that are due."""
        intervals = enabled_intervals(self._settings)
        with self._store.connect(owner=True) as owner:
            for window in windows:
                for interval in intervals:
                    if read_due_marks(owner, candles_key(interval), window):
                        refresh_candles(owner, interval, window)


def _contiguous(buckets: Sequence[datetime]) -> Iterator[Window]:
    """The windows of ascending slices."""
    start = end = None
    for bucket in buckets:
        if start is None or end is None or bucket != end:
            if start is not None and end is not None:
                yield Window(start, end)
            start = bucket
        end = bucket + SLICE
    if start is not None and end is not None:
        yield Window(start, end)


@contextmanager
def only_loader(store: Store) -> Iterator[psycopg.Connection | None]:
    """A connection that holds the lock of the one loader of open slices; None if another process has it."""
    with store.connect() as connection:
        with server_errors():
            (alone,) = only_row(connection.execute(_LOCK))
        yield connection if alone else None


def follow(
    store: Store, loader: LiveLoader, seconds: float, stop: Event, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> None:
    """Load open slices every few seconds until told to stop; what fails is told, and tried again.

    Args:
        store: of the loader.
        loader: of this process.
        seconds: from the beginning of a pass to that of the next one.
        stop: set to end, after the pass in progress.
        clock: the present, in UTC.
    """
    told, failures = "", 0
    while not stop.is_set():
        try:
            with only_loader(store) as connection:
                if connection is None:
                    told = _tell("Another process loads the open slices of this store: this one waits until it ends.", told)
                    stop.wait(seconds)
                    continue
                while not stop.is_set():
                    started = time.monotonic()
                    done = loader.load_open_slices(connection, clock())
                    if told or done.read:
                        log.info(f"{done.window}: {done.read:,} new objects, {done.rows:,} ticks loaded.")
                    told, failures = "", 0
                    stop.wait(max(0.0, seconds - (time.monotonic() - started)))
        except Exception as error:
            plain = error if isinstance(error, UserError) else plain_error(error)
            if plain is None:
                raise
            told, failures = _tell(printable(str(plain)), told), failures + 1
            stop.wait(min(seconds * 2**failures, _LONGEST_PAUSE))


def _tell(sentence: str, told: str) -> str:
    if sentence != told:
        log.warning(sentence)
    return sentence
