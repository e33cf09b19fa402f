"""Files that were put together to one, and values that stand twice: nothing is read under the wrong name."""

from __future__ import annotations

import gzip
from decimal import Decimal

import pytest

from btc_assets.landing.raw import ObjectRejected
from btc_assets_tests.support.producers import Read, read, zipped

TIME = 1_705_000_000_000
HEADER = "trade_id,trade_time,price,quantity,is_market_maker\n"


def _rows(*ids: int) -> str:
    return "".join(f"{id},{TIME + id},42000.5,0.25,true\n" for id in ids)


def _trades(found: Read) -> list[tuple[int, Decimal, Decimal]]:
    return [(row["trade_id"], row["price"], row["quantity"]) for row in found.ticks.to_pylist()]


def _expected(*ids: int) -> list[tuple[int, Decimal, Decimal]]:
    return [(id, Decimal("42000.5"), Decimal("0.25")) for id in ids]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (HEADER + _rows(1, 2), HEADER + _rows(3)),
        (HEADER + _rows(1, 2), "\ufeff" + HEADER + _rows(3)),
        (HEADER + _rows(1, 2), f"quantity,price,is_market_maker,trade_time,trade_id\n0.25,42000.5,true,{TIME},3\n"),
        (HEADER + _rows(1, 2), f"q,p,m,T,t\n0.25,42000.5,true,{TIME},3\n"),
        (HEADER + _rows(1, 2), f'"id","qty","price","quote_qty","time","is_buyer_maker"\n3,0.25,42000.5,10500.125,{TIME},true\n'),
        (
            "".join(f"{id},42000.5,0.25,10500.125,{TIME},true\n" for id in (1, 2)),
            f"id,qty,price,quote_qty,time,is_buyer_maker\n3,0.25,42000.5,10500.125,{TIME},true\n",
        ),
    ],
    ids=["the same header", "with a byte order mark", "other order", "other names", "quoted, more columns", "header behind none"],
)
def test_a_further_header_line_names_the_columns_behind_it(first: str, second: str) -> None:
    found = read((first + second).encode())
    assert _trades(found) == _expected(1, 2, 3)
    assert not found.rejected
    assert _trades(read(gzip.compress(first.encode()) + gzip.compress(second.encode()))) == _expected(1, 2, 3)


def test_a_further_header_line_ends_what_a_stray_quote_begins() -> None:
    found = read((HEADER + _rows(1) + '"2' + _rows(2)[1:] + HEADER + _rows(3)).encode())
    assert _trades(found) == _expected(1, 3)
    assert [number for number, _ in found.rejected] == [2]


def test_lines_may_end_with_a_carriage_return_alone() -> None:
    found = read((HEADER + _rows(*range(1, 30_000))).replace("\n", "\r").encode())
    assert _trades(found) == _expected(*range(1, 30_000))
    assert not found.rejected


@pytest.mark.parametrize("broken", ["xx", "", "true"])
def test_a_broken_first_row_without_a_header_costs_itself_alone(broken: str) -> None:
    rows = [f"{id},42000.5,0.25,10500.125,{TIME},t,t\n" for id in (broken, 2, 3)]
    found = read("".join(rows).encode())
    assert _trades(found) == _expected(2, 3)
    assert [number for number, _ in found.rejected] == [1]


def test_zip_files_one_after_another_are_refused_because_only_the_last_one_can_be_read() -> None:
    archives = [zipped(("a.csv", (HEADER + _rows(id)).encode())) for id in (1, 2)]
    with pytest.raises(ObjectRejected, match=r"several zip files one after another: land each on its own"):
        read(b"".join(archives))


def test_a_member_that_is_no_text_costs_itself_alone() -> None:
    found = read(zipped(("a.csv", (HEADER + _rows(1)).encode()), ("Thumbs.db", b"\xd0\xcf\x11\xe0" * 9)))
    assert _trades(found) == _expected(1)
    ((_, reason),) = found.rejected
    assert reason.startswith("the member Thumbs.db of the zip file is not read: it is no text in UTF-8")


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"ORC\x0a", "ORC"),
    ],
)
def test_a_format_that_is_not_read_is_named(first: bytes, name: str) -> None:
    for source in (first + b"x" * 40, gzip.compress(first + b"x" * 40)):
        with pytest.raises(ObjectRejected, match=f"its format is {name}, which cannot be read here"):
            read(source)


def _message(id: str = "1", price: str = '"42000.5"', more: str = "") -> str:
    return f'{{"e":"trade","t":{id},"p":{price},"q":"0.25","T":{TIME},"m":true{more}}}'


@pytest.mark.parametrize(
    "line",
    [
        _message(more=',"p":"1"'),
        _message(more=',"p" :"1"'),
        _message(more=',"p"\t: "1"'),
        _message(more=',"p"  :\t"1"'),
        f'{{"stream":"btcusdt@trade","data":{_message("7")},"data":{_message("8")}}}',
        f'{{"stream":"btcusdt@trade","data":{_message("7")},"data" :{_message("8")}}}',
    ],
)
def test_a_key_with_several_values_rejects_the_message_however_it_is_spelled(line: str) -> None:
    found = read(f"{_message('1')}\n{line}\n{_message('3')}\n".encode())
    assert _trades(found) == _expected(1, 3)
    ((number, reason),) = found.rejected
    assert number == 2
    assert "the row has several values for" in reason


@pytest.mark.parametrize("id", [(1 << 53) + 1, (1 << 62) + 1, (1 << 63) - 1])
def test_large_ids_with_a_point_keep_their_last_digits(id: int) -> None:
    found = read(f"{_message('1')}\n{_message(f'{id}.0')}\n".encode())
    assert _trades(found) == _expected(1, id)
