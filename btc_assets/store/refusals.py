"""Why a server or a pooler refuses a connection, as one sentence: by libpq's text, because a failed connection has no SQLSTATE."""

from __future__ import annotations

import re

from psycopg.conninfo import conninfo_to_dict

from btc_assets.domain.errors import TransientError, UserError

# The first that matches. {place} is the server, {words} are its own, {setting} names the connection string.
_SENTENCES: list[tuple[str, type[UserError], str]] = [
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        UserError,
        "PostgreSQL at {place} admits no such user from this machine ({words}): add a line to its pg_hba.conf, or correct {setting}.",
    ),
    (
        r"authentication failed|auth failed|no password supplied|role \".*\" does not exist|no such user|not permitted to log in",
        UserError,
        "PostgreSQL at {place} refused the user or password: correct them in {setting}.",
    ),
    (
        r"permission denied for database",
        UserError,
        "PostgreSQL at {place} refused the user ({words}): have the owner run btc-assets db grant, or correct {setting}.",
    ),
    (
        r"database \".*\" does not exist|no such database",
        UserError,
        "PostgreSQL at {place} has no such database: create it with createdb, or correct {setting}.",
    ),
    (
        r"too many clients|connection slots are reserved|too many connections|no more connections allowed|query_wait_timeout",
        TransientError,
        "PostgreSQL at {place} has no connection left ({words}): raise max_connections there, or the limit of the role, the database or the "
        "pooler, or let fewer runs and writers work at once.",
    ),
    (
        r"due to [\w -]*timeout",
        UserError,
        "PostgreSQL at {place} ended what took longer than a limit allows ({words}): remove the limit from `options` in {setting} or from the "
        "role, or raise it.",
    ),
    (
        r"unsupported startup parameter|unrecognized configuration parameter|invalid value for parameter|parameter \".*\" cannot be changed"
        r"|invalid command-line argument|permission denied to set parameter",
        UserError,
        "PostgreSQL at {place}, or a pooler before it, refused what the connection asks for ({words}): correct `options` in {setting} and "
        "PGOPTIONS.",
    ),
    (
        r"(the database system|server) is (starting up|shutting down|in recovery mode|not yet accepting)|not yet accepting connections",
        TransientError,
        "PostgreSQL at {place} is not ready ({words}): run it again once it is up.",
    ),
    (
        r"not (currently )?accepting connections",
        UserError,
        "PostgreSQL at {place} takes no connections now ({words}): allow them there, or correct {setting}.",
    ),
    (
        r"session is (not )?read-only|server is (not )?in hot standby mode",
        TransientError,
        "No server at {place} is what target_session_attrs asks for ({words}): promote one, or correct {setting}.",
    ),
    (
        r"could not translate host name|failed to resolve host|name or service not known|name resolution",
        TransientError,
        "The host of PostgreSQL at {place} is not known here: correct it in {setting}, or make its name resolve.",
    ),
    (
        r"timeout expired|timed out",
        TransientError,
        "PostgreSQL at {place} did not answer in time: see whether it runs and a firewall lets connections through, or correct {setting}.",
    ),
    (
        r"\bSSL\b|\bTLS\b|certificate|GSSAPI|encryption|channel binding",
        UserError,
        "PostgreSQL at {place} and this machine agree on no encrypted connection ({words}): correct sslmode and its files in {setting}, or the "
        "server.",
    ),
    (
        r"connection refused|no such file or directory|is the server running",
        TransientError,
        "PostgreSQL at {place} cannot be reached: start it, or correct {setting}.",
    ),
    (
        r"(definition of )?service .* not found|password file|invalid port|invalid \w+ value|invalid connection option|Unix-domain socket path",
        UserError,
        "{setting} cannot be used: correct its service, port or options.",
    ),
]
_UNREACHABLE = "PostgreSQL at {place} cannot be reached ({words}): start it, or correct {setting}."
_REFUSED = "PostgreSQL at {place} refused the connection ({words}): correct it there, or in {setting}."
# How servers mark what ends a connection, also those that speak another language than English.
_ANSWERED = re.compile(r"\b(?:FATAL|ERROR|ВАЖНО|ОШИБКА|PANIC|FEHLER|ERREUR)\s?:\s+(.*)", re.IGNORECASE)


def refusal(dsn: str, place: str, text: str, setting: str) -> UserError:
    """The error to raise for a connection that failed; a `TransientError` if it may succeed later.

    Args:
        dsn: what was connected to.
        place: of it, for people.
        text: of libpq's error.
        setting: that holds the connection string.
    """
    words = _words(dsn, text)
    for pattern, kind, sentence in _SENTENCES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(sentence.format(place=place, words=words, setting=setting))
    return TransientError((_REFUSED if _ANSWERED.search(text) else _UNREACHABLE).format(place=place, words=words, setting=setting))


def _words(dsn: str, text: str) -> str:
    """What the server said, or what libpq said of it, on one line and without the password."""
    answers = _ANSWERED.findall(text)
    words = answers[-1] if answers else re.sub(r"^.*failed: ", "", text.strip().splitlines()[0] if text.strip() else "no reason given")
    for name, value in conninfo_to_dict(dsn).items():
        if "password" in name and value:
            words = words.replace(str(value), "***")
    return words.strip().rstrip(".")
