"""JSON that is not one object a line: taken apart value by value, in bounded memory.

Objects one after another without line ends, arrays, pretty-printed objects, responses such as `{"result": [...]}`, several messages in a
line, and values that are not quite JSON (`NaN`, `nan`). A broken value costs only itself.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import orjson

from btc_assets.landing.bounds import LINE_BYTES, exceeded

Record = dict[str, object]


class Broken(NamedTuple):
    """A value that cannot be read: its text, and the reason if there is a better one than that."""

    text: str | None
    reason: str | None = None


class _Incomplete(Exception):
    """The text ends within a value."""


LISTS = ("data", "result", "results", "trades", "rows", "list", "items", "records")  # where responses hold the trades

_SCALARS = r'\{\s*(?:"(?:[^"\\]|\\.)*+"\s*:\s*(?:"(?:[^"\\]|\\.)*+"|[-+.\w]++)\s*,\s*)*+'
_RESPONSE = re.compile(rf'{_SCALARS}"(?:data|result)"\s*:\s*{_SCALARS}"(?:{"|".join(LISTS)})"\s*:\s*\[\s*(?=[{{\]])'
                       rf'|{_SCALARS}"(?:{"|".join(LISTS)})"\s*:\s*\[\s*(?=[{{\]])')  # fmt: skip

# Between values: white space, commas, brackets of arrays, record separators, NUL, byte order marks, and the time of a receipt.
_RECEIVED = r"(?:\d+(?:\.\d+)?[ \t]+(?=\{))?"
_BETWEEN = re.compile(rf"[\s,\[\]\x1e\0\ufeff]*{_RECEIVED}")
_BETWEEN_IN_LIST = re.compile(rf"[\s,\[\x1e\0\ufeff]*{_RECEIVED}")

# Where another value may begin after a broken object: at the start of a line, or after the end of an object, but not within one.
_NEXT = re.compile(
    rf'\n(?=[\s,\[\x1e\0]*{_RECEIVED}\{{)|(?<=\}})(?=[\s,\x1e\0]*\{{)|(?=[\x1e\0]\s*\{{)|(?<=[^\s:\[{{}}])(?=\{{\s*")|(?<=,)(?=\s*\{{\s*")'
)
_LINE_END_OR_OBJECT = re.compile(r"\n|\{")

# No value and infinity as C, MicroPython and ujson write them.
_BARE = re.compile(r"[-+]?(?:nan|inf(?:inity)?)\b", re.IGNORECASE)
_STRING_OR_BARE = re.compile(rf'"(?:[^"\\]|\\.)*+"|(?<!\w){_BARE.pattern}', re.IGNORECASE)

_TWICE = "\0twice"  # the key under which a record notes a key that it has with two values
_ENVELOPE = 0  # stands for the list of a response when the rest of the response is read
_NEAR_THE_END = 10  # characters; a literal that is cut off is shorter
_RETRY_CHARACTERS = 4096
_WASTED_CHARACTERS = 64 << 20  # of an object that may be read in vain; far more than broken lines take


class JsonValues:
    """Takes text apart that comes in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._pieces: list[str] = []  # that are not taken apart yet
        self._size = 0
        self._enough = 0  # the size that is worth another try
        self._text, self._at = "", 0
        self._braces = 0  # that are open around the list of a response
        self._wasted = 0

    @property
    def is_idle(self) -> bool:
        """Whether everything is taken apart, so that what follows can be read without what came before."""
        return not self._pieces and not self._braces and not self._decoder.getstate()[0]

    def add(self, piece: bytes, *, last: bool = False) -> Iterator[Record | Broken]:
        """The values that end in the text so far; if this is the last piece, all that are left."""
        self._pieces.append(self._decoder.decode(piece, last))
        self._size += len(self._pieces[-1])
        if self._size < self._enough and not last:
            return
        self._text, self._at = "".join(self._pieces), 0
        try:
            while self._at < len(self._text):
                yield from self._step(last)
        except _Incomplete:
            pass
        rest = self._text[self._at :]
        self._pieces, self._size, self._enough = [rest] if rest else [], len(rest), 2 * len(rest) + _RETRY_CHARACTERS if rest else 0

    def _step(self, last: bool) -> Iterator[Record | Broken]:
        """Take one value, or what is between two."""
        start = self._at
        between = (_BETWEEN_IN_LIST if self._braces else _BETWEEN).match(self._text, start)
        at = between.end() if between else start
        if at == len(self._text):
            self._at = at
        elif self._text[at] != "{":
            if self._braces and self._text[at] == "]":
                self._at = at
                self._leave_response(last)
            else:
                yield self._take_junk(start, at, last)
        elif response := _RESPONSE.match(self._text, at):
            self._braces, self._at = response[0].count("{"), response.end()
        else:
            self._at = at
            yield from self._take_object(last)

    def _leave_response(self, last: bool) -> None:
        """Skip what follows the list of a response."""
        opening = '{"":' * (self._braces - 1) + f'{{"":{_ENVELOPE}'
        rest = self._text[self._at + 1 : self._at + 1 + LINE_BYTES]
        try:
            self._at += 1 + _DECODER.raw_decode(opening + rest)[1] - len(opening)
        except (json.JSONDecodeError, RecursionError) as error:
            if not last and isinstance(error, json.JSONDecodeError) and self._may_go_on(error.pos - len(opening) + self._at + 1, error):
                raise _Incomplete from None
            self._at += 1
        self._braces = 0

    def _take_junk(self, start: int, at: int, last: bool) -> Broken:
        """Something that is no object, up to the end of its line or to the next object."""
        end = _LINE_END_OR_OBJECT.search(self._text, at)
        if end is None and not last and len(self._text) - at <= LINE_BYTES:
            raise _Incomplete
        self._at = end.start() if end else len(self._text)
        return _broken(self._text[start : self._at])

    def _take_object(self, last: bool) -> Iterator[Record | Broken]:
        start = self._at
        try:
            record, self._at = _DECODER.raw_decode(self._text, start)
        except json.JSONDecodeError as error:
            if error.msg == "Expecting value" and _BARE.match(self._text, error.pos):
                self._text, self._at = _STRING_OR_BARE.sub(_spelled_out, self._text[start:]), 0
                return
            yield self._take_broken(error, last)
        except RecursionError:
            yield self._take_broken(None, last)
        else:
            yield from _messages(record, self._text[start : self._at])

    def _take_broken(self, error: json.JSONDecodeError | None, last: bool) -> Broken:
        start = self._at
        if error is not None:
            if not last and self._may_go_on(error.pos, error):
                raise _Incomplete
            self._wasted += error.pos - start
        if self._wasted > _WASTED_CHARACTERS:
            raise exceeded("broken values", f"({_WASTED_CHARACTERS:,} characters)")
        end = _NEXT.search(self._text, start + 1)
        if end is None and not last and len(self._text) - start <= LINE_BYTES:
            raise _Incomplete
        self._at = end.start() if end else len(self._text)
        return _broken(self._text[start : self._at])

    def _may_go_on(self, position: int, error: json.JSONDecodeError) -> bool:
        """Whether more text may make a value of what is broken at a position."""
        near_the_end = error.msg.startswith("Unterminated") or position >= len(self._text.rstrip()) - _NEAR_THE_END
        return near_the_end and len(self._text) - self._at <= LINE_BYTES


