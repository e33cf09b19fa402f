"""Canonical ticks as any known producer would land them, and objects read back."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import floor_slice
from btc_assets.domain.ticks import DECODED_SCHEMA, TICK_SCHEMA, TIME, int64
from btc_assets.landing.decode import decode
from btc_assets.landing.formats import read_object
from btc_assets_tests.support.stores import FEED

Column: TypeAlias = pa.Array | pa.ChunkedArray
FIELDS = TICK_SCHEMA.names[1:]
NOT_IN_DUMPS = frozenset({"event_time", "buyer_order_id", "seller_order_id", "trade_kind"})


@dataclass
class Read:
    """All of an object, decoded: its ticks, the number and reason of each row that is none, and the ids of the rows that are left out."""

    ticks: pa.Table
    rejected: list[tuple[int, str]]
    left_out: list[int]


def read(source: bytes | Path, *feeds: Feed) -> Read:
    ticks, rejected, left_out, first = [DECODED_SCHEMA.empty_table()], [], [], 1
    for raw in read_object(source)[1]:
        decoded = decode(raw, feeds or [FEED])
        ticks.append(decoded.ticks)
        rejected += [(first + row["index"], row["reason"]) for row in decoded.rejected.to_pylist()]
        left_out += decoded.left_out["trade_id"].to_pylist()
        assert len(decoded.ticks) + len(decoded.rejected_index) + len(decoded.left_out) == len(raw)
        first += len(raw)
    return Read(pa.concat_tables(ticks).combine_chunks(), rejected, left_out)


def without(ticks: pa.Table, lost: frozenset[str] = frozenset()) -> pa.Table:
    """What is left of `ticks`, as decoded, in a format that does not carry the fields `lost`."""
    rows = ticks.to_pylist()
    for row in rows:
        row |= dict.fromkeys(lost)
        row["bucket_5m"] = floor_slice(row["event_time"] or row["trade_time"])
    return pa.Table.from_pylist(rows, DECODED_SCHEMA)


def parquet(columns: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(columns, sink, **{"write_page_checksum": True, **options})
    return sink.getvalue()


def csv(columns: pa.Table, *, header: bool = True, end: str = "\n", bom: bool = False) -> bytes:
    """Text with empty cells for nulls."""
    rows = [",".join("" if value is None else str(value) for value in row) for row in zip(*columns.to_pydict().values(), strict=True)]
    lines = [",".join(columns.column_names), *rows] if header else rows
    return (b"\xef\xbb\xbf" if bom else b"") + "".join(line + end for line in lines).encode()


def zipped(*members: tuple[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return sink.getvalue()


# ---- columns


def _iso(form: str, fraction: bool = False) -> Callable[[Column], pa.Array]:
    """As Python's isoformat() writes times: a fraction only where there is one, unless it is wanted in any case."""
    timespec = "microseconds" if fraction else "auto"

    def convert(times: Column) -> pa.Array:
        return pa.array([form.format(time.replace(tzinfo=None).isoformat(timespec=timespec)) for time in times.to_pylist()], pa.string())

    return convert


