"""Refreshing candles in several sessions at once, where the engine can do that: a refresh keeps one processor busy, and a host has two."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.domain.printable import printable
from btc_assets.domain.slices import SLICE, Window
from btc_assets.store.database import Store

log = logging.getLogger(__name__)

SESSIONS = 2
_FEWEST_SLICES = 24  # in a part; opening a session and taking the locks costs as much as refreshing some slices

_CAN = "SELECT to_regprocedure('market_data.refresh_candles_ahead(text, timestamptz, timestamptz)') IS NOT NULL"


def refresh_ahead(store: Store, connection: psycopg.Connection, interval: str, window: Window) -> None:
    """Refresh the parts of a long window in several sessions, and leave the rest, and whatever fails, to `refresh_candles`.

    Args:
        store: opens the sessions, as the owner of the candles.
        connection: that the candles are refreshed in afterwards.
        interval: one that is built from ticks: the others take a tenth of its time together.
        window: the slices.
    """
    parts = list(_cut(window))
    if len(parts) < SESSIONS or connection.execute(_CAN).fetchone() != (True,):
        return
    waiting, opened = iter(parts), list[psycopg.Connection]()

    def refresh() -> None:
        with store.connect(owner=True) as session:
            opened.append(session)
            for part in waiting:
                session.execute("CALL market_data.refresh_candles_ahead(%s, %s, %s)", (interval, part.start, part.end))

    with ThreadPoolExecutor(SESSIONS, thread_name_prefix="refresh") as pool:
        try:
            for helper in [pool.submit(refresh) for _ in range(SESSIONS)]:
                helper.result()
        except (psycopg.Error, UserError) as error:
            log.info("Candles of %s, %s, are not refreshed ahead: %s", interval, window, printable(str(error)))
        except BaseException:
            for session in opened:
                with suppress(psycopg.Error):
                    session.cancel_safe()
            raise


def _cut(window: Window) -> Iterator[Window]:
    """Quarters of days, so that the sessions end at about the same time although some hours are busier than others."""
    for day in window.days():
        size = max(_FEWEST_SLICES, -(-len(day) // (2 * SESSIONS)))
        start = day.start
        while start < day.end:
            end = min(start + size * SLICE, day.end)
            yield Window(start, end)
            start = end
