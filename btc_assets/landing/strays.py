"""Strays: what lies below a feed's prefix and cannot belong to a slice, each with its name and the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from btc_assets.domain.printable import printable
from btc_assets.store.errors import server_errors

MISPLACED = "lies in no minute folder, so it is in no slice: move it to where its trades belong"

# What Hadoop, Spark, S3 consoles and the exchange's archive put beside data: neither objects nor strays.
_MARKER = re.compile(r"_SUCCESS|_(common_)?metadata|_(committed|started)_\d+|.*_\$folder\$|.*\.(crc|checksum)", re.IGNORECASE | re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_UTF_8 = re.compile("[\ud800-\udfff]")
_SUMMARY = "SELECT count(*) OVER (), uri, reason FROM landing.strays WHERE symbol = ANY(%s) ORDER BY seen_at DESC, uri LIMIT %s"
_MOST_RECORDED = 1000  # of one listing

_FORGET = """
DELETE FROM landing.strays AS stray USING unnest(%b::text[], %b::text[]) AS listed (first, following)
WHERE stray.uri >= listed.first AND stray.uri < listed.following AND NOT stray.uri = ANY(%b)
"""
_RECORD = """
INSERT INTO landing.strays (uri, symbol, reason)
SELECT uri, symbol, reason FROM unnest(%b::text[], %b::text[], %b::text[]) AS stray (uri, symbol, reason)
ON CONFLICT (uri) DO UPDATE SET symbol = excluded.symbol, reason = excluded.reason
WHERE (strays.symbol, strays.reason) IS DISTINCT FROM (excluded.symbol, excluded.reason)
"""


@dataclass(frozen=True, order=True)
class Stray:
    """One stray.

    Attributes:
        uri: its address, on one line; what cannot be printed is escaped.
        reason: why no slice is loaded from it and what to do, as the rest of a sentence that begins with its address.
    """

    uri: str
    reason: str

    def __str__(self) -> str:
        return f"{self.uri} {self.reason}"

    @classmethod
    def at(cls, uri: str, reason: str) -> Stray:
        """The stray at an address, which may hold anything."""
        return cls(printable(uri), reason)


def is_hidden(path: str, size: int) -> bool:
    """Whether this is neither an object nor a stray: an unfinished file, `.name`, as rsync writes it, a marker of another tool, or the
    empty object that stands for a folder."""
    name = path.rpartition("/")[2]
    return name.startswith(".") or _MARKER.fullmatch(name) is not None or (size == 0 and re.fullmatch(r"\d\d", name) is not None)


def unreadable_name(path: str) -> str | None:
    """Why an object of this name cannot be read, as the reason of a stray; None if it can."""
    parts = path.split("/")
    if not parts[-1]:
        flaw = "ends with a slash"
    elif "" in parts:
        flaw = "has a part without a name (//)"
    elif "." in parts or ".." in parts:
        flaw = "has a part that is . or .."
    elif _CONTROL.search(path):
        flaw = "holds control characters"
    elif _NO_UTF_8.search(path):
        flaw = "is no UTF-8"
    else:
        return None
    return f"cannot be read, because its name {flaw}: rename it"


def record_strays(connection: psycopg.Connection, uris: Sequence[tuple[str, str]], strays: Mapping[str, Iterable[Stray]]) -> None:
    """Record which strays listings found; earlier ones in their ranges that they do not show are forgotten.

    Args:
        connection: to the store; in autocommit.
        uris: the half-open ranges that were listed.
        strays: found under each prefix, also outside these ranges, by the label of a feed of the prefix; only the first thousand of
            each are recorded.
    """
    found = {
        stray.uri: (stray.uri, symbol, stray.reason) for symbol, some in strays.items() for stray in sorted(set(some))[:_MOST_RECORDED]
    }
    columns = [list(column) for column in zip(*sorted(found.values()), strict=True)] if found else [[], [], []]
    with server_errors(), connection.transaction():
        if uris:
            connection.execute(_FORGET, (*map(list, zip(*uris, strict=True)), columns[0]))
        if found:
            connection.execute(_RECORD, columns)


def forget_strays(connection: psycopg.Connection, uris: tuple[str, str]) -> None:
    """Forget the strays in a half-open range of URIs, which is no part of the landing zone any more."""
    record_strays(connection, [uris], {})


def read_strays(connection: psycopg.Connection, symbols: Sequence[str], limit: int = 3) -> tuple[int, list[Stray]]:
    """How many strays of these symbols are recorded, and the newest of them."""
    with server_errors():
        rows = connection.execute(_SUMMARY, (list(symbols), limit)).fetchall()
    return (rows[0][0] if rows else 0), [Stray(uri, reason) for _, uri, reason in rows]


def summarize(count: int, strays: Iterable[Stray]) -> str:
    """A sentence about strays."""
    return f"{count:,} stray(s) belong to no slice: {'; '.join(map(str, strays))}."
