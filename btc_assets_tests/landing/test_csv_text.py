"""CSV rows stand alone: a stray quote costs one row, and what stands above or between the rows costs none."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.landing import csv_text
from btc_assets.landing.csv_text import read_csv
from btc_assets.landing.raw import ObjectRejected
from btc_assets_tests.support import producers
from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.producers import read, text_table, without
from btc_assets_tests.support.trades import every

TICKS = without(every(1, 30))
CSV = producers.csv(text_table(TICKS))
HEADER, *LINES = CSV.splitlines()
UNPARSABLE = "the row cannot be parsed"


def lines(*rows: bytes, header: bytes = HEADER) -> bytes:
    return b"\n".join([header, *rows, b""])


# ---- quotes


def test_a_stray_quote_costs_its_own_row_and_no_other() -> None:
    result = read(case_file("08-stray-quote", "quote.csv"))
    assert result.rejected == [(21, UNPARSABLE)]
    assert len(result.ticks) == 119


@pytest.mark.parametrize("at", [0, 14, 29])
@pytest.mark.parametrize("block", [200, 1000, 4 << 20])
def test_a_quote_before_any_value_of_any_row_costs_that_row(at: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "BLOCK", block)
    cells = LINES[at].split(b",")
    for position in range(len(cells)):
        row = b",".join([*cells[:position], b'"' + cells[position], *cells[position + 1 :]])
        result = read(lines(*LINES[:at], row, *LINES[at + 1 :]))
        assert result.rejected == [(at + 1, UNPARSABLE)]
        assert result.ticks["trade_id"].to_pylist() == [i for i in range(1, 31) if i != at + 1]


def test_two_stray_quotes_do_not_make_one_trade_of_two() -> None:
    """Between them the text has the right number of columns, so that the rows could be taken for one with a long note."""
    header = HEADER + b",note"
    rows = [line + b",x" for line in LINES]
    rows[3] = LINES[3] + b',"abc'
    rows[4] = LINES[4] + b',def"'
    result = read(lines(*rows, header=header))
    assert result.rejected == [(4, UNPARSABLE)]
    assert result.ticks["trade_id"].to_pylist() == [i for i in range(1, 31) if i != 4]


def test_line_ends_within_quotes_belong_to_their_value() -> None:
    header = HEADER + b",note"
    rows = [line + b",x" for line in LINES]
    rows[3] = LINES[3] + b',"first, line\nsecond ""line""\n"'
    rows[7] = LINES[7] + b',"a\r\nb"'
    result = read(lines(*rows, header=header))
    assert (result.ticks, result.rejected) == (TICKS, [])
    notes = [row["note"] for table in read_csv(io.BytesIO(lines(*rows, header=header))) for row in table.to_pylist()]
    assert [note for note in notes if note != "x"] == ['first, line\nsecond "line"\n', "a\r\nb"]


CELL = st.text(st.sampled_from('ab"\n\r;'), max_size=5)


@given(st.lists(st.tuples(st.text(st.sampled_from('ab,";'), min_size=1, max_size=5), CELL, CELL), max_size=12), st.integers(8, 60))
@hypothesis_settings(max_examples=300)
def test_values_with_quotes_and_line_ends_are_read_as_pythons_csv_module_writes_them(rows: list[tuple[str, str, str]], block: int) -> None:
    """But for line ends in the first column, where what follows them looks like a row."""
    sink = io.StringIO()
    csv.writer(sink, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "BLOCK", block)
        found = [row for table in read_csv(io.BytesIO(b"a,b,c\n" + sink.getvalue().encode())) for row in table.to_pylist()]
    assert [tuple(row[name] or "" for name in "abc") for row in found] == rows


@given(st.binary(max_size=3), st.integers(0, 10_000), st.sampled_from([100, 4 << 20]))
@hypothesis_settings(max_examples=300)
def test_a_few_changed_bytes_cost_the_rows_that_they_are_in(change: bytes, at: int, block: int) -> None:
    at %= len(CSV) - len(HEADER) - 1
    at += len(HEADER) + 1
    content = CSV[:at] + change + CSV[at + len(change) :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "BLOCK", block)
        try:
            result = read(content)
        except ObjectRejected:  # bytes that are not UTF-8
            return
    assert len(set(result.ticks["trade_id"].to_pylist()) & set(range(1, 31))) >= 30 - 5


# ---- what is not a row


@pytest.mark.parametrize(
    "content",
    [
        b"# exported on Friday\n#\n" + CSV,
        b"// exported\n" + CSV,
        b"\xef\xbb\xbfsep=,\n" + CSV,
        b'"sep=,"\r\n' + CSV,
        b"sep=;\n" + CSV.replace(b",", b";"),
        CSV.replace(b",", b";"),
        CSV.replace(b",", b"\t"),
        CSV.replace(b",", b"|"),
        lines(*LINES[:5], b"# a comment, in the middle", *LINES[5:], b"# and at the end"),
        gzip.compress(CSV) + b"\n",
        gzip.compress(CSV) + b"\r\n\0\0",
        gzip.compress(lines(*LINES[:9])) + b"\n" + gzip.compress(b"\n".join(LINES[9:])) + b"\n",
    ],
    ids=[
        "hashes",
        "slashes",
        "sep=,",
        "quoted sep",
        "sep=;",
        "semicolons",
        "tabs",
        "bars",
        "comments between rows",
        "a line end behind gzip",
        "zeros behind gzip",
        "line ends between members",
    ],
)
def test_what_other_programs_put_around_rows_is_no_row(content: bytes) -> None:
    result = read(content)
    assert (result.ticks, result.rejected) == (TICKS, [])


@pytest.mark.parametrize("flag", ["TRUE", "True", "true", "FALSE"])
def test_a_dump_without_a_header_may_spell_its_flags_in_any_case(flag: str) -> None:
    result = read(f"5,42000.5,0.5,21000.25,1704888000000,{flag},{flag}\n".encode())
    assert result.ticks["is_market_maker"].to_pylist() == [flag.lower() == "true"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", [CSV.decode(), '{"t": 1}', '\n[{"t": 1}]'])
def test_utf_16_is_called_so(encoding: str, text: str) -> None:
    with pytest.raises(ObjectRejected) as caught:
        read(text.encode(encoding))
    assert str(caught.value) == "its text is UTF-16 or UTF-32, as Windows writes it: land it as UTF-8"


AGGREGATES = "it holds aggregate trades (aggTrades), which join several trades and have no trade ids: land the dump called trades"
KLINES = "it holds klines (candles), no trades: land the dump called trades"
AGG = b"26129,0.01633102,4.70443515,27781,27785,1498793709153,true"
KLINE = b"1499040000000,0.01634790,0.80000000,0.01575800,0.01577100,148976.11427815,1499644799999,2434.19055334,308,1756.8,28.4,0"
AGG_HEADER = b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
KLINE_HEADER = b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (AGG, AGGREGATES),
        (AGG.upper() + b",TRUE", AGGREGATES),
        (AGG_HEADER + AGG, AGGREGATES),
        (AGG_HEADER.replace(b"agg_trade_id", b"id").replace(b"transact_time", b"time") + AGG, AGGREGATES),
        (b"a,p,q,f,l,T,m\n" + AGG, AGGREGATES),
        (KLINE, KLINES),
        (KLINE_HEADER + KLINE, KLINES),
        (b"Open time,Open,High,Low,Close\n1,2,3,4,5", KLINES),
        (b'[[1499040000000,"0.01"]]', "it holds JSON arrays whose values have no names, as of klines: land trades as objects with names"),
    ],
)
def test_what_is_no_trades_is_called_what_it_is(content: bytes, sentence: str) -> None:
    with pytest.raises(ObjectRejected) as caught:
        read(content + b"\n")
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", ["um_no_header.csv", "spot_no_header.csv"])
def test_dumps_of_aggregate_trades_are_called_so(name: str) -> None:
    with pytest.raises(ObjectRejected) as caught:
        read(case_file("16-aggtrades", name))
    assert str(caught.value) == AGGREGATES


def test_the_name_of_our_own_column_is_shown_to_nobody() -> None:
    for content in (b"price,b\n1,2,3\n1,2\n", b'{"price":1}\n{]\n'):
        with pytest.raises(ObjectRejected) as caught:
            read(content)
        assert "__" not in str(caught.value)
