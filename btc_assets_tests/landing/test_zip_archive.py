"""Of a zip archive every member is read that can be, and every other one is told by name."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable

import pytest

from btc_assets.landing.formats import read_object
from btc_assets.landing.raw import ObjectRejected
from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.producers import PRODUCERS, csv, json_lines, parquet, read, table, text_table, without, zipped
from btc_assets_tests.support.trades import every

FIRST, SECOND = without(every(1, 40)), without(every(1, 40, first_id=41))
CSV = csv(text_table(FIRST))
OTHER_CSV = csv(text_table(SECOND))


def patched(data: bytes, offset: int, value: int, member: int = 0) -> bytes:
    """A zip with a two-byte field of the directory's entry of a member changed."""
    at = -1
    for _ in range(member + 1):
        at = data.index(b"PK\1\2", at + 1)
    return data[: at + offset] + struct.pack("<H", value) + data[at + offset + 2 :]


def notes(data: bytes) -> dict[str, object]:
    opened = read_object(data)
    list(opened.tables)
    return opened.notes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.csv", OTHER_CSV),
        ("b.txt", OTHER_CSV),
        ("b", OTHER_CSV),
        ("b.csv.gz", gzip.compress(OTHER_CSV)),
        ("b.jsonl", json_lines(SECOND)),
        ("b.json.gz", gzip.compress(json_lines(SECOND))),
        ("b.parquet", parquet(table(SECOND))),
        ("b.zip", zipped(("c.csv", OTHER_CSV))),
        ("b.zip", zipped(("c.zip", zipped(("d.parquet", parquet(table(SECOND))))))),
        ("../../b.csv", OTHER_CSV),
        ("b\0\n[bold].csv", OTHER_CSV),
        ("b" * 60_000 + ".csv", OTHER_CSV),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
def test_a_member_of_any_name_and_format_is_read(name: str, content: bytes, first: bool) -> None:
    members = [("a.csv", CSV), (name, content)]
    result = read(zipped(*(reversed(members) if first else members)))
    assert sorted(result.ticks["trade_id"].to_pylist()) == list(range(1, 81))
    assert result.rejected == []


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_any_method_that_python_knows_is_read(method: int) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        archive.writestr("a.csv", CSV)
    assert read(sink.getvalue()).ticks == FIRST


def test_folders_and_hidden_and_empty_members_and_checksums_are_skipped() -> None:
    content = zipped(
        ("folder/", b""), ("folder/._a.csv", b"\0\5\26\7"), ("__MACOSX/a.csv", b"\0"), (".DS_Store", b"\0\0\0\1Bud1"), (".git/config", b"x"),
        ("folder/a.csv", CSV), ("a.csv.CHECKSUM", b"0" * 64), ("empty.csv", b""), ("blank.csv", b"\n\n"),
    )  # fmt: skip
    result = read(content)
    assert (result.ticks, result.rejected) == (FIRST, [])
    assert notes(content) == {"empty_members": ["empty.csv", "blank.csv"]}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("readme.txt", b"hello\nworld\n", "it holds no trades (its columns: hello)"),
        ("candles.csv", b"open_time,open,close\n1,2,3\n", "it holds no trades (its columns: open_time, open, close)"),
        ("chart.png", b"\x89PNG\r\n\x1a\n\0\0", "its format is unknown: *"),
        ("five.csv", b"1,2,3,4,5\n", "it has no header line and 5 columns, *"),
        ("inner.zip", zipped(("readme.txt", b"hello")), "it holds no trades (its columns: hello)"),
        ("a\x1b[31m.bin", b"\0\1", "its format is unknown: *"),
    ],
    ids=["text", "candles", "a picture", "another table", "an archive of text", "a name with an escape"],
)
def test_a_member_that_is_not_read_is_told_by_name(name: str, content: bytes, reason: str) -> None:
    data = zipped((name, content), ("a.csv", CSV))
    result = read(data)
    assert result.ticks == FIRST
    printable = name.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    ((number, told),) = result.rejected
    assert number == len(FIRST) + 1
    assert told.startswith(f"the member {printable} of the zip file is not read: {reason.rstrip('*')}")
    assert notes(data) == {"unread_members": [printable]}


