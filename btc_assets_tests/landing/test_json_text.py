"""JSON is read value by value, however it is laid out; what is plainly no trade is counted, and a broken value costs only itself."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.landing.formats import read_object
from btc_assets.landing.json_text import read_json
from btc_assets.landing.raw import REASON, UNPARSED, ObjectRejected
from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.producers import json_lines, messages, read, without
from btc_assets_tests.support.trades import every

TICKS = without(every(1, 12))
MESSAGES = messages(TICKS)
TEXTS = [orjson.dumps(message) for message in MESSAGES]
UNPARSABLE = "the row cannot be parsed"


def pretty(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()


LAYOUTS: dict[str, bytes] = {
    "one after another": b"".join(TEXTS),
    "with commas between": b",".join(TEXTS),
    "with commas at line ends": b",\n".join(TEXTS),
    "with commas at line starts": b"\n,".join(TEXTS),
    "two in a line": b"\n".join(b" ".join(TEXTS[i : i + 2]) for i in range(0, 12, 2)),
    "with record separators": b"".join(b"\x1e" + text + b"\n" for text in TEXTS),
    "with record separators alone": b"\x1e".join(TEXTS),
    "with NUL between": b"\0".join(TEXTS),
    "with NUL behind each": b"".join(text + b"\0" for text in TEXTS),
    "with Windows line ends": b"\r\n".join(TEXTS),
    "with old Mac line ends": b"\r".join(TEXTS),
    "with blank lines": b"\n \n\n".join(TEXTS),
    "pretty": b"\n".join(map(pretty, MESSAGES)),
    "pretty with commas": b",\n".join(map(pretty, MESSAGES)),
    "an array": orjson.dumps(MESSAGES),
    "an array with spaces": json.dumps(MESSAGES).encode(),
    "a pretty array": pretty(MESSAGES),
    "an array with one object a line": b"[\n" + b",\n".join(TEXTS) + b"\n]\n",
    "an array that begins on the first line": b"[" + b"\n,".join(TEXTS) + b"]",
    "arrays one a line": b"\n".join(orjson.dumps(MESSAGES[i : i + 3]) for i in range(0, 12, 3)),
    "a response with data": orjson.dumps({"data": MESSAGES}),
    "a response with a result": orjson.dumps({"id": "x", "status": 200, "result": MESSAGES, "rateLimits": [{"interval": "MINUTE"}]}),
    "a pretty response": pretty({"id": None, "result": MESSAGES, "rateLimits": [{"interval": "MINUTE"}]}),
    "a response in a response": orjson.dumps({"code": "0", "data": {"symbol": "BTCUSDT", "rows": MESSAGES}, "ok": True}),
    "a pretty response in a response": pretty({"data": {"rows": MESSAGES, "next": None}, "ok": True}),
    "a response whose list comes late": orjson.dumps({"rateLimits": [{"interval": "MINUTE"}], "result": MESSAGES}),
    "responses one after another": b"".join(orjson.dumps({"result": MESSAGES[i : i + 3], "id": i}) for i in range(0, 12, 3)),
    "responses one a line": b"\n".join(orjson.dumps({"data": MESSAGES[i : i + 3]}) for i in range(0, 12, 3)),
    "wrapped and one after another": b"".join(orjson.dumps({"stream": "btcusdt@trade", "data": each}) for each in MESSAGES),
    "wrapped and pretty": b"\n".join(pretty({"stream": "btcusdt@trade", "data": each}) for each in MESSAGES),
    "received and one after another": b" ".join(b"%d " % i + text for i, text in enumerate(TEXTS)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "with a byte order mark"])
def test_values_are_read_however_they_are_laid_out(name: str, mark: bytes) -> None:
    content = mark + LAYOUTS[name]
    assert read_object(content).format == "jsonl"
    result = read(content)
    assert (result.ticks, result.rejected) == (TICKS, [])


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_where_the_pieces_end_that_a_text_is_read_in_does_not_matter(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btc_assets.landing.json_text._PIECE_BYTES", size)
    assert read(LAYOUTS[name]).ticks == TICKS


@given(
    st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from(["", "\n", ",", ",\n", " ", "\x1e", "\r\n", "\n[", "]\n", "\0"]), st.booleans())
    ),
    st.sampled_from([5, 50, 1 << 16]),
)
@hypothesis_settings(max_examples=200)
def test_any_mixture_of_layouts_is_read(parts: list[tuple[int, str, bool]], size: int) -> None:
    text = "".join((pretty(MESSAGES[i]) if is_pretty else TEXTS[i]).decode() + between for i, between, is_pretty in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("btc_assets.landing.json_text._PIECE_BYTES", size)
        rows = [row for table in read_json(io.BytesIO(text.encode()), {}) for row in table.to_pylist()]
    assert [row["t"] for row in rows] == [str(MESSAGES[i]["t"]) for i, _, _ in parts]


# ---- numbers

TRADE = '{"e":"trade","E":1704888000123,"s":"BTCUSDT","t":%s,"p":%s,"q":%s,"b":%s,"a":%s,"T":%s,"m":true}'


def one(t: str = "5803000001", p: str = '"1.5"', q: str = '"1"', b: str = "1", a: str = "2", time: str = "1704888000123") -> bytes:
    return (TRADE % (t, p, q, b, a, time)).encode()


@pytest.mark.parametrize("layout", [lambda text: text + b"\n", lambda text: b"[" + text + b"]"], ids=["line", "array"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (one(t="5.803e+09"), "trade_id '5.803e+09' is not a 64-bit integer"),
        (one(t="5.803e9"), "trade_id '5.803e9' is not a 64-bit integer"),
        (one(time="1.79514e12"), "trade_time '1.79514e12' is not a time"),
        (one(t="18446744073709551616"), "trade_id "),
        (one(t="5803000001.5"), "trade_id '5803000001.5' is not a 64-bit integer"),
        (one(p="NaN"), "price is null"),
        (one(p="nan"), "price is null"),
        (one(p="Infinity"), "price 'Infinity' is not a decimal with at most 10 digits before and 8 after the point"),
        (one(p="-inf"), "price '-inf' is not a decimal with at most 10 digits before and 8 after the point"),
        (one(t="NaN"), "trade_id is null"),
        (one(p="1e-10000000"), "price "),
        (one(t="1" + "0" * 5000), "trade_id "),
        (one(p='"1","p":"2"'), "the row has several values for p"),
        (one(t='1,"t":2'), "the row has several values for t"),
    ],
)
def test_a_number_that_is_not_exact_rejects_its_row_with_the_true_reason(
    layout: Callable[[bytes], bytes], text: bytes, reason: str
) -> None:
    result = read(layout(text) + one(t="7"))
    assert result.ticks["trade_id"].to_pylist() == [7]
    assert [(number, each[: len(reason)]) for number, each in result.rejected] == [(1, reason)]


@pytest.mark.parametrize("layout", [lambda text: text + b"\n", lambda text: b"[" + text + b"]"], ids=["line", "array"])
@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        (one(t="5.803000001e9"), "trade_id", 5803000001),
        (one(t="5803000001.0"), "trade_id", 5803000001),
        (one(t="9223372036854775807"), "trade_id", 2**63 - 1),
        (one(t='"5803000001"'), "trade_id", 5803000001),
        (one(t='5,"t":5'), "trade_id", 5),
        (one(p="1e-8"), "price", "0.00000001"),
        (one(p="9.1e4"), "price", "91000.00000000"),
        (one(p="0.30000000000000004"), "price", "0.30000000"),
        (one(p="91247.67"), "price", "91247.67000000"),
        (one(b="NaN"), "buyer_order_id", None),
        (one(b="nan"), "buyer_order_id", None),
        (one(b="-nan"), "buyer_order_id", None),
        (one(b="Infinity"), "buyer_order_id", None),
        (one(b="-Infinity"), "buyer_order_id", None),
        (one(b="inf"), "buyer_order_id", None),
        (one(b="null"), "buyer_order_id", None),
    ],
)
def test_a_number_is_read_to_the_last_digit(layout: Callable[[bytes], bytes], text: bytes, field: str, value: object) -> None:
    result = read(layout(text))
    assert result.rejected == []
    (tick,) = result.ticks.to_pylist()
    assert tick[field] == (Decimal(value) if isinstance(value, str) else value)


def test_words_in_texts_stay_what_they_are() -> None:
    raw = b'{"t":1,"note":"nan, inf and \\"NaN\\"","b":nan}'
    (row,) = [row for table in read_json(io.BytesIO(raw), {}) for row in table.to_pylist()]
    assert row == {"t": "1", "note": 'nan, inf and "NaN"', "b": None}


# ---- what is broken

BROKEN = {
    "cut off": TEXTS[0][:40],
    "cut off in a text": TEXTS[0][:30] + b'"x',
    "without an end": TEXTS[0][:-1],
    "cut off before a value": TEXTS[0][: TEXTS[0].index(b'"s":') + 4],
    "a brace too many": b"{" + TEXTS[0],
    "no value": b'{"e":"trade","t":}',
    "a number of two points": b'{"t":1.2.3}',
    "a key without quotes": b'{e:"trade"}',
    "a bad escape": b'{"e":"\\x"}',
    "half a character": b'{"e":"trade","s":"\\ud800"}',
    "bytes that are not UTF-8": b'{"e":"trade","s":"\xff"}',
    "nested without end": b'{"a":' * 2000,
    "text": b"hello",
    "a list": b"[1, 2]",
    "a word": b"null",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("position", [0, 5, 12])
def test_a_broken_line_costs_only_itself(name: str, position: int) -> None:
    lines = [*TEXTS[:position], BROKEN[name], *TEXTS[position:]]
    result = read(b"\n".join(lines))
    assert result.rejected == [(position + 1, UNPARSABLE)]
    assert result.ticks == TICKS


@pytest.mark.parametrize(
    "name", sorted(set(BROKEN) - {"text", "a list", "a brace too many", "cut off before a value", "nested without end"})
)
@pytest.mark.parametrize("ends", [(b"", b"", b""), (b"[", b",", b"]"), (b'{"id":1,"result":[', b",", b"]}")], ids=["", "array", "response"])
def test_a_broken_value_in_one_long_line_costs_only_itself(name: str, ends: tuple[bytes, bytes, bytes]) -> None:
    first, between, last = ends
    result = read(first + between.join([*TEXTS[:5], BROKEN[name], *TEXTS[5:]]) + last)
    assert [reason for _, reason in result.rejected] == [UNPARSABLE]
    assert result.ticks == TICKS


def test_a_broken_object_of_many_lines_costs_only_itself() -> None:
    lines = pretty(MESSAGES).replace(b'"t": 3,', b'"t": ,')
    result = read(lines)
    assert result.rejected == [(3, UNPARSABLE)]
    assert result.ticks["trade_id"].to_pylist() == [1, 2, *range(4, 13)]


def test_a_dict_as_python_prints_it_is_named_so() -> None:
    reason = "the row is a dict as Python prints it, not JSON: write it with json.dumps"
    assert read("\n".join(map(str, MESSAGES)).encode()).rejected == [(number, reason) for number in range(1, 13)]
    assert read(str(MESSAGES).encode()).rejected == [(number, reason) for number in range(1, 13)]


def test_a_value_nested_deeper_than_it_can_be_written_rejects_its_row_alone() -> None:
    result = read(json_lines(TICKS) + b'{"t":' + b"[" * 300 + b"]" * 300 + b"}\n")
    assert result.ticks == TICKS
    assert len(result.rejected) == 1


@given(st.data())
@hypothesis_settings(max_examples=300)
def test_whatever_is_done_to_a_text_no_trade_before_it_is_lost_and_none_is_invented(data: st.DataObject) -> None:
    content = bytearray(LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.sampled_from([0, 1, 5]))] = data.draw(
            st.sampled_from(
                [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\\", b"\0", b"\xff", b"nan", b"{}", b"", b"\x1e", b'{"data":[']
            )
        )
    try:
        tables = list(read_json(io.BytesIO(bytes(content)), {}))
    except ObjectRejected:
        return
    known = {str(message["t"]) for message in MESSAGES}
    whole = [row for table in tables for row in table.to_pylist() if row.get(UNPARSED) is None and row.get("t") in known]
    assert len(whole) >= 12 - 3 * 4 or len(tables) > 0
    for row in whole:
        assert row.get("p") is None or len(row) >= 5


# ---- messages of other kinds

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "an answer": ("answer", {"result": None, "id": 7}),
    "an error of an answer": ("error", {"error": {"code": 2, "msg": "Invalid request"}, "id": 7}),
    "an error of REST": ("error", {"code": -1121, "msg": "Invalid symbol."}),
    "an error of python-binance": ("error", {"e": "error", "m": "Max reconnect retries reached"}),
    "depth": ("depthUpdate", {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": 1, "u": 2, "b": [["1", "2"]], "a": []}),
    "a snapshot": ("depth", {"lastUpdateId": 1, "bids": [["1", "2"]], "asks": []}),
    "a book ticker of spot": ("bookTicker", {"u": 1, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4"}),
    "a book ticker of futures": ("bookTicker", {"e": "bookTicker", "u": 1, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4", "T": 1, "E": 1}),
    "an aggregate trade": ("aggTrade", {"e": "aggTrade", "E": 1, "s": "BTCUSDT", "a": 1, "p": "1", "q": "1", "f": 1, "l": 2, "T": 1, "m": True}),
    "an aggregate trade of REST": ("aggTrade", {"a": 1, "p": "1", "q": "1", "f": 1, "l": 2, "T": 1, "m": True, "M": True}),
    "a ticker": ("24hrTicker", {"e": "24hrTicker", "E": 1, "s": "BTCUSDT", "p": "1", "q": "2", "Q": "3"}),
    "a kline": ("kline", {"e": "kline", "E": 1, "s": "BTCUSDT", "k": {"t": 1, "T": 2, "o": "1"}}),
    "a mark price": ("markPriceUpdate", {"e": "markPriceUpdate", "E": 1, "s": "BTCUSDT", "p": "1", "T": 1}),
    "a liquidation": ("forceOrder", {"e": "forceOrder", "E": 1, "o": {"s": "BTCUSDT", "p": "1", "q": "1", "T": 1}}),
    "an order of one's own": ("executionReport", {"e": "executionReport", "t": 5, "p": "1", "q": "1", "T": 1, "m": True}),
    "a stream of another kind": ("depth20", {"stream": "btcusdt@depth20@100ms", "data": {"bids": [], "asks": []}}),
    "a ping": ("ping", {"ping": 1}),
    "a request": ("request", {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["", "wrapped"])
@pytest.mark.parametrize("join", [b"\n", b""], ids=["lines", "one after another"])
def test_a_message_of_another_kind_is_counted_and_left_out(name: str, wrapped: bool, join: bytes) -> None:
    kind, message = OTHERS[name]
    if wrapped and "stream" not in message:
        message = {"stream": f"btcusdt@{kind}", "data": message}
    text = orjson.dumps(message)
    content = join.join(itertools.chain.from_iterable((each, text) for each in TEXTS))
    result = read(content)
    assert (result.ticks, result.rejected) == (TICKS, [])
    raw = read_object(content)
    assert all(not {UNPARSED, REASON} & set(table.column_names) for table in raw.tables)
    assert raw.notes == {"other_messages": {kind: 12}}


@pytest.mark.parametrize("event", ["Trade", "TRADE", "trades", "binance"])
def test_a_trade_that_calls_itself_something_else_is_not_left_out_silently(event: str) -> None:
    content = json_lines(TICKS).replace(b'"e":"trade"', b'"e":"%s"' % event.encode(), 1)
    assert read(content).rejected == [(1, f"the row calls itself {event}, which is no trade")]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["an aggregate trade"] * 3 + ["an answer"], "it holds aggregate trades (3 messages aggTrade), which join several trades: land the stream trade"),
        (["an aggregate trade of REST"], "it holds aggregate trades (1 messages aggTrade), which join several trades: land the stream trade"),
        (["depth", "a kline", "depth"], "it holds no trades, only messages of other kinds (2 depthUpdate, 1 kline): land the stream trade"),
    ],
)  # fmt: skip
def test_an_object_of_nothing_but_messages_of_other_kinds_says_what_they_are(names: list[str], sentence: str) -> None:
    with pytest.raises(ObjectRejected) as caught:
        read(b"\n".join(orjson.dumps(OTHERS[name][1]) for name in names))
    assert str(caught.value) == sentence


def test_a_connection_on_which_nothing_was_traded_is_an_object_of_no_rows() -> None:
    raw = read_object(orjson.dumps(OTHERS["an answer"][1]))
    assert list(raw.tables) == []
    assert raw.notes == {"other_messages": {"answer": 1}}


def test_however_many_kinds_of_messages_there_are_few_are_told() -> None:
    raw = read_object(json_lines(TICKS) + b"".join(b'{"e":"%d"}' % i for i in range(1000)))
    list(raw.tables)
    assert len(raw.notes["other_messages"]) == 51
    assert sum(raw.notes["other_messages"].values()) == 1000


# ---- memory and time


class Repeated(io.RawIOBase):
    """A text that is made while it is read."""

    def __init__(self, first: bytes, part: bytes, times: int, last: bytes) -> None:
        self._parts: Iterator[bytes] = itertools.chain([first], itertools.repeat(part, times), [last])
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # readers pass no other kind of buffer
        while len(self._rest) < len(buffer) and (part := next(self._parts, None)) is not None:
            self._rest += part
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize(
    ("first", "last"), [(b"[", b"{}]"), (b'{"result":[', b"{}]}"), (b"", b"")], ids=["array", "response", "one after another"]
)
def test_however_long_a_line_is_it_is_read_a_bounded_piece_at_a_time(first: bytes, last: bytes) -> None:
    part = b"".join(text + b"," for text in TEXTS)
    tracemalloc.start()
    try:
        rows = sum(len(table) for table in read_json(io.BufferedReader(Repeated(first, part, 1500, last)), {}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 18_000 + bool(last)
    assert peak < 40 << 20


@pytest.mark.parametrize(
    "part",
    [
        b'{"a":1,',
        b'{"a":[',
        b'"',
        b"\\",
        b"{",
        b'}{"',
        b'{"a":"',
        b"[",
        b'{"data":[',
        b'{"a":1}x',
        b"nan,",
        b"1 ",
        b'{"t":nan,',
        b"-",
        b":nan",
        b'{"a":nan}',
    ],
)
def test_text_made_to_be_read_in_vain_is_given_up_in_time(part: bytes) -> None:
    """Each would take minutes if a broken value made everything behind it be read again."""
    file = io.BufferedReader(Repeated(b'{"e":"trade"', part, (256 << 10) // len(part), b""))
    try:
        for table in read_json(file, {}):
            assert len(table)
    except ObjectRejected as reason:
        assert "exceeds the bound on" in str(reason)


# ---- the cases


def test_a_stream_without_line_ends_is_120_trades() -> None:
    result = read(case_file("01-firehose-no-newlines", "stream-1.json"))
    assert (len(result.ticks), result.rejected) == (120, [])


@pytest.mark.parametrize("name", ["historical.json", "one_per_line.json", "pretty.json"])
def test_an_array_is_40_trades(name: str) -> None:
    result = read(case_file("02-json-array", name))
    assert (len(result.ticks), result.rejected) == (40, [])


def test_nan_in_a_field_that_need_not_be_there_is_null() -> None:
    result = read(case_file("03-json-nan", "nan.jsonl"))
    assert (len(result.ticks), result.rejected) == (120, [])
    assert result.ticks["buyer_order_id"].null_count == 60


def test_a_recording_of_several_streams_is_its_trades() -> None:
    path = case_file("10-multiplexed-recording", "recording.jsonl")
    result = read(path)
    assert (len(result.ticks), result.rejected) == (120, [])
    raw = read_object(path)
    list(raw.tables)
    assert raw.notes == {"other_messages": {"answer": 1, "bookTicker": 120, "depthUpdate": 120, "aggTrade": 120}}


def test_recorded_aggregate_trades_are_called_so() -> None:
    with pytest.raises(ObjectRejected) as caught:
        read(case_file("16-aggtrades", "ws.jsonl"))
    assert str(caught.value) == "it holds aggregate trades (40 messages aggTrade), which join several trades: land the stream trade"
