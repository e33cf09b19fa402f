"""Which data a range holds: a short text that is equal for equal ticks, wherever they are stored."""

from __future__ import annotations

from btc_assets.client.ranges import RangeLike, parse_range
from btc_assets.client.source import EXACT, Source
from btc_assets.client.ticks import ticks
from btc_assets.domain.ticks import TICK_SCHEMA
from btc_assets.market_data.versions import digest_ticks, read_slice_digests


def version(source: Source, symbol: str, range: RangeLike, *, every_value: bool) -> str:
    """As `ClientStore.version`."""
    span = parse_range(range)
    source.catalog.require([symbol], span)
    if every_value:
        return digest_ticks(ticks(source, symbol, span.window, TICK_SCHEMA.names, decimals=EXACT).batches())
    with source.store.connect() as connection:
        return read_slice_digests(connection, symbol, span.window).version
