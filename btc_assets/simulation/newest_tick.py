"""The newest tick of a feed, in the store or on its way there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
import pyarrow.compute as pc

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.slices import Window
from btc_assets.domain.ticks import TABLE, with_event_times
from btc_assets.landing.objects import LandedObject, ObjectChanged, ObjectGone
from btc_assets.landing.reading import decode_group, fetch_groups
from btc_assets.landing.zone import LandingZone
from btc_assets.store.errors import server_errors

_SEAM = timedelta(minutes=5)  # of folders, read to find the newest trade: ids and times are not quite in order


@dataclass(frozen=True)
class NewestTick:
    """Where a feed ends: its latest event time and its highest trade id, which may belong to two trades."""

    time: datetime
    trade_id: int


def read_newest_tick(connection: psycopg.Connection, zone: LandingZone, feed: Feed) -> NewestTick | None:
    """The end of a feed, including what is registered but not loaded and what landed but is not registered; None if it is empty.

    Raises:
        UserError: the server or the landing zone fails.
    """
    with server_errors():
        loaded = connection.execute(
            "SELECT last_ts, last_sequence FROM ingestion.stream_offsets WHERE source = %s AND last_sequence IS NOT NULL",
            (f"{TABLE}/{feed.label}",),
        ).fetchone()
    ends = [*([NewestTick(*loaded)] if loaded else []), *_ends(zone, feed, _unloaded_objects(connection, zone, feed))]
    return NewestTick(max(end.time for end in ends), max(end.trade_id for end in ends)) if ends else None


def _unloaded_objects(connection: psycopg.Connection, zone: LandingZone, feed: Feed) -> list[LandedObject]:
    """The unloaded objects of the newest registered slice, and all objects of the newest folders."""
    with server_errors():
        registered = connection.execute(
            "SELECT DISTINCT uri FROM landing.raw_blobs_5m WHERE asset = %(label)s AND loaded_at IS NULL "
            "AND bucket_5m = (SELECT max(bucket_5m) FROM landing.raw_blobs_5m WHERE asset = %(label)s)",
            {"label": feed.label},
        ).fetchall()
    objects = {obj for (uri,) in registered if (obj := zone.head(uri, feed.prefix)) is not None}
    if (minute := zone.newest_minute(feed.prefix)) is not None:
        objects.update(zone.list_window(feed.prefix, Window.covering(minute - _SEAM, minute + timedelta(milliseconds=1))))
    return sorted(objects)


def _ends(zone: LandingZone, feed: Feed, objects: Sequence[LandedObject]) -> Iterator[NewestTick]:
    for group in fetch_groups(zone, objects):
        for fetched in group:
            if fetched.error is not None and not isinstance(fetched.error, ObjectGone | ObjectChanged):
                raise fetched.error
        for piece in decode_group(group, Feeds([feed])):
            if len(ticks := with_event_times(piece.decoded.ticks)):
                yield NewestTick(pc.max(ticks["event_time"]).as_py(), pc.max(ticks["trade_id"]).as_py())
