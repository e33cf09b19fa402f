"""Replay: trades from a file, landed as the collector lands them (many small Parquet batches in minute folders)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed, folder_path
from btc_assets.domain.slices import EPOCH
from btc_assets.domain.ticks import int64
from btc_assets.landing.decode import decode
from btc_assets.landing.formats import ObjectRejected, read_object
from btc_assets.landing.zone import LandingZone

BATCH_ROWS = 5_000
BATCH_SECONDS = 15.0
_EXACT = 1 << 53  # whole numbers up to here are exact as floats


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
    except (ObjectRejected, OSError) as reason:
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

    A batch opens with a trade and closes `batch_seconds` of event time later or after `batch_rows` trades, so every trade
    is in a folder near its event time, whatever order the trades come in. Objects are named after their trades: landing
    the same trades again overwrites the same objects with the same bytes, and corrected trades replace the faulty ones.

    Args:
        zone: where to.
        feed: whose folders, and how the exchange spells the symbol.
        tables: canonical ticks, best in order of event time.
        landed: counts, added to.
        batch_seconds: as the collector's setting, 15 to 60.
        batch_rows: as the collector's setting.
        progress: told the number of objects so far.
    """
    with ThreadPoolExecutor(max_workers=min(zone.concurrency, 8)) as pool:
        under_way: list[Future[object]] = []  # one bunch is written while the next is encoded
        for batches in _bunches(_batches(tables, batch_seconds, batch_rows), 64):
            objects = list(encode_batches(batches, feed))
            _finish(under_way)
            under_way = [pool.submit(zone.put, path, data) for path, data in objects]
            landed.objects += len(objects)
            landed.bytes += sum(len(data) for _, data in objects)
            landed.ticks += sum(map(len, batches))
            times = pc.min_max(pa.concat_tables(batches)["event_time"])
            landed.first_event_time = min(filter(None, (landed.first_event_time, times["min"].as_py())))
            landed.last_event_time = max(filter(None, (landed.last_event_time, times["max"].as_py())))
            progress(landed.objects)
        _finish(under_way)
    return landed


def _finish(writes: Sequence[Future[object]]) -> None:
    """Wait for writes; the first that failed raises."""
    for write in writes:
        write.result()


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
    width = max(int(seconds * 1e6), 1)
    rest: pa.Table | None = None
    for table in tables:
        table = pa.concat_tables([rest, table]) if rest is not None else table
        times = int64(table["event_time"])
        start = 0
        while start < len(times):
            # Times may step back a little, as on the wire; a far step back closes the batch like one forward.
            far = np.flatnonzero(np.abs(times[start : start + rows] - times[start]) >= width)
            stop = start + (int(far[0]) if len(far) else rows)
            if stop > len(times):
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
    return next(encode_batches([ticks], feed))


def encode_batches(batches: Sequence[pa.Table], feed: Feed, opened: Sequence[datetime] | None = None) -> Iterator[tuple[str, bytes]]:
    """Many collector objects, each as `encode_batch` makes it; `opened` is when each was opened, else with its first trade."""
    # Columns are converted for many batches at once: with some hundred trades in a batch, calls cost more than rows.
    ticks = pa.concat_tables(batches)
    rows = pa.table(
        {
            "event_time": _iso(ticks["event_time"]),
            "trade_time": _iso(ticks["trade_time"]),
            "symbol": pa.repeat(feed.symbol, len(ticks)),
            "trade_id": ticks["trade_id"],
            "price": _float(ticks["price"]),
            "quantity": _float(ticks["quantity"]),
            "buyer_order_id": ticks["buyer_order_id"],
            "seller_order_id": ticks["seller_order_id"],
            "is_market_maker": ticks["is_market_maker"],
        }
    )
    identity = np.column_stack([int64(ticks["event_time"]), ticks["trade_id"].to_numpy()])
    start = 0
    for number, batch in enumerate(batches):
        of_batch = rows.slice(start, len(batch))
        buffer = io.BytesIO()
        # Without dictionaries, statistics and Arrow's own schema, which cost more time and room than they save here.
        pq.write_table(
            pa.table({name: _or_null(column) for name, column in zip(rows.column_names, of_batch.columns, strict=True)}),
            buffer,
            use_dictionary=False,
            write_statistics=False,
            store_schema=False,
            write_page_checksum=True,
        )
        name = hashlib.md5(feed.symbol.encode(), usedforsecurity=False)
        name.update(identity[start : start + len(batch)].tobytes())
        at = opened[number] if opened else EPOCH + timedelta(microseconds=int(identity[start, 0]))
        yield f"{folder_path(feed.prefix, at)}/batch-{name.hexdigest()}.parquet", buffer.getvalue()
        start += len(batch)


def _or_null(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column without any value has the null type, as pandas writes it."""
    return pa.nulls(len(column)) if column.null_count == len(column) else column


def _float(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """The float nearest to each decimal, as the collector parses it; Arrow's own cast misses it in one of eight."""
    decimals = column.combine_chunks()
    words = np.frombuffer(decimals.buffers()[1], np.int64).reshape(-1, 2)[decimals.offset : decimals.offset + len(decimals)]
    units, high = words[:, 0], words[:, 1]
    if decimals.null_count or high.any() or ((units < 0) | (units > _EXACT)).any():
        return column.cast(pa.string()).cast(pa.float64())
    return pa.array(units / 10.0**decimals.type.scale)  # both are exact, and one division rounds once


def _iso(times: pa.ChunkedArray) -> pa.Array:
    """As Python's isoformat() writes them: no fraction on whole seconds. Each second and each fraction is written once."""
    us = int64(times)
    second, second_of = np.unique(us // 1_000_000, return_inverse=True)
    fraction, fraction_of = np.unique(us % 1_000_000, return_inverse=True)
    seconds = pc.strftime(pa.array(second, pa.timestamp("s")), "%Y-%m-%dT%H:%M:%S")
    ends = pa.array([f".{us:06}+00:00" if us else "+00:00" for us in fraction.tolist()])
    return pc.binary_join_element_wise(seconds.take(pa.array(second_of)), ends.take(pa.array(fraction_of)), "")
