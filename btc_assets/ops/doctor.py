"""Whether everything is in place that the store needs: `btc-assets doctor`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import Window, ceil_slice, floor_slice
from btc_assets.landing.resources import Landing
from btc_assets.ops.database_findings import examine_database
from btc_assets.ops.findings import Finding, compare_clocks, examine_safely, find_free_space
from btc_assets.store.database import Store


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
    yield from examine_safely("landing zone", lambda: _examine_landing(settings))
    yield from examine_safely("Dagster", examine_dagster)
    yield from examine_safely("disk", lambda: _examine_local_disk(settings))


def _examine_landing(settings: Settings) -> Iterator[Finding]:
    zone = Landing(settings).zone()
    now = datetime.now(UTC)
    window = Window(floor_slice(now - timedelta(hours=1)), ceil_slice(now + timedelta(seconds=1)))
    for prefix in settings.landing_feeds.prefixes:
        count = len(zone.list_window(prefix, window))
        yield Finding("landing zone", "ok", f"{zone.url}/{prefix}: {count:,} object(s) in the last hour.")
    if theirs := zone.server_time():
        yield compare_clocks("landing zone clock", theirs, datetime.now(UTC))


def _examine_local_disk(settings: Settings) -> Iterator[Finding]:
    home = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    yield find_free_space("disk", home, f"BTC_ASSETS_HOME is {settings.home}")
    temporary = Path(tempfile.gettempdir())
    if os.stat(temporary).st_dev != os.stat(home).st_dev:
        yield find_free_space("temporary disk", temporary, "objects are kept there while they are read; set TMPDIR to move them")
