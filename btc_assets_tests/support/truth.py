"""The truth about a store: what a test landed, and whether tables, registry, offsets and candles agree with that.

The one check of the fault suite. It keeps every version of every object that a test landed, and computes in plain Python, without code
of the project, what the tables must hold. It reads the store in one snapshot, so it may run while others write.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import psycopg
import pyarrow as pa

from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.stores import FEED, StoreUnderTest

Version = tuple[str, str]  # URI and ETag
WIDTHS = {"1s": 1, "30s": 30, "1m": 60, "5m": 300, "1h": 3600, "1d": 86400}  # seconds


class Tick(NamedTuple):
    """A row of btc_ticks, or a version of a trade as it landed, which may have no event time."""

    bucket_5m: datetime
    event_time: datetime | None
    trade_time: datetime
    symbol: str
    trade_id: int
    price: Decimal
    quantity: Decimal
    buyer_order_id: int | None
    seller_order_id: int | None
    is_market_maker: bool
    trade_kind: str | None


Content = dict[datetime, dict[int, Tick]]  # of each slice, by trade id


def floor(time: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(int(time.timestamp()) // seconds * seconds, UTC)


@dataclass
class Landings:
    """What a test landed in the bucket of a store.

    Attributes:
        versions: the trades of every version of every object that ever landed; none for an unreadable one.
        current: the current ETag of each object.
        unreadable: the versions that cannot be read.
        before: content of the table when it was last exact.
    """

    store: StoreUnderTest
    versions: dict[Version, list[Tick]] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)
    unreadable: set[Version] = field(default_factory=set)
    before: Content = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._zone = self.store.zone()  # once, because that takes as long as ten objects

    def put(self, ticks: pa.Table, name: str = "batch", *, folder: datetime | None = None) -> str:
        """Land trades as one object, by default in the folder of the first one; returns its URI."""
        rows = [Tick(**row) for row in ticks.to_pylist()]
        return self.put_bytes(encode_batch(ticks, FEED)[1], name, folder or rows[0].event_time or rows[0].trade_time, rows)

    def put_bytes(self, data: bytes, name: str, folder: datetime, rows: list[Tick] | None = None) -> str:
        """Land an object with the trades that it contains, None if it must be rejected; returns its URI."""
        uri = self._zone.put(f"{FEED.prefix}/{folder:%Y/%m/%d/%H/%M}/{name}.parquet", data)
        version = uri, hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.versions[version] = rows or []
        self.current[uri] = version[1]
        self.unreadable.discard(version)
        if rows is None:
            self.refused(uri)
        return uri

    def refused(self, uri: str) -> None:
        """Record that the current version of an object cannot be read."""
        self.unreadable.add((uri, self.current[uri]))

    def now(self) -> Content:
        """What the table must hold of the current objects."""
        return self.content(self.current.items())

    def content(self, versions: Iterable[Version]) -> Content:
        """The de-duplicated trades of some versions of objects, by slice."""
        rows = ((version, row) for version in versions for row in self.versions[version] if version not in self.unreadable)
        return _by_slice(_chosen(rows).values())


def _chosen(rows: Iterable[tuple[Version, Tick]]) -> dict[int, tuple[Version, Tick]]:
    """Of each trade the version that counts, in all slices together, with the object that it comes from."""
    chosen: dict[int, tuple[Version, Tick]] = {}
    for version, row in sorted(rows, key=lambda one: one[0]):  # the first URI, if nothing else decides
        if row.trade_id not in chosen or _precedence(row) < _precedence(chosen[row.trade_id][1]):
            chosen[row.trade_id] = version, row
    return chosen


def _by_slice(chosen: Iterable[tuple[Version, Tick]]) -> Content:
    """Trades as the table holds them."""
    content: Content = {}
    for _, row in chosen:
        content.setdefault(row.bucket_5m, {})[row.trade_id] = row._replace(event_time=row.event_time or row.trade_time)
    return content


def _precedence(row: Tick) -> tuple[bool, datetime, int]:
    """What decides among versions of a trade: one with an event time, then the earliest time, then more order ids; the lowest counts."""
    untold = (row.buyer_order_id, row.seller_order_id, row.trade_kind).count(None)
    return row.event_time is None, row.event_time or row.trade_time, untold


def check(landed: Landings) -> None:
    """Assert that the store is up to date and exact: table, offsets, registry and candles."""
    found = violations(landed)
    assert not found, "\n".join(found)
    landed.before = landed.now()


def check_on_the_way(landed: Landings) -> None:
    """Assert in the middle of a load, or after it was interrupted, that slices are whole and that registry, offsets and candles claim nothing false."""
    found = violations(landed, on_the_way=True)
    assert not found, "\n".join(found)


def loaded_partly(landed: Landings) -> bool:
    """Whether the table has some slices of the old content and some of the new."""
    with landed.store.connect() as connection:
        return _Seen(connection).table not in (landed.before, landed.now())


def violations(landed: Landings, *, on_the_way: bool = False) -> list[str]:
    """What is wrong with a store, a sentence each.

    On the way, a slice may still have the content that it had when the store was last exact, and the registry may not know new objects
    yet. But the table must agree with what the registry calls loaded, and candles that differ from their ticks must be due.
    """
    with landed.store.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            return violations_in(connection, landed, on_the_way=on_the_way)


def violations_in(connection: psycopg.Connection, landed: Landings, *, on_the_way: bool = False) -> list[str]:
    """The same, as seen by an open transaction."""
    seen = _Seen(connection)
    found = [*_registry(landed, seen), *_ticks(landed, seen), *_offsets(seen), *_candles(connection, seen)]
    return found + (_between(landed, seen) if on_the_way else _up_to_date(landed, seen))


class _Seen:
    """The content of a store in one snapshot."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.table: Content = {}
        self.rows = 0
        for row in connection.execute("SELECT * FROM market_data.btc_ticks"):
            tick = Tick(*row)
            self.table.setdefault(tick.bucket_5m, {})[tick.trade_id] = tick
            self.rows += 1
        registry = connection.execute(
            "SELECT bucket_5m, uri, trim(both '\"' from etag), status, row_count, loaded_at IS NOT NULL, loaded_rows "
            "FROM landing.raw_blobs_5m ORDER BY bucket_5m, uri, etag"
        )
        self.entries = [_Entry(bucket, (uri, etag), *rest) for bucket, uri, etag, *rest in registry]
        self.offsets = connection.execute(
            "SELECT last_sequence, last_ts FROM ingestion.stream_offsets WHERE source = 'market_data.btc_ticks/BTCUSDT'"
        ).fetchall()
        self.due: set[tuple[str, datetime]] = set(
            connection.execute("SELECT asset, bucket_5m FROM ingestion.due_slices WHERE asset LIKE 'market_data/candles%'").fetchall()
        )


