"""Replay: trades from a file, landed as the collector lands them (many small Parquet batches in minute folders)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_assets.errors import UserError
from btc_assets.landing.decode import decode
from btc_assets.landing.feeds import Feed, folder_path
from btc_assets.landing.formats import ObjectRejected, read_object
from btc_assets.landing.objects import LandingZone
from btc_assets.market_data.ticks import int64
from btc_assets.slices import EPOCH

BATCH_ROWS = 5_000
BATCH_SECONDS = 15.0


@dataclass
class Landed:
    """What was landed."""

    objects: int = 0
    ticks: int = 0
    bytes: int = 0
    first_event_time: datetime | None = None
    last_event_time: datetime | None = None
    rejected: list[str] = field(default_factory=list)
    rejected_rows: int = 0


def read_trades(path: Path, feed: Feed, landed: Landed) -> Iterator[pa.Table]:
    """The trades of a file in any landing format, as canonical ticks; rows that are no trade are counted in `landed`.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"The trades file {path} does not exist: give the path of a CSV, JSON lines, Parquet or zip file.")
    try:
        first = 1
        for raw in read_object(path)[1]:
            decoded = decode(raw, [feed])
            for row in decoded.rejected.to_pylist():
                landed.rejected_rows += 1
                if len(landed.rejected) < 20:
                    landed.rejected.append(f"row {first + row['index']}: {row['reason']}")
            first += len(raw)
            yield decoded.ticks
    except ObjectRejected as reason:
        raise UserError(f"The trades file {path} cannot be read: {reason}.") from reason


def land(
    zone: LandingZone,
    feed: Feed,
    tables: Iterator[pa.Table],
    landed: Landed,
    *,
    batch_seconds: float = BATCH_SECONDS,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[int], None] = lambda objects: None,
) -> Landed:
    """Land ticks as collector batches.

    A batch opens with a trade and closes `batch_seconds` of event time later or after `batch_rows` trades. Its name comes
    from its content, so landing the same trades again overwrites the same objects with the same bytes.

    Args:
        zone: where to.
        feed: whose folders, and how the exchange spells the symbol.
        tables: canonical ticks in order of event time.
        landed: counts, added to.
        batch_seconds: as the collector's setting, 15 to 60.
        batch_rows: as the collector's setting.
        progress: told the number of objects so far.
    """
    with ThreadPoolExecutor(max_workers=min(zone.concurrency, 8)) as pool:

        def put(batch: pa.Table) -> int:
            path, data = encode_batch(batch, feed)
            zone.put(path, data)
            return len(data)

        for batches in _bunches(_batches(tables, batch_seconds, batch_rows), 64):
            for batch, size in zip(batches, pool.map(put, batches), strict=True):
                landed.objects += 1
                landed.ticks += len(batch)
                landed.bytes += size
                times = pc.min_max(batch["event_time"])
                landed.first_event_time = min(filter(None, (landed.first_event_time, times["min"].as_py())))
                landed.last_event_time = max(filter(None, (landed.last_event_time, times["max"].as_py())))
            progress(landed.objects)
    return landed


def _bunches(items: Iterator[pa.Table], size: int) -> Iterator[list[pa.Table]]:
    bunch: list[pa.Table] = []
    for item in items:
        bunch.append(item)
        if len(bunch) == size:
            yield bunch
            bunch = []
    if bunch:
        yield bunch


def _batches(tables: Iterator[pa.Table], seconds: float, rows: int) -> Iterator[pa.Table]:
    width = int(seconds * 1e6)
    rest: pa.Table | None = None
    for table in tables:
        table = pa.concat_tables([rest, table]) if rest is not None else table
        times = int64(table["event_time"])
        start = 0
        while start < len(times):
            # The first trade at or past the time the batch closes; times may step back a little, as on the wire.
            late = np.flatnonzero(times[start : start + rows + 1] >= times[start] + width)
            stop = start + (int(late[0]) if len(late) else rows)
            if stop > len(times) or (stop == len(times) and not len(late)):
                break
            yield table.slice(start, stop - start)
            start = stop
        rest = table.slice(start)
    if rest is not None and len(rest):
        yield rest


def encode_batch(ticks: pa.Table, feed: Feed) -> tuple[str, bytes]:
    """One collector object: its path below the landing zone and its Parquet bytes.

    Times are ISO-8601 text with and without a fraction, prices and quantities float64, as the collector writes them.
    """
    columns = {
        "event_time": _iso(ticks["event_time"]),
        "trade_time": _iso(ticks["trade_time"]),
        "symbol": pa.repeat(feed.symbol, len(ticks)),
        "trade_id": ticks["trade_id"],
        "price": ticks["price"].cast(pa.float64()),
        "quantity": ticks["quantity"].cast(pa.float64()),
        "buyer_order_id": _or_null(ticks["buyer_order_id"]),
        "seller_order_id": _or_null(ticks["seller_order_id"]),
        "is_market_maker": ticks["is_market_maker"],
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, write_page_checksum=True)
    data = buffer.getvalue()
    opened = EPOCH + timedelta(microseconds=int(int64(ticks["event_time"])[0]))
    name = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return f"{folder_path(feed.prefix, opened)}/batch-{name}.parquet", data


def _or_null(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    return pa.nulls(len(column)) if column.null_count == len(column) else column


def _iso(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """As Python's isoformat() writes them: no fraction on whole seconds."""
    whole = pc.equal(pc.subsecond(times), 0.0)
    seconds = pc.strftime(pc.floor_temporal(times, unit="second").cast(pa.timestamp("s", "UTC")), "%Y-%m-%dT%H:%M:%S+00:00")
    return pc.if_else(whole, seconds, pc.strftime(times, "%Y-%m-%dT%H:%M:%S+00:00"))


def feed_named(feeds: Sequence[Feed], label: str | None) -> Feed:
    """The feed with that label, or the only one.

    Raises:
        UserError: there is none, or no label and several.
    """
    if label is None and len(feeds) == 1:
        return feeds[0]
    for feed in feeds:
        if feed.label == label:
            return feed
    names = ", ".join(feed.label for feed in feeds)
    raise UserError(f"Name one of the feeds in BTC_ASSETS_LANDING_FEEDS ({names}) with --symbol.")