@pytest.mark.parametrize(
    ("break_member", "reason"),
    [
        (lambda data: patched(data, 8, 1, member=1), "it has a password: land it without one"),
        (
            lambda data: patched(data, 10, 9, member=1),
            "it is compressed with deflate64, which cannot be read here: compress it with deflate",
        ),
        (lambda data: patched(data, 10, 93, member=1), "it is compressed with zstd, which cannot be read here: compress it with deflate"),
        (lambda data: patched(data, 10, 4242, member=1), "it is compressed with method 4242, which *"),
    ],
    ids=["a password", "deflate64", "zstd", "an unknown method"],
)
def test_a_member_that_cannot_be_unpacked_is_not_called_damaged(break_member: Callable[[bytes], bytes], reason: str) -> None:
    data = break_member(zipped(("a.csv", CSV), ("b.csv", OTHER_CSV)))
    result = read(data)
    assert result.ticks == FIRST
    ((_, told),) = result.rejected
    assert told.startswith(f"the member b.csv of the zip file is not read: {reason.rstrip('*')}")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (patched(zipped(("a.csv", CSV)), 8, 1), "it has a password: land it without one"),
        (patched(zipped(("a.csv", CSV)), 10, 9), "it is compressed with deflate64, which cannot be read here: compress it with deflate"),
        (
            zipped(("a.txt", b"hello"), ("b.txt", b"world")),
            "none of the 2 members of the zip file is read; the first, a.txt: it holds no trades (its columns: hello)",
        ),
        (zipped(("folder/", b"")), "the zip file holds no file of trades: land the dump as the exchange publishes it"),
        (zipped(("a.csv", b"")), "the object holds no rows, not even a header: land it again"),
        (
            zipped(("1.zip", zipped(("2.zip", zipped(("3.zip", zipped(("4.zip", zipped(("a.csv", CSV)))))))))),
            "it exceeds the bound on zip files within zip files (3 deep): land trades as an exchange or a collector writes them",
        ),
    ],
    ids=["a password", "deflate64", "two texts", "a folder", "an empty file", "archives in archives"],
)
def test_an_archive_without_a_member_that_can_be_read_is_rejected(data: bytes, sentence: str) -> None:
    with pytest.raises(ObjectRejected) as caught:
        read(data)
    assert str(caught.value) == sentence


def test_a_damaged_member_rejects_the_archive() -> None:
    data = bytearray(zipped(("a.csv", CSV), ("b.csv", OTHER_CSV)))
    data[len(data) // 2 + 20] ^= 0xFF
    with pytest.raises(ObjectRejected, match="its zip content is damaged or truncated"):
        read(bytes(data))


@pytest.mark.parametrize("name", [name for name, producer in PRODUCERS.items() if not producer.format.endswith("zip")])
def test_what_any_producer_writes_reads_the_same_in_an_archive(name: str) -> None:
    content = PRODUCERS[name].encode(FIRST)
    data = zipped((name, content))
    assert read(data).ticks == read(content).ticks
    assert read_object(data).format == f"{PRODUCERS[name].format}.zip"


def test_a_month_whose_second_member_is_empty_is_read() -> None:
    result = read(case_file("26-partly-landed", "month.zip"))
    assert (len(result.ticks), result.rejected) == (4000, [])


def test_the_exchanges_dumps_stay_exact() -> None:
    for name in ("BTCUSDT-trades.zip", "members.csv.gz", "um.csv", "um_old.csv"):
        result = read(case_file("22-dumps", name))
        assert len(result.ticks) == len(set(result.ticks["trade_id"].to_pylist())) > 0
        assert result.rejected == []
