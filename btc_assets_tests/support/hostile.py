"""Objects without a single trade that can be read, each wrong in a way of its own, and keys that no object may have."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from btc_assets_tests.support.bombs import BOMBS
from btc_assets_tests.support.producers import zipped

HEADER = b"trade_time,symbol,trade_id,price,quantity,is_market_maker\n"


def _row(**cells: str) -> bytes:
    row = {"time": "2024-01-10T12:00:00Z", "symbol": "BTCUSDT", "id": "1", "price": "42000.5", "quantity": "1", "maker": "true"} | cells
    return HEADER + ",".join(row.values()).encode() + b"\n"


# By what is wrong with it. None takes long to make.
OBJECTS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "half a Parquet file": lambda: b"PAR1 and nothing more",
    "a number that ended the process": lambda: _row(price="1e-10000000"),
    "an id that lost its digits": lambda: _row(id="5.803e+09"),
    "a time that lost its digits": lambda: _row(time="1.79514E+12"),
    "a time without separators": lambda: _row(time="20261120120000Z"),
    "a week date": lambda: _row(time="2026-W47-5T12:00"),
    "a price of nothing": lambda: _row(price="0"),
    "another symbol": lambda: _row(symbol="[red]ETHUSDT[/b]"),
    "wrong rows only": lambda: HEADER + _row(price="-1").removeprefix(HEADER) * 1_500,
    "one id for every row": lambda: HEADER + b"".join(_row(price=f"{n + 1}").removeprefix(HEADER) for n in range(60)),
    "brackets, 300 deep": lambda: b'{"t":' + b"[" * 300 + b"]" * 300 + b"}\n",
    "a gzip that breaks off": lambda: gzip.compress(_row() * 50)[:-9],
    "a zip of a picture": lambda: zipped(("trades.png", b"\x89PNG\r\n")),
    "aggregate trades": lambda: b'{"e":"aggTrade","E":1,"s":"BTCUSDT","a":1,"p":"1","q":"1","f":1,"l":1,"T":1,"m":true}\n',
    "many keys": BOMBS["JSON of 700 keys in 7 kB"],
    "brackets without end": BOMBS["JSON of 100,000 opening brackets"],
    "a name of a megabyte": BOMBS["CSV of a name of a megabyte"],
}

# Below a minute's folder: strays, and marks of other tools. None of them is an object.
KEYS = "a\tb.jsonl", "a\x01b.jsonl", "_SUCCESS", "part-0.crc", "trades.zip.CHECKSUM", "folder/"
