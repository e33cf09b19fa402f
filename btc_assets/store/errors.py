"""Errors of the server as one sentence for a person: the table that maps PostgreSQL's errors to ours.

psycopg.Error
├── connection lost, server shutting down or starting up   TransientError
├── an SQLSTATE of `_SENTENCES` or of our own functions    UserError
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

_SERVER_GONE = errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow

_NOT_SET_UP = "The database is not set up ({}): run btc-assets db migrate."
_SENTENCES: dict[str | None, str] = {  # by SQLSTATE; {} is the server's own message
    errors.DiskFull.sqlstate: "The database server's disk is full ({}): free space there and run it again.",
    errors.InsufficientPrivilege.sqlstate: (
        "The database user lacks a right ({}): have the owner run btc-assets db grant, or name the owner in BTC_ASSETS_OWNER_DSN."
    ),
    errors.UndefinedTable.sqlstate: _NOT_SET_UP,
    errors.InvalidSchemaName.sqlstate: _NOT_SET_UP,
    errors.UndefinedFunction.sqlstate: _NOT_SET_UP,
    TICKS_DROPPED: "Candles cannot be rebuilt there: {}. Leave that range out, or load its ticks again first (btc-assets load).",
    FOR_PEOPLE: "{}",
}


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
        message = error.diag.message_primary or str(error).splitlines()[0]
        if isinstance(error, _SERVER_GONE) or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None):
            raise TransientError(f"The database server ended the connection ({message}): run it again once it is up.") from error
        sentence = _SENTENCES.get(error.sqlstate)
        if sentence is None:
            raise
        raise UserError(sentence.format(message)) from error
