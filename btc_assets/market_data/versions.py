"""Versions of data: digests of the ticks of slices, by which one tells whether a range is still the data that it was.

A version is made of what the loads recorded of each slice (`market_data.loaded_slices`): the number of ticks, the first and last trade id,
the exclusive or of all ids, the number of market trades, and their exact sums of quantity and of price times quantity, in total and of
those that takers bought. So it changes with every change of one id, of one price, quantity or side of a market trade, and with every trade
that comes or goes. It does not see times, order ids, or the prices of trades that are no market trades, nor several changes that leave all
of these sums as they are. `digest_ticks` reads the ticks and sees every value.

A version tells nothing of where the data lies: the same ticks have the same one on every server and engine, however often they were loaded.
Slices that the record does not tell of (loaded by a former release) are counted in the table, with the same result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.slices import SLICE, Window, slice_number
from btc_assets.domain.ticks import TICK_SCHEMA, int64
from btc_assets.market_data.slice_records import read_unrecorded
from btc_assets.store.errors import server_errors

RECORDS, TICKS = "records1", "ticks1"  # what a version is made of, and how; another way has another name

_HEX = 32  # hexadecimal digits of a version
_AT_ONCE = 8640  # slices that are described at once: a month
_FEW = 2016  # slices whose ticks may be counted without being asked to: a week

_LINE = """
concat_ws('|', extract(epoch FROM bucket_5m)::bigint, ticks, first_trade_id, last_trade_id, trade_ids_xor, market_trades,
          trim_scale(volume), trim_scale(quote_volume), trim_scale(taker_buy_volume), trim_scale(taker_buy_quote_volume))
