"""Slices that a data set must not take at face value: not loaded, loaded in part, with lost trades, or made of former ticks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

import psycopg

from btc_assets.domain.slices import SLICE, Window, slice_number
from btc_assets.ingestion.due import read_due_windows
from btc_assets.market_data.continuity import Gap, Span, read_gaps, read_spans
from btc_assets.market_data.keys import TICKS, candles_key
from btc_assets.signals.keys import SLICE_FEATURES
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_STATES = """
SELECT bucket_5m, state FROM landing.slices WHERE bucket_5m >= %s AND bucket_5m < %s AND symbol = %s AND state <> 'loaded'
"""


@dataclass(frozen=True)
class Doubts:
    """Why slices are in doubt, by their number (`slice_number`).

    Attributes:
        ticks: slices whose trades may not all be there: `gap`, `open`, or a state of `landing.slices`.
        features: slices whose features are older than their ticks.
        candles: slices whose candles are older than their ticks.
    """

    ticks: dict[int, str] = field(default_factory=dict)
    features: set[int] = field(default_factory=set)
    candles: set[int] = field(default_factory=set)


def read_doubts(connection: psycopg.Connection, symbol: str, window: Window, *, interval: str | None, contiguous: bool = True) -> Doubts:
    """What is in doubt in a window.

    Args:
        connection: to the store.
        symbol: label of the feed.
        window: the slices.
        interval: of the candles that targets are made of; None if none are.
        contiguous: the feed's trade ids increase by one, so that a larger step is lost data.
    """
    doubts = Doubts()
    if contiguous:
        doubts.ticks.update(dict.fromkeys(_read_slices_with_gaps(connection, symbol, window), "gap"))
    doubts.ticks.update(dict.fromkeys(_due(connection, TICKS, window), "open"))
    with server_errors(), connection.transaction():
        rows = connection.execute(_STATES, (window.start, window.end, symbol)).fetchall()
    doubts.ticks.update((slice_number(bucket), state) for bucket, state in rows)
    doubts.features.update(_due(connection, SLICE_FEATURES, window))
    if interval:
        doubts.candles.update(_due(connection, candles_key(interval), window))
    return doubts


def _read_slices_with_gaps(connection: psycopg.Connection, symbol: str, window: Window) -> Iterator[int]:
    own = read_spans(connection, window).get(symbol, [])
    for gap in read_gaps(connection, window, spans={symbol: own} if own else {}):
        yield from _touched(gap, own, window)
    with server_errors(), connection.transaction():
        (dropped,) = only_row(connection.execute("SELECT nullif(ops.drop_horizon('market_data.btc_ticks'), '-infinity')"))
    if dropped:
        yield from _gaps_of_records([span for span in own if span[0] < dropped], window)


def _touched(gap: Gap, own: Sequence[Span], window: Window) -> Iterable[int]:
    """The slices that the missing trades may belong to: from that of the last trade before them to that of the first after."""
    before = bisect_right(own, gap.first_missing - 1, key=lambda span: span[1])
    return _numbers(own[before - 1][0] if before else gap.after, gap.after, window)


def _gaps_of_records(own: Sequence[Span], window: Window) -> Iterator[int]:
    """The same where the ticks are no longer there, but what the loads recorded is."""
    for bucket, low, high, count in own:
        if high - low + 1 != count:
            yield from _numbers(bucket, bucket, window)
    for (bucket, _, high, _), (next_bucket, low, _, _) in pairwise(own):
        if low > high + 1:
            yield from _numbers(bucket, next_bucket, window)


def _numbers(first: datetime, last: datetime, window: Window) -> Iterable[int]:
    return range(slice_number(max(first, window.start)), slice_number(last) + 1)


def _due(connection: psycopg.Connection, asset: str, window: Window) -> Iterator[int]:
    for due in read_due_windows(connection, asset, window):
        yield from _numbers(due.start, due.end - SLICE, window)
