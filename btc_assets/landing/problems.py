"""Problems: what is wrong with the store now and waits for a person, whichever run found it; the view `landing.problems`.

A problem ends when its cause is mended, or when somebody acknowledges it. An acknowledgement is good for one version of an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.store.errors import server_errors

_MOST_COUNTED = 10_000  # counting every row of a feed whose symbol is misspelled would take seconds in every run

# The first invalid row of an object is looked up for the shown problems only.
_PROBLEMS = """
SELECT found.kind, found.what, found.symbol, found.since,
       concat_ws(', such as ', found.problem, 'row ' || rejected.row_number || ': ' || rejected.reason), found.command
FROM (
    SELECT * FROM landing.problems WHERE symbol = ANY(coalesce(%(symbols)s::text[], ARRAY[symbol])) ORDER BY since DESC, what LIMIT %(limit)s
) AS found
LEFT JOIN LATERAL (
    SELECT row_number, reason FROM landing.rejected_rows
    WHERE found.kind = 'rejected rows' AND (uri, etag) = (found.what, found.version) ORDER BY row_number LIMIT 1
) AS rejected ON true
ORDER BY found.since DESC, found.what
"""

_COUNT = """
SELECT count(*) FROM (
    SELECT 1 FROM landing.problems WHERE symbol = ANY(coalesce(%(symbols)s::text[], ARRAY[symbol])) LIMIT %(most)s
) AS counted
"""

_ACKNOWLEDGE = """
INSERT INTO landing.acknowledgements (kind, what, version, note)
SELECT kind, what, version, %s FROM landing.problems WHERE what = ANY(%s)
ON CONFLICT DO NOTHING
RETURNING what
"""


class Problem(NamedTuple):
    """What waits for a person: its kind, the object or slice, its symbol, since when, what is wrong, and a command that ends it."""

    kind: str
    what: str
    symbol: str
    since: datetime
    sentence: str
    command: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class OpenProblems:
    """The newest problems, and how many there are; a count of 10,000 means that many or more."""

    shown: list[Problem]
    count: int


class Acknowledgement(NamedTuple):
    """That somebody accepts a problem as it is."""

    kind: str
    what: str
    version: str
    note: str
    by: str
    at: datetime


def read_problems(connection: psycopg.Connection, symbols: Sequence[str] | None = None, *, limit: int = 50) -> OpenProblems:
    """The problems that are neither mended nor acknowledged, the newest first.

    Args:
        connection: to the store.
        symbols: labels of the feeds that are looked at; None for all, also of feeds that are retired.
        limit: how many are read; all up to 10,000 are counted.
    """
    parameters = {"symbols": None if symbols is None else list(symbols), "limit": limit, "most": _MOST_COUNTED}
    with server_errors():
        shown = [Problem(*row) for row in connection.execute(_PROBLEMS, parameters).fetchall()]
        if len(shown) < limit:
            return OpenProblems(shown, len(shown))
        ((count,),) = connection.execute(_COUNT, parameters).fetchall()
    return OpenProblems(shown, count)


def acknowledge(connection: psycopg.Connection, uris: Sequence[str], note: str) -> list[str]:
    """Accept the problems of objects (or slices) as they are.

    Returns:
        What was accepted.

    Raises:
        UserError: one of them is no problem now.
    """
    with server_errors(), connection.transaction():
        accepted = sorted({what for (what,) in connection.execute(_ACKNOWLEDGE, (note, list(uris)))})
        if unknown := [uri for uri in uris if uri not in accepted]:
            raise UserError(f"There is no problem with {unknown[0]}: name it as btc-assets status shows it.")
    return accepted


def withdraw_acknowledgements(connection: psycopg.Connection, uris: Sequence[str]) -> list[str]:
    """Forget that the problems of objects were accepted, so that they are problems again.

    Raises:
        UserError: one of them was not acknowledged.
    """
    with server_errors(), connection.transaction():
        rows = connection.execute("DELETE FROM landing.acknowledgements WHERE what = ANY(%s) RETURNING what", (list(uris),))
        withdrawn = sorted({what for (what,) in rows})
        if unknown := [uri for uri in uris if uri not in withdrawn]:
            raise UserError(f"{unknown[0]} was not acknowledged: see btc-assets acknowledge --list.")
    return withdrawn


def read_acknowledgements(connection: psycopg.Connection) -> list[Acknowledgement]:
    """What was accepted, the newest last."""
    with server_errors():
        rows = connection.execute(
            "SELECT kind, what, version, note, acknowledged_by, acknowledged_at FROM landing.acknowledgements ORDER BY acknowledged_at, what"
        ).fetchall()
    return [Acknowledgement(*row) for row in rows]
