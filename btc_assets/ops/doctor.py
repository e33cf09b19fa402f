"""Whether everything is in place that the store needs: `btc-assets doctor`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import Window, ceil_slice, floor_slice
from btc_assets.landing.absence import explain_absence, is_misplaced
from btc_assets.landing.known_zone import require_known_zone
from btc_assets.landing.resources import Landing
from btc_assets.landing.strays import Stray, read_strays, summarize
from btc_assets.ops.database_findings import examine_database
from btc_assets.ops.findings import Finding, compare_clocks, examine_safely, find_free_space
from btc_assets.ops.health import retired_symbols, tell_retired
from btc_assets.store.database import Store, only_row
from btc_assets.store.errors import server_errors

_PREFIXES_SHOWN = 10  # one by one; of more, what is as it should be is told together


def examine_store(settings: Settings, examine_dagster: Callable[[], Iterator[Finding]] = lambda: iter(())) -> Iterator[Finding]:
    """Examine the server, the database, the landing zone, Dagster and this machine.

    What cannot be examined because of an earlier problem is left out.

    Args:
        settings: of the store.
        examine_dagster: yields what is found about Dagster, of which this room knows nothing.
    """
    try:
        connection = Store.of(settings).connect()
    except UserError as error:
        yield Finding("server", "problem", str(error))
    else:
        with connection:
            yield from examine_database(connection, settings)
            yield from examine_safely("feeds", lambda: _examine_feeds(connection, settings))
    yield from examine_safely("landing zone", lambda: _examine_landing(settings))
    yield from examine_safely("Dagster", examine_dagster)
    yield from examine_safely("disk", lambda: _examine_local_disk(settings))


def _examine_landing(settings: Settings) -> Iterator[Finding]:
    zone = Landing(settings).zone()
    now = datetime.now(UTC)
    window = Window(floor_slice(now - timedelta(hours=1)), ceil_slice(now + timedelta(seconds=1)))
    feeds = settings.landing_feeds
    strays: dict[str, set[Stray]] = {prefix: set() for prefix in feeds.prefixes}
    counts = {prefix: len(listed) for prefix, listed in zone.list_windows(feeds.prefixes, window, strays).items()}
    empty = [prefix for prefix, count in counts.items() if not count]
    with ThreadPoolExecutor(zone.concurrency) as pool:
        misplaced = {prefix for prefix, is_so in zip(empty, pool.map(partial(is_misplaced, zone), empty), strict=True) if is_so}
    for prefix in feeds.prefixes:
        if prefix in misplaced:
            yield Finding("landing zone", "warning", " ".join(explain_absence(zone, feeds.by_prefix(prefix))))
        elif len(counts) <= _PREFIXES_SHOWN:
            yield Finding("landing zone", "ok", f"{zone.url}/{prefix}: {counts[prefix]:,} object(s) in the last hour.")
        if strays[prefix]:
            yield Finding("landing zone", "warning", summarize(len(strays[prefix]), sorted(strays[prefix])[:3]))
    if len(counts) > _PREFIXES_SHOWN:
        of = f"{len(counts) - len(empty):,} of {len(counts):,} prefixes"
        yield Finding("landing zone", "ok", f"{zone.url}: {sum(counts.values()):,} object(s) in the last hour, in {of}.")
    if theirs := zone.server_time():
        yield compare_clocks("landing zone clock", theirs, datetime.now(UTC))


def _examine_feeds(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    with server_errors():
        if not only_row(connection.execute("SELECT to_regclass('landing.strays') IS NOT NULL"))[0]:
            return  # the findings of the database say that migrations are missing
        sources = [source for (source,) in connection.execute("SELECT source FROM ingestion.stream_offsets")]
    count, strays = read_strays(connection, settings.landing_feeds.labels)
    if count:
        yield Finding("feeds", "warning", summarize(count, strays))
    if retired := retired_symbols(sources, settings.landing_feeds):
        yield Finding("feeds", "warning", tell_retired(retired))
    require_known_zone(connection, Landing(settings).zone(), settings.landing_feeds)


def _examine_local_disk(settings: Settings) -> Iterator[Finding]:
    home = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    yield find_free_space("disk", home, f"BTC_ASSETS_HOME is {settings.home}")
    temporary = Path(tempfile.gettempdir())
    if os.stat(temporary).st_dev != os.stat(home).st_dev:
        yield find_free_space("temporary disk", temporary, "objects are kept there while they are read; set TMPDIR to move them")