class _Entry(NamedTuple):
    """A row of the registry."""

    bucket: datetime
    version: Version
    status: str
    rows: int
    loaded: bool
    loaded_rows: int | None

    def __str__(self) -> str:
        return f"registry: {self.version[0]} {self.version[1]} in {self.bucket:%H:%M} ({self.status})"


def _registry(landed: Landings, seen: _Seen) -> list[str]:
    """Check the registry: its claims about an object hold in all slices of the object or in none, and one version at most is registered."""
    found = []
    counted: dict[Version, dict[datetime, int]] = {}
    for entry in seen.entries:
        if entry.version not in landed.versions:
            found.append(f"{entry}: never landed")
        elif entry.status == "registered":
            counted.setdefault(entry.version, {})[entry.bucket] = entry.rows
        elif entry.status == "gone" and entry.version[0] in landed.current:
            found.append(f"{entry}: it is there")
        elif entry.status == "rejected" and entry.version not in landed.unreadable:
            found.append(f"{entry}: it can be read")
        if entry.loaded != (entry.loaded_rows is not None):
            found.append(f"{entry}: loaded is {entry.loaded}, with {entry.loaded_rows} rows")
    for version, slices in counted.items():
        held: dict[datetime, int] = {}
        for row in landed.versions[version]:
            held[row.bucket_5m] = held.get(row.bucket_5m, 0) + 1
        if slices != held:
            found.append(f"registry: {version} has {slices}, not {held}")
    uris = [uri for uri, _ in counted]
    return found + [f"registry: {uri} counts in several versions" for uri in {uri for uri in uris if uris.count(uri) > 1}]


def _ticks(landed: Landings, seen: _Seen) -> list[str]:
    """Check the table: each slice is exactly the de-duplicated content of the versions that the registry calls loaded."""
    found = []
    loaded: dict[datetime, list[_Entry]] = {}
    for entry in seen.entries:
        if entry.loaded and entry.version in landed.versions:
            loaded.setdefault(entry.bucket, []).append(entry)
    rows = (
        (entry.version, row)
        for entries in loaded.values()
        for entry in entries
        for row in landed.versions[entry.version]
        if row.bucket_5m == entry.bucket
    )
    chosen = _chosen(rows).values()
    claimed = _by_slice(chosen)
    kept = Counter((row.bucket_5m, version) for version, row in chosen)
    for bucket in sorted(loaded.keys() | seen.table.keys()):
        held = seen.table.get(bucket, {})
        if held != claimed.get(bucket, {}):
            found.append(f"slice {bucket:%H:%M}: {_difference(held, claimed.get(bucket, {}))} from what the registry calls loaded")
        entries = loaded.get(bucket, [])
        found += [f"{entry}: {entry.loaded_rows} rows loaded" for entry in entries if entry.loaded_rows != kept[bucket, entry.version]]
    if seen.rows != sum(map(len, seen.table.values())):
        found.append("a trade stands in one slice twice")
    return found