def _epoch(us_per_unit: int, type: pa.DataType) -> Callable[[Column], pa.Array]:
    def convert(times: Column) -> pa.Array:
        us = int64(times)
        return pa.array(us // us_per_unit if us_per_unit else us * 1000).cast(type, safe=False)

    return convert


def _cast(*types: pa.DataType) -> Callable[[Column], Column]:
    def convert(column: Column) -> Column:
        for type in types:
            column = column.cast(type)
        return column

    return convert


def _floats(column: Column) -> pa.Array:
    return pa.array(map(float, column.to_pylist()), pa.float64())  # Arrow's own cast is off by the last bit at times


def _dictionary(column: Column) -> Column:
    return column.dictionary_encode()


def _plain_decimal(column: Column) -> pa.Array:
    return pa.array([f"{value.normalize():f}" for value in column.to_pylist()], pa.string())


def _nan_gaps(column: Column) -> Column:
    return pc.fill_null(column.cast(pa.float64()), float("nan"))


ISO = _iso("{}+00:00")
# Every spelling of a time to the millisecond, a decimal, an id and a flag that a producer is known to use.
TIMES: dict[str, Callable[[Column], Column]] = {
    "ISO text": ISO,
    "ISO text as large_string": lambda times: ISO(times).cast(pa.large_string()),
    "ISO text as string_view": lambda times: ISO(times).cast(pa.string_view()),
    "ISO text as dictionary": lambda times: ISO(times).dictionary_encode(),
    "ISO text as binary": lambda times: ISO(times).cast(pa.binary()),
    "ISO text with Z": _iso("{}Z"),
    "ISO text without offset": _iso("{}"),
    "ISO text with nanoseconds": _iso("{}999Z", fraction=True),
    "ISO text of another zone": lambda times: pa.array(
        [f"{t}+05:30" for t in _iso("{}")(pc.add(times, pa.scalar(19_800_000_000, pa.duration("us")))).to_pylist()]
    ),
    **{
        f"timestamp[{unit}{f', {zone}' if zone else ''}]": _cast(TIME, pa.timestamp(unit, "UTC"), pa.timestamp(unit, zone))
        for unit in ("ms", "us", "ns")
        for zone in (None, "UTC", "America/New_York")
    },
    "timestamp dictionary": _dictionary,
    "epoch ms": _epoch(1000, pa.int64()),
    "epoch us": _epoch(1, pa.int64()),
    "epoch ns": _epoch(0, pa.int64()),
    "epoch ms as uint64": _epoch(1000, pa.uint64()),
    "epoch ms as float64": _epoch(1000, pa.float64()),
    "epoch us as float64": _epoch(1, pa.float64()),
    "epoch ns as float64": _epoch(0, pa.float64()),
    "epoch ms as text": _epoch(1000, pa.string()),
    "epoch ms as text of floats": lambda times: pa.array([f"{us // 1000}.0" for us in int64(times).tolist()]),
}
DECIMALS: dict[str, Callable[[Column], Column]] = {
    "float64": _floats,
    "float64 of Arrow's cast": _cast(pa.float64()),
    "text": _plain_decimal,
    "text with all decimals": _cast(pa.string()),
    "text as large_string": lambda column: _plain_decimal(column).cast(pa.large_string()),
    "text as dictionary": lambda column: _plain_decimal(column).dictionary_encode(),
    "decimal128": _cast(pa.decimal128(38, 14)),
    "decimal256": _cast(pa.decimal256(60, 20)),
}
IDS: dict[str, Callable[[Column], Column]] = {
    "int64": _cast(pa.int64()),
    "uint64": _cast(pa.uint64()),
    "float64 with NaN": _nan_gaps,
    "text": _cast(pa.string()),
    "dictionary": _dictionary,
    "decimal128": _cast(pa.decimal128(20, 0)),
}
FLAGS: dict[str, Callable[[Column], Column]] = {
    "bool": _cast(pa.bool_()),
    "int8": _cast(pa.int8()),
    "float64": _cast(pa.int8(), pa.float64()),
    "text": _cast(pa.string()),
    "Python's text": lambda column: pa.array([str(value) for value in column.to_pylist()]),
    "dictionary": lambda column: column.cast(pa.string()).dictionary_encode(),
}


def table(
    ticks: pa.Table, *, time: str = "ISO text", decimal: str = "float64", ids: str = "int64", flag: str = "bool", symbol: str = "BTCUSDT"
) -> pa.Table:
    """The ten fields under the collector's names, each spelled as asked for."""
    return pa.table(
        {
            "event_time": TIMES[time](ticks["event_time"]),
            "trade_time": TIMES[time](ticks["trade_time"]),
            "symbol": pa.array([symbol] * len(ticks), pa.string()),
            "trade_id": IDS[ids](ticks["trade_id"]),
            "price": DECIMALS[decimal](ticks["price"]),
            "quantity": DECIMALS[decimal](ticks["quantity"]),
            "buyer_order_id": IDS[ids](ticks["buyer_order_id"]),
            "seller_order_id": IDS[ids](ticks["seller_order_id"]),
            "is_market_maker": FLAGS[flag](ticks["is_market_maker"]),
            "trade_kind": ticks["trade_kind"],
        }
    )


def text_table(ticks: pa.Table) -> pa.Table:
    """The ten fields as the project's own CSV files hold them."""
    return table(ticks, time="epoch ms as text", decimal="text", ids="text", flag="text")


def messages(ticks: pa.Table) -> list[dict[str, object]]:
    """The exchange's own messages."""
    rows = table(ticks, time="epoch ms", decimal="text").to_pylist()
    keys = dict(zip(FIELDS, "ETstpqbamX", strict=True))
    return [{"e": "trade"} | {keys[name]: value for name, value in row.items() if value is not None} for row in rows]


def json_lines(ticks: pa.Table, *, wrapped: bool = False, received: bool = False) -> bytes:
    lines = []
    for message in messages(ticks):
        line = orjson.dumps({"stream": "btcusdt@trade", "data": message} if wrapped else message)
        lines.append(b"%d " % (int(message["E"]) * 1_000_000) + line if received else line)  # type: ignore[call-overload]
    return b"".join(line + b"\n" for line in lines)


def dump(ticks: pa.Table, *, best_match: bool = True) -> pa.Table:
    """The exchange's own dump: without the symbol, the event time and the order ids."""
    text = text_table(ticks)
    columns = {
        "id": text["trade_id"],
        "price": text["price"],
        "qty": text["quantity"],
        "quote_qty": pa.array([str(p * q) for p, q in zip(ticks["price"].to_pylist(), ticks["quantity"].to_pylist(), strict=True)]),
        "time": text["trade_time"],
        "is_buyer_maker": text["is_market_maker"],
    }
    return pa.table(columns | ({"is_best_match": pa.array(["True"] * len(ticks))} if best_match else {}))


def _renamed(columns: pa.Table, names: dict[str, str]) -> pa.Table:
    return columns.rename_columns([names.get(name, name) for name in columns.column_names])


def _old_collector(ticks: pa.Table) -> bytes:
    columns = _renamed(table(ticks), {"event_time": "vent_time"})
    for name in ("buyer_order_id", "seller_order_id"):
        columns = columns.set_column(columns.column_names.index(name), name, pa.nulls(len(ticks)))
    return parquet(columns)


def _two_members(ticks: pa.Table) -> bytes:
    half = len(ticks) // 2
    first, second = (csv(text_table(part)) for part in (ticks.slice(0, half), ticks.slice(half)))
    junk = ("__MACOSX/._a.csv", b"\0\5\26\7"), ("a.csv.CHECKSUM", b"0" * 64)
    return zipped(("a.csv", first), *junk, ("sub/b.CSV", second))


@dataclass(frozen=True)
class Producer:
    """How somebody writes an object, the name of that format, and which fields do not survive it."""

    encode: Callable[[pa.Table], bytes]
    format: str = "parquet"
    lost: frozenset[str] = field(default=frozenset())


def _parquet_of(**spelling: str) -> Producer:
    return Producer(lambda ticks: parquet(table(ticks, **spelling)))


PRODUCERS: dict[str, Producer] = {
    "collector": _parquet_of(),
    "collector of old": Producer(_old_collector, lost=frozenset({"buyer_order_id", "seller_order_id"})),
    "collector without order ids": Producer(
        lambda ticks: parquet(table(ticks).drop_columns(["buyer_order_id", "seller_order_id"])),
        lost=frozenset({"buyer_order_id", "seller_order_id"}),
    ),
    "only what every trade has": Producer(lambda ticks: parquet(table(ticks).drop_columns([*NOT_IN_DUMPS, "symbol"])), lost=NOT_IN_DUMPS),
    "shuffled columns": Producer(lambda ticks: parquet(table(ticks).select(sorted(FIELDS, reverse=True)))),
    "many small row groups": Producer(lambda ticks: parquet(table(ticks), row_group_size=3)),
    "pandas": Producer(
        lambda ticks: parquet(
            table(ticks, time="timestamp[ns, UTC]", ids="float64 with NaN").append_column("__index_level_0__", [range(len(ticks))])
        )
    ),
    **{f"times as {name}": _parquet_of(time=name) for name in TIMES},
    **{f"decimals as {name}": _parquet_of(decimal=name) for name in DECIMALS},
    **{f"ids as {name}": _parquet_of(ids=name) for name in IDS},
    **{f"flags as {name}": _parquet_of(flag=name) for name in FLAGS},
    "csv": Producer(lambda ticks: csv(text_table(ticks)), "csv"),
    "csv.gz": Producer(lambda ticks: gzip.compress(csv(text_table(ticks))), "csv.gz"),
    "csv of ISO times": Producer(lambda ticks: csv(table(ticks, decimal="text")), "csv"),
    "csv of Windows": Producer(lambda ticks: csv(text_table(ticks), end="\r\n", bom=True), "csv"),
    "csv of pandas": Producer(
        lambda ticks: csv(table(ticks, time="epoch ms as text of floats", ids="float64 with NaN", flag="Python's text")), "csv"
    ),
    "jsonl": Producer(json_lines, "jsonl"),
    "jsonl of numbers": Producer(lambda ticks: b"\n".join(map(orjson.dumps, table(ticks, time="epoch us").to_pylist())), "jsonl"),
    "jsonl.gz, wrapped": Producer(lambda ticks: gzip.compress(json_lines(ticks, wrapped=True)), "jsonl.gz"),
    "jsonl.gz, wrapped and stamped": Producer(lambda ticks: gzip.compress(json_lines(ticks, wrapped=True, received=True)), "jsonl.gz"),
    "csv.zip": Producer(lambda ticks: zipped(("trades.csv", csv(text_table(ticks)))), "csv.zip"),
    "csv.zip of several members": Producer(_two_members, "csv.zip"),
    "spot dump": Producer(lambda ticks: zipped(("BTCUSDT.csv", csv(dump(ticks), header=False))), "csv.zip", NOT_IN_DUMPS),
    "spot dump of Windows": Producer(lambda ticks: csv(dump(ticks), header=False, end="\r\n", bom=True), "csv", NOT_IN_DUMPS),
    "futures dump": Producer(lambda ticks: zipped(("BTCUSDT.csv", csv(dump(ticks, best_match=False)))), "csv.zip", NOT_IN_DUMPS),
    "futures dump without header": Producer(
        lambda ticks: gzip.compress(csv(dump(ticks, best_match=False), header=False)), "csv.gz", NOT_IN_DUMPS
    ),
}