"""
_RECORDED = f"""
SELECT bucket_5m, {_LINE} FROM market_data.loaded_slices
WHERE symbol = %(symbol)s AND bucket_5m >= %(start)s AND bucket_5m < %(end)s AND bucket_5m <> ALL(%(unrecorded)s)
"""  # noqa: S608  # our own columns
# As `describe_slices` describes what it has in memory.
_COUNTED = f"""
SELECT bucket_5m, {_LINE} FROM (
    SELECT bucket_5m, count(*) AS ticks, min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id, bit_xor(trade_id) AS trade_ids_xor,
           count(*) FILTER (WHERE market_data.is_market_trade(trade_kind)) AS market_trades,
           coalesce(sum(quantity) FILTER (WHERE market_data.is_market_trade(trade_kind)), 0) AS volume,
           coalesce(sum(price * quantity) FILTER (WHERE market_data.is_market_trade(trade_kind)), 0) AS quote_volume,
           coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker AND market_data.is_market_trade(trade_kind)), 0) AS taker_buy_volume,
           coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker AND market_data.is_market_trade(trade_kind)), 0)
               AS taker_buy_quote_volume
    FROM market_data.btc_ticks
    WHERE symbol = %(symbol)s AND bucket_5m >= %(first)s AND bucket_5m <= %(last)s AND bucket_5m = ANY(%(unrecorded)s) GROUP BY bucket_5m
) AS counted
"""  # noqa: S608  # our own columns


@dataclass(frozen=True)
class SliceDigests:
    """A digest of each slice of a window.

    Attributes:
        window: the slices.
        digests: uint64, one for each slice; 0 for one without ticks.
    """

    window: Window
    digests: np.ndarray

    @property
    def version(self) -> str:
        """Of all of them: `records1:` and 32 hexadecimal digits. Not the window is part of it, but the slices that have ticks."""
        traded = np.flatnonzero(self.digests)
        numbers = slice_number(self.window.start) + traded
        lines = np.stack([numbers.astype(">u8"), self.digests[traded].astype(">u8")], axis=1)
        return f"{RECORDS}:{hashlib.sha256(lines.tobytes()).hexdigest()[:_HEX]}"

    def part(self, window: Window) -> SliceDigests:
        """Those of a window within this one."""
        first = (window.start - self.window.start) // SLICE
        return SliceDigests(window, self.digests[first : first + len(window)])

    def to_bytes(self) -> bytes:
        """The digests, eight bytes each."""
        return self.digests.astype(">u8").tobytes()

    def changed_since(self, former: bytes) -> list[datetime]:
        """The slices of which the ticks are others than when `to_bytes` returned this for the same window: ascending."""
        return [self.window.start + int(number) * SLICE for number in np.flatnonzero(np.frombuffer(former, ">u8") != self.digests)]


def read_slice_digests(connection: psycopg.Connection, symbol: str, window: Window) -> SliceDigests:
    """The digests of what a window holds of a symbol, without reading its ticks where loads recorded what they wrote."""
    found = _digest(connection, symbol, window, None)
    assert found
    return found


def read_recorded_digests(connection: psycopg.Connection, symbol: str, window: Window) -> SliceDigests | None:
    """The same if it is cheap; None if more than a week of slices have no record, so that all of their ticks would be read."""
    return _digest(connection, symbol, window, _FEW)


def _digest(connection: psycopg.Connection, symbol: str, window: Window, most: int | None) -> SliceDigests | None:
    digests = np.zeros(len(window), np.uint64)
    for start in range(0, len(window), _AT_ONCE):
        part = Window(window.start + start * SLICE, min(window.start + (start + _AT_ONCE) * SLICE, window.end))
        unrecorded = read_unrecorded(connection, part)
        if most is not None and (most := most - len(unrecorded)) < 0:
            return None
        for bucket, line in _describe(connection, symbol, part, unrecorded):
            digest = hashlib.sha256(line.encode()).digest()
            digests[(bucket - window.start) // SLICE] = int.from_bytes(digest[:8])
    return SliceDigests(window, digests)


def _describe(connection: psycopg.Connection, symbol: str, window: Window, unrecorded: list[datetime]) -> list[tuple[datetime, str]]:
    """What there is to tell of each slice, as text."""
    parameters: dict[str, object] = {"symbol": symbol, "start": window.start, "end": window.end, "unrecorded": unrecorded}
    with server_errors(), connection.transaction():
        rows = connection.execute(_RECORDED, parameters).fetchall()
        if unrecorded:
            rows += connection.execute(_COUNTED, parameters | {"first": unrecorded[0], "last": unrecorded[-1]}).fetchall()
    return rows


def digest_ticks(batches: Iterable[pa.RecordBatch]) -> str:
    """The version of ticks that are read: a digest of every value of every column but the symbol, which is asked for, and its slice.

    Args:
        batches: of `TICK_SCHEMA` in the order of its key; where one ends and the next begins does not matter.

    Returns:
        `ticks1:` and 32 hexadecimal digits.
    """
    columns = [(field, hashlib.sha256(), hashlib.sha256()) for field in TICK_SCHEMA if field.name not in ("bucket_5m", "symbol")]
    for batch in batches:
        for field, values, nulls in columns:
            column = batch.column(field.name)
            values.update(_bytes(column))
            if field.nullable:
                nulls.update(column.is_null().to_numpy(zero_copy_only=False).tobytes())
    lines = "".join(f"{field.name} {values.hexdigest()} {nulls.hexdigest()}\n" for field, values, nulls in columns)
    return f"{TICKS}:{hashlib.sha256(lines.encode()).hexdigest()[:_HEX]}"


def _bytes(column: pa.Array) -> bytes:
    """The values of a column, whatever its batch: numbers as they lie in memory, text with its length; a null as 0 or nothing."""
    if pa.types.is_decimal128(column.type):
        return np.frombuffer(column.buffers()[1], np.uint8, 16 * len(column), 16 * column.offset).tobytes()
    if pa.types.is_timestamp(column.type):
        return int64(column).tobytes()
    if pa.types.is_string(column.type):
        encoded = [text.encode() for text in column.drop_null().to_pylist()]
        return b"".join(len(text).to_bytes(4) + text for text in encoded)
    numbers = pc.fill_null(column, 0) if column.null_count else column
    return numbers.to_numpy(zero_copy_only=False).tobytes()