def _messages(record: Record, text: str) -> Iterator[Record | Broken]:
    """The object, or the objects in its list if it is a response."""
    try:
        orjson.dumps(record)
    except TypeError:  # it is nested deeply, or has half a character
        yield _broken(text)
        return
    found = next((record[name] for name in LISTS if isinstance(record.get(name), list)), None)
    if isinstance(found, list) and found and all(isinstance(each, dict) for each in found):
        yield from found
    else:
        yield record


def contradiction(record: Record) -> str | None:
    """The key that an object has with two values, if there is one."""
    key = record.get(_TWICE)
    return None if key is None else str(key)


def _broken(text: str) -> Broken:
    text = text.encode(errors="surrogateescape").decode(errors="replace").strip(" \t\r\n,\x1e\0\ufeff")
    is_python = re.match(r"\{\s*'", text) is not None
    return Broken(text, "the row is a dict as Python prints it, not JSON: write it with json.dumps" if is_python else None)


def _spelled_out(match: re.Match[str]) -> str:
    """A bare number that JSON does not know, as JSON."""
    text = match[0]
    return text if text[0] == '"' else "null" if "nan" in text.lower() else f'"{text}"'


def _object(pairs: list[tuple[str, object]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        contradicted = [key for key, value in pairs if record[key] != value]
        if contradicted:
            record[_TWICE] = contradicted[0]
    return record


def number_text(text: str) -> str:
    """A JSON number with a point or an exponent as text: rounded to 8 decimals, as floats are, unless it has no more.

    An integer with an exponent stays as it is, so that `convert.py` sees whether digits are missing.
    """
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) > 4 or (not exponent and len(mantissa.partition(".")[2]) <= 8):
        return text
    if exponent and (number := Decimal(text)) == number.to_integral_value():
        return text
    return float_text(float(text))


def float_text(value: float) -> str:
    """A float as text without an exponent, rounded to 8 decimals."""
    text = repr(round(value, 8))
    return f"{Decimal(text):f}" if "e" in text else text


# Numbers stay text, because a float and a short integer are not all that a number may be.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=number_text,
    parse_int=str,
    parse_constant=lambda name: None if name == "NaN" else name,
)
