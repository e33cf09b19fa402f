"""Reading back what the simulation landed, from landing zones in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import pyarrow as pa

from btc_assets.domain.feeds import Feed
from btc_assets.domain.ticks import TICK_SCHEMA, with_event_times
from btc_assets.landing.decode import decode
from btc_assets.landing.formats import read_object
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.stores import FEED


def memory_zone(*, concurrency: int = 8) -> LandingZone:
    """An empty landing zone in memory."""
    return LandingZone(f"memory:///{uuid.uuid4().hex}", concurrency=concurrency)


def objects(zone: LandingZone, feed: Feed = FEED) -> dict[str, bytes]:
    """Every object by its path below the prefix, in order."""
    found = sorted(zone.list_all(feed.prefix))
    return {zone.path(obj.uri).removeprefix(f"{feed.prefix}/"): data for obj in found if isinstance(data := zone.read(obj)[0], bytes)}


def decoded(data: bytes, feed: Feed = FEED) -> pa.Table:
    """The ticks of an object of which no row is rejected."""
    parts = [decode(raw, [feed]) for raw in read_object(data)[1]]
    assert not any(len(part.rejected) for part in parts)
    return pa.concat_tables([with_event_times(part.ticks).cast(TICK_SCHEMA) for part in parts])


def ids(ticks: pa.Table) -> list[int]:
    """The trade ids."""
    return ticks["trade_id"].to_pylist()


def pieces(ticks: pa.Table, lengths: Sequence[int]) -> Iterator[pa.Table]:
    """The ticks in tables of these lengths, and what remains."""
    start = 0
    for length in lengths:
        yield ticks.slice(start, length)
        start += length
    yield ticks.slice(start)
