"""Errors of the server as one sentence for a person: the table that maps PostgreSQL's errors to ours.

psycopg.Error
├── connection lost, server shutting down or busy          TransientError
├── another SQLSTATE of `_SENTENCES`                       UserError
└── anything else                                          passes through: a fault of ours, with its traceback
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors

from btc_assets.domain.errors import TransientError, UserError

TICKS_DROPPED = "BTC01"  # raised by market_data.refresh_candles
FOR_PEOPLE = "BTC02"  # raised by functions whose message is a complete sentence for a person

READ_ONLY = "{} takes no writes: name the primary server instead of a standby, and a role without default_transaction_read_only."

_ENDED = "The database server ended the connection ({}): run it again once it is up."
_BUSY = "The database server is busy ({}): run it again later."
_LIMIT = "The database server ended what took longer than a limit allows ({}): remove the limit from `options` of the connection string, or raise it."
_NOT_SET_UP = "The database is not set up ({}): run btc-assets db migrate."
_OLDER = "The database was set up by an older version ({}): run btc-assets db migrate."
_OTHER_ENCODING = (
    "The database cannot hold a character ({}): copy the store to one in UTF-8 (createdb --encoding=UTF8 --template=template0, then "
    "btc-assets db copy)."
)
_SENTENCES: dict[str | None, tuple[type[UserError], str]] = {  # by SQLSTATE; {} is the server's own message
    errors.DiskFull.sqlstate: (UserError, "The database server's disk is full ({}): free space there and run it again."),
    errors.InsufficientPrivilege.sqlstate: (
        UserError,
        "The database user lacks a right ({}): have the owner run btc-assets db grant, or name the owner in BTC_ASSETS_OWNER_DSN.",
    ),
    errors.UndefinedTable.sqlstate: (UserError, _NOT_SET_UP),
    errors.InvalidSchemaName.sqlstate: (UserError, _NOT_SET_UP),
    errors.UndefinedColumn.sqlstate: (UserError, _OLDER),
    errors.UndefinedFunction.sqlstate: (UserError, _NOT_SET_UP),
    TICKS_DROPPED: (
        UserError,
        "Candles cannot be rebuilt there: {}. Leave that range out, or load its ticks again first (btc-assets load).",
    ),
    FOR_PEOPLE: (UserError, "{}"),
    errors.ReadOnlySqlTransaction.sqlstate: (UserError, READ_ONLY.format("The database ({})")),
    errors.QueryCanceled.sqlstate: (UserError, _LIMIT),
    errors.IdleInTransactionSessionTimeout.sqlstate: (UserError, _LIMIT),
    errors.IdleSessionTimeout.sqlstate: (UserError, _LIMIT),
    "25P04": (UserError, _LIMIT),  # transaction_timeout, since PostgreSQL 17
    errors.UntranslatableCharacter.sqlstate: (UserError, _OTHER_ENCODING),
    errors.AdminShutdown.sqlstate: (TransientError, _ENDED),
    errors.CrashShutdown.sqlstate: (TransientError, _ENDED),
    errors.CannotConnectNow.sqlstate: (TransientError, _ENDED),
    errors.TooManyConnections.sqlstate: (TransientError, _BUSY),
    errors.OutOfMemory.sqlstate: (TransientError, _BUSY),
    errors.LockNotAvailable.sqlstate: (TransientError, _BUSY),
    errors.DeadlockDetected.sqlstate: (TransientError, _BUSY),
    errors.SerializationFailure.sqlstate: (TransientError, _BUSY),
}


def ended(words: str) -> UserError:
    """The error to raise where a stream of rows broke off, by the words of a driver that tells no SQLSTATE."""
    message = " ".join(words.partition("ERROR:")[2].split())  # a session goes on after it; not after FATAL, or no word of the server
    if not message:
        return TransientError(_ENDED.format(" ".join(words.split())))
    if "recovery" in message:  # of a standby, whose query lasted longer than the rows on the primary
        return TransientError(_BUSY.format(message))
    if message.startswith("canceling statement"):
        return UserError(_LIMIT.format(message))
    return UserError(f"The database server broke off the query ({message}): correct that, and run it again.")


@contextmanager
def server_errors() -> Iterator[None]:
    """Turn errors that a person can correct into one sentence.

    Raises:
        UserError: a person must act.
        TransientError: the connection was lost; repeating may help.
        psycopg.Error: anything else, unchanged.
    """
    try:
        yield
    except psycopg.Error as error:
        plain = plain_error(error)
        if plain is None:
            raise
        raise plain from error


def plain_error(error: BaseException | None) -> UserError | None:
    """One sentence for an error of a database server, whichever driver raised it; None for anything else and for faults of ours.

    SQLAlchemy wraps psycopg2's errors, and `dagster-postgres` wraps those of SQLAlchemy once it has tried often enough.
    """
    if type(error).__name__ == "DagsterPostgresException":
        return plain_error(error.__cause__ if error else None)
    original = getattr(error, "orig", None) or error
    sqlstate = getattr(original, "pgcode", None) or getattr(original, "sqlstate", None)
    if isinstance(original, psycopg.Error):
        lost, message = isinstance(original, psycopg.OperationalError), original.diag.message_primary
    elif type(original).__module__.startswith("adbc"):
        lost, message = sqlstate is None, str(original).partition("ERROR:")[2].partition("\n")[0].strip()
    elif type(original).__module__.startswith("psycopg2"):
        lost, message = type(original).__name__ == "OperationalError", original.diag.message_primary  # type: ignore[union-attr]
    else:
        lost, message = False, None
    kind, sentence = (TransientError, _ENDED) if lost and sqlstate is None else _SENTENCES.get(sqlstate, (None, ""))
    lines = str(original).splitlines() or [type(original).__name__]
    return kind(sentence.format(message or lines[0])) if kind else None