def _offsets(seen: _Seen) -> list[str]:
    """Check the offset: it is the newest trade of the table."""
    if not seen.table:
        return [f"offset {seen.offsets} without a row"] if seen.offsets and seen.offsets != [(None, None)] else []
    newest = max(seen.table[max(seen.table)].values(), key=lambda row: row.trade_id)
    return [f"offset {seen.offsets}, newest trade {newest}"] if seen.offsets != [(newest.trade_id, newest.event_time)] else []


def _candles(connection: psycopg.Connection, seen: _Seen) -> list[str]:
    """Check the candles: except for those that are due, they are the candles of the table's ticks."""
    found = []
    ticks = sorted((row for rows in seen.table.values() for row in rows.values()), key=lambda row: row.trade_id)
    for interval, width in WIDTHS.items():
        due = {bucket for asset, bucket in seen.due if asset == f"market_data/candles_{interval}"}
        if due and width > WIDTHS["5m"]:
            continue
        waiting = due | {bucket - timedelta(minutes=5) for bucket in due}  # a trade may be reported a slice later than it was made
        stored = {
            row[0]: row[1:]
            for row in connection.execute(
                "SELECT bucket, open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, "
                f"first_trade_id, last_trade_id FROM market_data.candles_{interval}"
            )
            if floor(row[0], 300) not in waiting
        }
        expected = {bucket: candle for bucket, candle in _candles_of(ticks, width).items() if floor(bucket, 300) not in waiting}
        found += [
            f"candle {interval} {bucket:%H:%M:%S}: {stored.get(bucket)}, not {expected.get(bucket)}"
            for bucket in sorted(stored.keys() | expected.keys())
            if stored.get(bucket) != expected.get(bucket)
        ]
    return found


def _candles_of(ticks: Collection[Tick], width: int) -> dict[datetime, tuple[object, ...]]:
    """Candles of `width` seconds, from the market trades among ticks in order of their id."""
    trades: dict[datetime, list[Tick]] = {}
    for tick in (tick for tick in ticks if tick.trade_kind in (None, "MARKET")):
        trades.setdefault(floor(tick.trade_time, width), []).append(tick)
    return {bucket: _candle(members) for bucket, members in trades.items()}


def _candle(trades: list[Tick]) -> tuple[object, ...]:
    prices = [trade.price for trade in trades]
    bought = [trade for trade in trades if not trade.is_market_maker]
    return (
        prices[0], max(prices), min(prices), prices[-1],
        sum(trade.quantity for trade in trades), sum(trade.price * trade.quantity for trade in trades), len(trades),
        sum(trade.quantity for trade in bought), sum(trade.price * trade.quantity for trade in bought),
        trades[0].trade_id, trades[-1].trade_id,
    )  # fmt: skip


def _between(landed: Landings, seen: _Seen) -> list[str]:
    """Check that each slice has either all of its old content or all of its new."""
    will_be = landed.now()
    return [
        f"slice {bucket:%H:%M} is neither old nor new: {_difference(seen.table.get(bucket, {}), will_be.get(bucket, {}))} from the new"
        for bucket in sorted(seen.table.keys() | landed.before.keys() | will_be.keys())
        if seen.table.get(bucket, {}) not in (landed.before.get(bucket, {}), will_be.get(bucket, {}))
    ]


def _up_to_date(landed: Landings, seen: _Seen) -> list[str]:
    """Check that registry and table agree with the current objects, and that nothing is due."""
    will_be = landed.now()
    found = [
        f"slice {bucket:%H:%M}: {_difference(seen.table.get(bucket, {}), will_be.get(bucket, {}))} from the objects that are there"
        for bucket in sorted(seen.table.keys() | will_be.keys())
        if seen.table.get(bucket, {}) != will_be.get(bucket, {})
    ]
    there = set(landed.current.items())
    for status, expected in (("registered", there - landed.unreadable), ("rejected", there & landed.unreadable), ("noticed", set())):
        known = {entry.version for entry in seen.entries if entry.status == status}
        found += [f"registry: {version} is not {status}" for version in sorted(expected - known)]
        found += [f"registry: {version} is {status}" for version in sorted(known - expected)]
    found += [f"{entry}: loaded is {entry.loaded}" for entry in seen.entries if entry.loaded != (entry.status == "registered")]
    return found + [f"{asset} {bucket:%H:%M} is due" for asset, bucket in sorted(seen.due)]


def _difference(held: dict[int, Tick], expected: dict[int, Tick]) -> str:
    return (
        f"{len(held.keys() - expected.keys())} rows more, {len(expected.keys() - held.keys())} fewer and "
        f"{sum(held[key] != expected[key] for key in held.keys() & expected.keys())} others"
    )
