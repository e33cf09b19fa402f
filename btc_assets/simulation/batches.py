"""Batches as the collector writes them: small Parquet objects of consecutive trades, in a folder for each minute."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_assets.domain.feeds import Feed, folder_path
from btc_assets.domain.slices import from_microseconds
from btc_assets.domain.ticks import int64

GROUP_BATCHES = 64  # batches that are encoded together and written at once
_EXACT = 1 << 53  # whole numbers up to here are exact as floats


@dataclass(frozen=True)
class BatchLimits:
    """When the collector closes a batch. With the default no batch comes near its third limit, 2 MB.

    Attributes:
        seconds: of event time after the first trade; the collector's setting is 15 to 60.
        rows: trades.
    """

    seconds: float = 15.0
    rows: int = 5_000

    @property
    def width_us(self) -> int:
        """`seconds` in microseconds, at least one."""
        return max(int(self.seconds * 1e6), 1)


BATCH_LIMITS = BatchLimits()


def in_order_of_time(ticks: pa.Table, limits: BatchLimits) -> pa.Table:
    """Ticks sorted by event time if they step back as far as a batch is wide, as trades sorted by id do that were made on several days.

    Otherwise each step would close a batch. Smaller steps back, as on the wire, stay.
    """
    times = int64(ticks["event_time"])
    if not (np.diff(times) <= -limits.width_us).any():
        return ticks
    return ticks.take(np.argsort(times, kind="stable"))


def cut_batches(tables: Iterator[pa.Table], limits: BatchLimits) -> Iterator[pa.Table]:
    """Cut ticks into batches that open with a trade and close by the limits, however the tables are cut."""
    rest: pa.Table | None = None
    for table in tables:
        table = pa.concat_tables([rest, table]) if rest is not None else table
        times = int64(table["event_time"])
        start = 0
        while start < len(times):
            # Times may step back a little, as on the wire; a large step back closes the batch like one forward.
            far = np.flatnonzero(np.abs(times[start : start + limits.rows] - times[start]) >= limits.width_us)
            stop = start + (int(far[0]) if len(far) else limits.rows)
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
    """The collector objects of many batches, each as `encode_batch` encodes it.

    Args:
        batches: canonical ticks.
        feed: whose folders, and how the exchange spells the symbol.
        opened: when each batch was opened; by default, with its first trade.
    """
    # Columns are converted for many batches at once: with some hundred trades in a batch, calls cost more than rows.
    ticks = pa.concat_tables(batches)
    rows = _collector_rows(ticks, feed)
    identity = np.column_stack([int64(ticks["event_time"]), ticks["trade_id"].to_numpy()])
    start = 0
    for number, batch in enumerate(batches):
        own = identity[start : start + len(batch)]
        at = opened[number] if opened else from_microseconds(own[0, 0])
        yield f"{folder_path(feed.prefix, at)}/{_object_name(feed, own)}", _parquet(rows.slice(start, len(batch)))
        start += len(batch)


def _collector_rows(ticks: pa.Table, feed: Feed) -> pa.Table:
    """Ticks in the collector's columns and types; with the kind of trades only if one is known."""
    kinds = {"trade_kind": ticks["trade_kind"]} if ticks["trade_kind"].null_count < len(ticks) else {}
    return pa.table(
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
            **kinds,
        }
    )


def _object_name(feed: Feed, identity: np.ndarray) -> str:
    """A name that the times and ids of the trades decide, so that landing them again overwrites the same object."""
    name = hashlib.md5(feed.symbol.encode(), usedforsecurity=False)
    name.update(identity.tobytes())
    return f"batch-{name.hexdigest()}.parquet"


def _parquet(rows: pa.Table) -> bytes:
    buffer = io.BytesIO()
    # Without dictionaries, statistics and Arrow's own schema, which cost more time and space than they save here.
    pq.write_table(
        pa.table({name: _or_null(column) for name, column in zip(rows.column_names, rows.columns, strict=True)}),
        buffer,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def _or_null(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column without any value gets the null type, as pandas writes it."""
    return pa.nulls(len(column)) if column.null_count == len(column) else column


def _float(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """The float nearest to each decimal, as the collector parses it; Arrow's own cast misses it for one in eight."""
    decimals = column.combine_chunks()
    words = np.frombuffer(decimals.buffers()[1], np.int64).reshape(-1, 2)[decimals.offset : decimals.offset + len(decimals)]
    units, high = words[:, 0], words[:, 1]
    if decimals.null_count or high.any() or ((units < 0) | (units > _EXACT)).any():
        return column.cast(pa.string()).cast(pa.float64())
    return pa.array(units / 10.0**decimals.type.scale)  # both are exact, and one division rounds once


def _iso(times: pa.ChunkedArray) -> pa.Array:
    """Times as Python's isoformat() writes them: no fraction on whole seconds. Each distinct second and fraction is formatted once."""
    us = int64(times)
    second, second_of = np.unique(us // 1_000_000, return_inverse=True)
    fraction, fraction_of = np.unique(us % 1_000_000, return_inverse=True)
    seconds = pc.strftime(pa.array(second, pa.timestamp("s")), "%Y-%m-%dT%H:%M:%S")
    ends = pa.array([f".{us:06}+00:00" if us else "+00:00" for us in fraction.tolist()])
    return pc.binary_join_element_wise(seconds.take(pa.array(second_of)), ends.take(pa.array(fraction_of)), "")
