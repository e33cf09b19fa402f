"""What lands is read by what it holds, whoever wrote it; what cannot be read is rejected in one sentence."""

from __future__ import annotations

import gzip
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.landing import bounds, csv_text, json_text
from btc_assets.landing.decode import decode
from btc_assets.landing.formats import read_object
from btc_assets.landing.raw import UNPARSED, ObjectRejected
from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.producers import PRODUCERS, json_lines, parquet, read, table, without, zipped
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import every

TICKS = without(every(1, 40))
HEADER = b"trade_time,symbol,trade_id,price,quantity,is_market_maker\n"
ROW = b"1704888000000,BTCUSDT,%d,42000.5,0.25,true\n"
DAMAGED = "its {} content is damaged or truncated (*{}*): land it again"  # in the brackets: what the parser says
NO_ROWS = "the object holds no rows, not even a header: land it again"
UNKNOWN = "its format is unknown: land Parquet, CSV or JSON lines, plain, gzipped or (CSV) zipped"
NO_TRADES = "the zip file holds no file of trades: land the dump as the exchange publishes it"
OTHER_SCHEMA = "it has another schema: no column for {} (its columns: {}); move it out of the landing zone or land it as trades"
ALL_MISSING = "trade_time, trade_id, price, quantity, is_market_maker"


def encoded(producer: str) -> bytes:
    return PRODUCERS[producer].encode(TICKS)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def encrypted() -> bytes:
    """A zip whose directory says that its member has a password."""
    data = encoded("csv.zip")
    return flipped(data, data.rindex(b"PK\1\2") + 8)


REJECTED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the object is empty (0 bytes): land it again"),
    "white space": (b" \n\n", NO_ROWS),
    "gzipped white space": (gzip.compress(b"\n"), NO_ROWS),
    "gzipped nothing": (gzip.compress(b""), NO_ROWS),
    "a zip of an empty file": (zipped(("a.csv", b"")), NO_ROWS),
    "truncated Parquet": (encoded("collector")[:-50], DAMAGED.format("Parquet", "Parquet magic bytes not found in footer")),
    "the start of Parquet": (encoded("collector")[:9], DAMAGED.format("Parquet", "Parquet magic bytes not found in footer")),
    "garbage that calls itself Parquet": (b"PAR1" + b"\0" * 90 + b"PAR1", DAMAGED.format("Parquet", "")),
    "Parquet with a flipped byte": (flipped(encoded("collector"), 200), DAMAGED.format("Parquet", "CRC checksum verification failed")),
    "Parquet with text that is not UTF-8": (
        parquet(table(TICKS), write_page_checksum=False, use_dictionary=False, compression="none").replace(b"BTCUSDT", b"BTC\xff\xfeDT"),
        DAMAGED.format("Parquet", "Column 2: *Invalid UTF8 sequence"),
    ),
    "truncated gzip": (encoded("csv.gz")[:8], DAMAGED.format("gzip", "ended before the end-of-stream marker")),
    "gzip truncated at its end": (encoded("csv.gz")[:-20], DAMAGED.format("gzip", "ended before the end-of-stream marker")),
    "a long gzip truncated at its end": (
        gzip.compress(HEADER + b"".join(ROW % i for i in range(3000)))[:-20],
        DAMAGED.format("csv.gz", "ended before the end-of-stream marker"),
    ),
    "truncated zip": (encoded("csv.zip")[:-30], DAMAGED.format("zip", "not a zip file")),
    "a zip with a flipped byte": (flipped(encoded("csv.zip"), 60), DAMAGED.format("zip", "")),
    "a zip with a password": (encrypted(), "it has a password: land it without one"),
    "a zip without trades": (
        zipped(("readme.txt", b"hello"), ("__MACOSX/._a.csv", b"\0")),
        "it holds no trades (its columns: hello)",
    ),
    "a zip of nothing": (zipped(), NO_TRADES),
    "Parquet of candles": (parquet(pa.table({"open": [1.0], "close": [2.0]})), OTHER_SCHEMA.format(ALL_MISSING, "open, close")),
    "Parquet of no columns": (parquet(pa.table({})), OTHER_SCHEMA.format(ALL_MISSING, "none")),
    "Parquet of no rows and another schema": (
        parquet(pa.table({"price": pa.array([], pa.float64())})),
        OTHER_SCHEMA.format("trade_time, trade_id, quantity, is_market_maker", "price"),
    ),
    "CSV of candles": (b"open_time,open\n1,2\n", OTHER_SCHEMA.format(ALL_MISSING, "open_time, open")),
    "JSON of something else": (b'{"id": 1}\n', OTHER_SCHEMA.format("trade_time, price, quantity, is_market_maker", "id")),
    "a header of another schema, and no rows": (b"open_time,open\n\n", OTHER_SCHEMA.format(ALL_MISSING, "open_time, open")),
    "a headerless file that is no dump": (
        b"1,2,3,4,5\n",
        "it has no header line and 5 columns, which no known dump has: add a header line",
    ),
    "two columns of one name": (
        b"price,trade_id,price\n1,2,3\n",
        "it has several columns with the same name (its columns: price, trade_id, price): keep one of each",
    ),
    "binary garbage": (bytes(range(256)), UNKNOWN),
    "gzipped Parquet": (gzip.compress(encoded("collector")), UNKNOWN),
    "text that is not UTF-8": (b"\xe9\xe8,\xe7\n", DAMAGED.format("csv", "codec can't decode byte 0xe9 in position 0")),
    "a cell that is not UTF-8": (HEADER + ROW % 1 + b"1,\xff,3,4,5,true\n", DAMAGED.format("csv", "codec can't decode byte 0xff")),
}


