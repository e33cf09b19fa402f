"""Ticks of one symbol, each with the last tick of another one that was reported by then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pyarrow as pa

from btc_assets.client.candle_shapes import whole_buckets
from btc_assets.client.ranges import RangeLike, TimeRange, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import AVAILABLE_AT, EXACT, Rows, Source, microseconds
from btc_assets.client.ticks import SCHEMA as TICKS
from btc_assets.client.ticks import ticks
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND, SLICE

_LEFT = ("bucket_5m", "event_time", "trade_time", "trade_id", "price", "quantity", "is_market_maker", AVAILABLE_AT.name)
_RIGHT = ("event_time", "trade_id", "price", "quantity", "is_market_maker")

SCHEMA = pa.schema(
    [
        *(TICKS.field(name) for name in _LEFT[:-1]),
        *(TICKS.field(name).with_name(f"right_{name}").with_nullable(True) for name in _RIGHT),
        AVAILABLE_AT,
    ]
)


def asof(
    source: Source,
    left: str,
    right: str,
    range: RangeLike,
    *,
    tolerance: timedelta = timedelta(hours=1),
    decimals: str | None = None,
) -> Relation:
    """As `ClientStore.asof`."""
    span = parse_range(range)
    if tolerance < timedelta(0):
        raise UserError(f"A tolerance of {tolerance} is below 0: name how old the other tick may be, such as timedelta(minutes=1).")
    source.catalog.require([left], span)
    source.catalog.require([right])

    def rows() -> Rows:
        before = TimeRange(span.start - tolerance - SLICE, span.end)  # a slice more, so that the range is never empty before the store
        mine = ticks(source, left, span, _LEFT, decimals=EXACT).batches()
        others = ticks(source, right, before, ("bucket_5m", *_RIGHT), decimals=EXACT).batches()
        yield from join_asof(iter(mine), iter(others), tolerance // MICROSECOND)

    return source.relation_of(f"ticks of {left}, each as of {right}, {span}", SCHEMA, rows, decimals=decimals)


def join_asof(left: Rows, right: Rows, tolerance: int) -> Rows:
    """Join ticks by event time, backwards: of several at the same time, the one with the highest id.

    Args:
        left, right: ticks by slice and id; those of each slice lie within its event times, in any order.
        tolerance: how much earlier the other tick may be, in microseconds.
    """
    behind = _Behind(right)
    for batch in whole_buckets(left, "bucket_5m"):
        times = microseconds(batch["event_time"])
        others, other_times = behind.until(int(microseconds(batch["bucket_5m"])[-1]))
        place = np.searchsorted(other_times, times, side="right") - 1
        found = place >= 0
        found[found] = times[found] - other_times[place[found]] <= tolerance
        beside = others.take(pa.array(place, mask=~found))
        behind.forget(int(times.min()))
        columns = [beside[name.removeprefix("right_")] if name.startswith("right_") else batch[name] for name in SCHEMA.names]
        yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


class _Behind:
    """The ticks of the other symbol that may still be the last ones, in the order of their event times."""

    def __init__(self, rows: Rows) -> None:
        self._rows: Iterator[pa.RecordBatch] = whole_buckets(rows, "bucket_5m")
        self._next: pa.RecordBatch | None = None
        self._kept: pa.RecordBatch | None = None
        self._bucket = -1  # of the last of them

    def until(self, bucket: int) -> tuple[pa.RecordBatch, np.ndarray]:
        """Those up to the end of a slice at least, and their times."""
        more = []
        while self._bucket < bucket and (batch := next(self._rows, None)) is not None:
            self._bucket = int(microseconds(batch["bucket_5m"])[-1])
            more.append(batch)
        if more or self._kept is None:
            self._kept = self._in_order([*([self._kept] if self._kept else []), *more])
        return self._kept, microseconds(self._kept["event_time"])

    def forget(self, time: int) -> None:
        """Leave out those that are not the last ones at a time, nor after it."""
        assert self._kept is not None
        first = int(np.searchsorted(microseconds(self._kept["event_time"]), time, side="right")) - 1
        self._kept = self._kept.slice(max(first, 0))

    @staticmethod
    def _in_order(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        if not batches:
            schema = pa.schema([TICKS.field(name) for name in ("bucket_5m", *_RIGHT)])
            return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
        rows = pa.concat_batches(batches)
        return rows.take(pa.array(np.lexsort((rows["trade_id"].to_numpy(), microseconds(rows["event_time"])))))
