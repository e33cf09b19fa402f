"""What a block of code asks of the server and of the landing zone: counts, which are the same on a busy machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest.mock import patch

import psycopg

from btc_assets.landing.listers import DirectoryLister, S3Lister


@dataclass
class Work:
    """What was asked for.

    Attributes:
        statements: sent to the server by psycopg, without BEGIN and COMMIT; of `executemany`, one for each row.
        connections: opened.
        listings: folders of the landing zone that were listed.
    """

    statements: int = 0
    connections: int = 0
    listings: int = 0


@contextmanager
def counting_work() -> Iterator[Work]:
    """Count what this process asks for inside the block, in all of its threads."""
    work = Work()

    def counted(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                setattr(work, what, getattr(work, what) + 1)
                return function(*args, **kwargs)

            return call

        return decorate

    def executemany(cursor: Any, query: Any, rows: Any, **options: Any) -> None:
        rows = list(rows)
        work.statements += len(rows)
        many(cursor, query, rows, **options)

    many, connect = psycopg.Cursor.executemany, psycopg.Connection.connect.__func__  # type: ignore[attr-defined]  # a class method
    with ExitStack() as patches:
        for owner, name, what in (
            (psycopg.Cursor, "execute", "statements"),
            (psycopg.Cursor, "copy", "statements"),
            (psycopg.Cursor, "stream", "statements"),
            (DirectoryLister, "pages", "listings"),
            (DirectoryLister, "children", "listings"),
            (S3Lister, "pages", "listings"),
            (S3Lister, "children", "listings"),
        ):
            patches.enter_context(patch.object(owner, name, counted(what)(getattr(owner, name))))
        patches.enter_context(patch.object(psycopg.Cursor, "executemany", executemany))
        patches.enter_context(patch.object(psycopg.Connection, "connect", classmethod(counted("connections")(connect))))
        patches.enter_context(patch.object(psycopg, "connect", psycopg.Connection.connect))
        yield work