@pytest.mark.parametrize("name", PRODUCERS)
def test_the_format_is_found_in_the_content(name: str) -> None:
    assert read_object(encoded(name))[0] == PRODUCERS[name].format


@pytest.mark.parametrize("name", REJECTED)
@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "on disk"])
def test_an_unreadable_object_is_rejected_in_one_sentence(name: str, on_disk: bool, tmp_path: Path) -> None:
    content, sentence = REJECTED[name]
    path = tmp_path / "object"
    path.write_bytes(content)
    with pytest.raises(ObjectRejected) as caught:
        read(path if on_disk else content)
    assert fnmatchcase(str(caught.value), sentence)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "polars_int128.parquet",
            "its Parquet content is whole, but uses what cannot be read here (Integers with more than 64 bits not implemented): "
            "write it without that",
        ),
        (
            "encrypted_plainfooter.parquet",
            "its Parquet content is encrypted (Cannot decrypt ColumnMetadata. FileDecryption is not setup correctly): "
            "land it without encryption",
        ),
        ("encrypted_encfooter.parquet", "its Parquet content is encrypted: land it without encryption"),
    ],
)
def test_what_is_whole_and_cannot_be_read_is_not_called_damaged(name: str, sentence: str) -> None:
    with pytest.raises(ObjectRejected) as caught:
        read(case_file("19-unsupported-parquet", name))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "content",
    [
        parquet(table(TICKS.slice(0, 0))),
        parquet(table(TICKS.slice(0, 0), time="timestamp[ns]", ids="float64 with NaN", decimal="decimal128")),
        HEADER,
        HEADER.strip(),
        b"\n" + HEADER + b"\n\n",
        b"\xef\xbb\xbf" + HEADER.replace(b"\n", b"\r\n"),
        gzip.compress(HEADER),
        zipped(("a.csv", HEADER), ("b.csv", HEADER)),
    ],
    ids=["Parquet", "Parquet of other types", "a header", "a header without its end", "blank lines", "Windows", "gzip", "zip"],
)
def test_an_object_of_no_rows_has_no_ticks_and_is_not_rejected(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(content)
    for source in (content, path):
        result = read(source)
        assert (len(result.ticks), result.rejected) == (0, [])


@pytest.mark.parametrize("name", ["collector", "csv", "csv.gz", "jsonl", "csv.zip"])
def test_an_object_on_disk_reads_as_it_does_in_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(encoded(name))
    assert read(path).ticks == read(encoded(name)).ticks == TICKS


# ---- rows that cannot be parsed


@given(ragged=st.lists(st.booleans(), max_size=60), block=st.integers(64, 300))
def test_csv_rows_with_too_few_or_many_columns_are_handed_over_in_their_places(ragged: list[bool], block: int) -> None:
    lines = [f"bad {i}" if bad else f"{i},1" for i, bad in enumerate(ragged)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "BLOCK", block)
        rows = [row for raw in read_object("\n".join(["trade_id,price", *lines]).encode())[1] for row in raw.to_pylist()]
    assert [row.get(UNPARSED) or f"{row['trade_id']},{row['price']}" for row in rows] == lines


def test_a_csv_row_that_cannot_be_parsed_is_rejected_under_its_own_number_and_the_others_survive() -> None:
    content = HEADER + ROW % 1 + b"1704888000000,BTC\n" + ROW % 3 + b"\n" + ROW % 4 + b"a,b,c,d,e,f,g\n" + b"1704888000000,,6,1,1,true\n"
    result = read(content)
    assert result.ticks["trade_id"].to_pylist() == [1, 3, 4]
    assert result.rejected == [(2, "the row cannot be parsed"), (5, "the row cannot be parsed"), (6, "symbol is null")]


def test_json_lines_that_are_no_trade_are_rejected_and_the_others_survive() -> None:
    first, second = json_lines(TICKS.slice(0, 2)).splitlines()
    broken = "the row cannot be parsed"
    lines = {
        first: None,
        first[:-9]: broken,
        first.replace(b'"trade"', b'"Trade"'): "the row calls itself Trade, which is no trade",
        b"[1, 2]": broken,
        b"\xff\xfe": broken,
        b'{"note":null,"id":7}': "symbol is null",
        b"{}": "symbol is null",
        second: None,
    }
    result = read(b"\n\n".join(lines))
    assert result.ticks == TICKS.slice(0, 2)
    assert result.rejected == [(number, reason) for number, reason in enumerate(lines.values(), 1) if reason]


def test_a_broken_first_line_does_not_hide_that_the_object_is_json_lines() -> None:
    result = read(b'0000,"m":true}\n' + json_lines(TICKS))
    assert result.ticks == TICKS
    assert result.rejected == [(1, "the row cannot be parsed")]


def test_json_lines_may_start_with_a_byte_order_mark() -> None:
    assert read(b"\xef\xbb\xbf" + json_lines(TICKS)).ticks == TICKS


def test_json_lines_of_nothing_but_garbage_lose_no_line() -> None:
    broken = "the row cannot be parsed"
    assert read(b"{\n{}\n{]").rejected == [(1, broken), (2, "trade_id is null"), (3, broken)]


def test_a_field_that_a_later_part_of_the_json_lines_never_has_is_null_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "BATCH_ROWS", 40)
    result = read(json_lines(TICKS) + b'{"note":null,"id":7}\n')
    assert result.ticks == TICKS
    assert len(result.rejected) == 1


