"""Whatever lands is decoded or rejected, and nothing else happens: real producers' objects, changed at random, for FUZZ_MINUTES."""

from __future__ import annotations

import gzip
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from btc_assets.landing.object_rows import build_readings, collect_contents, reject_without_valid_rows
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.reading import Fetched, decode_group
from btc_assets.landing.states import Status
from btc_assets_tests.support.producers import PRODUCERS, parquet, table, zipped
from btc_assets_tests.support.stores import FEED, FEEDS
from btc_assets_tests.support.trades import every

pytestmark = pytest.mark.slow

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0.5"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))

TICKS = every(1, 40)
OBJECTS = {name: producer.encode(TICKS) for name, producer in PRODUCERS.items()} | {
    "unprotected Parquet": parquet(table(TICKS, ids="text"), write_page_checksum=False, compression="none", use_dictionary=False),
    "Parquet by differences": parquet(
        table(TICKS), write_page_checksum=False, use_dictionary=False, column_encoding={"symbol": "DELTA_BYTE_ARRAY"}
    ),
    "zip of Parquet": zipped(("a.parquet", parquet(table(TICKS), write_page_checksum=False))),
    "zip of a zip": zipped(("a.zip", zipped(("a.csv.gz", PRODUCERS["csv.gz"].encode(TICKS))))),
}
HOSTILE = [
    b"1e-10000000", b"1E+99999", b"9" * 400, b"-0", b"0x1F", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\r", b"\n", b'"', b"'", b",", b";", b"{", b"}",
    b"[" * 300, b"[" * 300 + b"]" * 300, b'{"a":' * 300, b"NaN", b"-Infinity", b"null", b"true", b'\\ud800', b"\\u0000", b"20261120120000Z",
    b"2026-W47-5", b"9999-12-31T23:59:60Z", b"0001-01-01", b"18446744073709551616", b"-9223372036854775809", b"%s%n", b"[red]", b"x" * 5_000,
    b"\xf0\x9f\x92\xa9", b"1_000", b"\xd9\xa1\xd9\xa2", b"PAR1", b"PK\5\6", b"\x1f\x8b\x08",
]  # fmt: skip


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        at = chance.randrange(len(changed) + 1) if chance.random() < 0.7 else max(0, len(changed) - chance.randrange(1, 300))
        kind = chance.randrange(6)
        if kind == 0 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + chance.choice([1, 2, 4, 8])] = chance.randbytes(chance.choice([1, 2, 4, 8]))
        elif kind == 2:
            changed[at : at + chance.choice([0, 1, 10])] = chance.choice(HOSTILE)
        elif kind == 3:
            del changed[at : at + chance.choice([1, 10, 100, 10_000])]
        elif kind == 4:
            end = at + chance.randrange(200)
            changed[at:at] = changed[at:end] * chance.choice([1, 2, 50])
        else:
            other = OBJECTS[chance.choice(sorted(OBJECTS))]
            changed[at : at + 20] = other[chance.randrange(len(other)) :][:50]
    return bytes(changed)


WRAPPINGS: list[Callable[[bytes], bytes]] = [
    lambda data: data, lambda data: data, lambda data: data, gzip.compress, lambda data: zipped(("a", data)),
    lambda data: zipped(("a.csv", OBJECTS["csv"]), ("b", data)),
]  # fmt: skip


def outcome(data: bytes) -> str:
    """What registering makes of an object beside an honest one, and that it makes nothing else of it."""
    modified = datetime(2024, 1, 10, tzinfo=UTC)
    group = [
        Fetched(
            LandedObject(f"s3://landing/{FEED.prefix}/2024/01/10/12/00/{name}", "e", len(content), modified, FEED.prefix), source=content
        )
        for name, content in (("fuzzed", data), ("honest", OBJECTS["collector"]))
    ]
    contents = collect_contents(len(group), decode_group(group, FEEDS))
    reject_without_valid_rows(group, contents)
    readings = build_readings(group, contents, FEEDS)
    assert group[1].rejected is None
    assert [row.row_count for row in readings.rows if row.uri.endswith("honest")] == [40]
    statuses = {row.status for row in readings.rows if row.uri.endswith("fuzzed")}
    assert len(statuses) == 1
    texts = [group[0].rejected or "", *(text for row in readings.rejected_rows for text in (row.reason, row.record))]
    assert "\0" not in "".join(texts)
    "".join(texts).encode()
    assert max(map(len, texts)) <= 4_001
    return "rejected" if statuses == {Status.REJECTED} else "decoded"


@pytest.mark.filterwarnings("ignore")  # of damaged headers, and of rows that are no UTF-8
def test_nothing_happens_to_whatever_lands_but_that_it_is_decoded_or_rejected() -> None:
    chance, outcomes, slowest = random.Random(SEED), Counter[str](), (0.0, "")
    names, end = sorted(OBJECTS), time.monotonic() + MINUTES * 60
    while time.monotonic() < end:
        name = chance.choice(names)
        data = chance.choice(WRAPPINGS)(mutate(OBJECTS[name], chance))
        started = time.process_time()
        try:
            outcomes[outcome(data)] += 1
        except Exception as error:
            raise AssertionError(f"{name}, {data[:2000]!r}") from error
        slowest = max(slowest, (time.process_time() - started, name))
    print(f"\n{outcomes.total():,} inputs in {MINUTES} minutes: {dict(outcomes)}; the slowest took {slowest[0]:.2f} s ({slowest[1]})")
    assert outcomes["decoded"] and outcomes["rejected"]
    assert slowest[0] < 5
