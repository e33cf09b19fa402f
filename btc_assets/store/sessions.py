"""What every session of ours is like, whatever the environment, the role, the database or a pooler would make of it.

Libpq sends a zone, a date style and an encoding that PGTZ, PGDATESTYLE and PGCLIENTENCODING name; ALTER ROLE and ALTER DATABASE set
anything; a pooler drops startup options. What a statement sets after all of them holds. It is one statement, and one round trip.
"""

from __future__ import annotations

import os
import re
import select
from contextlib import closing

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from btc_assets.domain.errors import UserError

# What values mean: times, numbers and text are written and read as the drivers and our SQL expect.
_MEANING = {
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",  # all digits of a double
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
    # A transaction of ours waits for its locks, then reads what was committed before them.
    "default_transaction_isolation": "read committed",
}
# How long a session may take or wait. A load takes as long as it takes, and no limit for people's queries may cut it off. What the
# connection string itself sets in `options` stays.
TIMEOUTS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",  # since PostgreSQL 17
)
# A session that writes nothing, neither in the transaction that it is in nor in those that follow.
_READ_ONLY = {"default_transaction_read_only": "on", "transaction_read_only": "on"}
_OPTION = re.compile(r"(?:-c\s*|--)([A-Za-z_][A-Za-z0-9_.-]*)=")
# As cheap as `SELECT 1`: a session's first statement waits for what the server must look up for it, and a query of tables is dearer.
_OPENING = sql.SQL("SELECT pg_backend_pid(), CASE WHEN {} THEN ROW({})::text END")
_SETTING = sql.SQL("CASE WHEN current_setting({0}, true) IS NOT NULL THEN set_config({0}, {1}, false) END")  # if this version has it
# Our SQL names functions and types of extensions without a schema; a role may have `pg_catalog` alone.
_SEARCH_PATH = sql.SQL(
    "CASE WHEN current_setting('search_path') !~ '\\mpublic\\M' "
    "THEN set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), 'public'), false) END"
)
_POOLER_SECONDS = 3.0


def opening_statement(conninfo: str, *, unless_pooled: int | None = None, read_only: bool = False, **settings: str) -> str:
    """The statement that makes a session ours; returns the id of the server's process that the session is in.

    Args:
        conninfo: connection string of the session.
        unless_pooled: id of the process that the session believes to be in. If it is in another one, nothing is set: a session that
            others use as well must stay as it is.
        read_only: the server refuses what the session would write.
        settings: more of them, such as `search_path`.
    """
    options = conninfo_to_dict(conninfo).get("options") or os.environ.get("PGOPTIONS", "")
    chosen = {name.lower().replace("-", "_") for name in _OPTION.findall(str(options))}
    values = _MEANING | {name: "0" for name in TIMEOUTS if name not in chosen} | settings
    if read_only:
        values |= _READ_ONLY
    needed: list[sql.Composable] = [_SETTING.format(name, value) for name, value in values.items()]
    if "search_path" not in chosen | settings.keys():
        needed.append(_SEARCH_PATH)
    condition = sql.SQL("true" if unless_pooled is None else f"pg_backend_pid() = {unless_pooled}")
    return _OPENING.format(condition, sql.SQL(", ").join(needed)).as_string(None)


def role_settings(connection: psycopg.Connection) -> dict[str, str]:
    """What the role, the database or the server sets otherwise than our sessions need it, and our sessions override."""
    statement = "SELECT name, reset_val FROM pg_settings WHERE lower(name) = ANY (%s)"
    wanted = {name.lower(): value for name, value in (_MEANING | dict.fromkeys(TIMEOUTS, "0")).items()}
    rows = connection.execute(statement, ([*wanted],)).fetchall()
    return {name: value for name, value in rows if value.lower() != wanted[name.lower()].lower() and name != "client_encoding"}


def require_own_session(connection: psycopg.Connection, conninfo: str, place: str, process: int) -> None:
    """Require that a session keeps its process of the server from one transaction to the next.

    A pooler shows itself by the id of the process: it tells its clients made-up ones. In its session mode all is well. In its
    other modes another client gets the process that an idle session has just used, with that session's settings, locks and
    temporary tables.

    Args:
        connection: the session, idle; behind a pooler.
        conninfo: opens another one like it.
        place: of the server, for messages.
        process: id of the session's process, as the server told it.

    Raises:
        UserError: the session shares its process.
    """
    ours = {process}
    with closing(psycopg.connect(conninfo, autocommit=True)) as other:
        theirs = _ask_process(other)
    ours.update(pid for (pid,) in connection.execute("SELECT pg_backend_pid()"))
    if len(ours) > 1 or theirs in ours:
        raise UserError(
            f"PostgreSQL at {place} is behind a pooler that gives every transaction another session, which keeps no settings, locks or "
            "temporary tables: set pool_mode = session there for this database, or connect to the server itself."
        )


def _ask_process(connection: psycopg.Connection) -> int | None:
    """Id of the process of a session; None if the pooler has no other session to give and lets the client wait for one."""
    raw = connection.pgconn
    raw.send_query(b"SELECT pg_backend_pid()")
    while raw.flush():
        select.select([], [raw.socket], [], _POOLER_SECONDS)
    while raw.is_busy():
        if not select.select([raw.socket], [], [], _POOLER_SECONDS)[0]:
            return None
        raw.consume_input()
    result = raw.get_result()
    value = result.get_value(0, 0) if result and result.ntuples else None
    return int(value) if value else None