def test_json_numbers_are_as_exact_as_parquet_floats() -> None:
    message = {"T": 1704888000000.0, "t": 1, "p": 0.1 + 0.2, "q": 1, "m": 0}
    result = read(orjson.dumps(message) + b"\n" + orjson.dumps(message | {"t": "2", "p": "0.30", "q": 1.0, "m": False}))
    assert result.rejected == []
    assert len(set(map(str, result.ticks["price"].to_pylist()))) == 1


def test_no_text_holds_a_nul_character_which_postgresql_could_not_store() -> None:
    line = json_lines(TICKS.slice(0, 1)).replace(b"BTCUSDT", b"\\u0000").replace(b'{"e"', b'{"x\\u0000":"","e"')
    decoded = [decode(raw, [FEED]) for raw in read_object(line + b" " * 5000 + b"\n{\0")[1]]
    texts = [text for one in decoded for name in ("reason", "record") for text in one.rejected[name].to_pylist()]
    texts += [name for one in decoded for name in one.extra_columns]
    assert len(texts) == 5
    assert "\0" not in "".join(texts)
    with pytest.raises(ObjectRejected) as caught:
        read(parquet(pa.table({"a\0b": [1]})))
    assert "a\N{REPLACEMENT CHARACTER}b" in str(caught.value)


# ---- memory


def test_a_large_parquet_object_on_disk_is_read_a_bounded_piece_at_a_time(tmp_path: Path) -> None:
    path, rows, groups = tmp_path / "large.parquet", 20_000, 30
    numbers = pa.table({name: np.random.default_rng(1).random(rows) for name in "abcdefgh"})
    with pq.ParquetWriter(path, numbers.schema) as writer:
        for _ in range(groups):
            writer.write_table(numbers)
    before, peak, read_rows = pa.total_allocated_bytes(), 0, 0
    for raw in read_object(path)[1]:
        assert len(raw) <= bounds.BATCH_ROWS
        read_rows += len(raw)
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert read_rows == rows * groups
    assert peak < numbers.nbytes * groups / 4


@pytest.mark.parametrize("name", ["csv", "csv.gz", "csv.zip", "jsonl"])
def test_a_large_text_object_is_read_a_bounded_piece_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "BLOCK", 1000)
    monkeypatch.setattr(json_text, "BATCH_ROWS", 15)
    pieces = [len(raw) for raw in read_object(encoded(name))[1]]
    assert len(pieces) > 2
    assert sum(pieces) == len(TICKS)


# ---- damage of any kind


@st.composite
def damage(draw: st.DrawFn) -> bytes:
    """An object with a few bytes changed, cut out or put in."""
    data = bytearray(BASES[draw(st.sampled_from(sorted(BASES)))])
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)) | st.integers(max(0, len(data) - 400), len(data)))
        data[at : at + draw(st.sampled_from([0, 1, 1, 1, 4, 10_000]))] = draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b",", b"\n", b"{", b"\0"])
        )
    return bytes(data)


BASES = {name: encoded(name) for name in PRODUCERS} | {
    "unprotected Parquet": parquet(table(TICKS, ids="text"), write_page_checksum=False, compression="none", use_dictionary=False)
}


@given(damage())
@hypothesis_settings(max_examples=1000)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a ragged row that is not UTF-8
def test_whatever_happens_to_its_bytes_an_object_is_rejected_or_every_row_is_accounted_for(content: bytes) -> None:
    try:
        result = read(content)
    except ObjectRejected as reason:
        assert "\0" not in str(reason)
        assert len(str(reason)) < 1000
    else:
        result.ticks.validate(full=True)
        for field in result.ticks.schema:
            assert field.nullable or not result.ticks[field.name].null_count
