"""What can be wrong with the text of a connection string, found without repeating any of it: it may hold a password.

Servers are named in the two forms that PostgreSQL's own clients take: `postgresql://user@host:5432/database?option=value` and
`host=... dbname=... option=value`.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SCHEME = re.compile(r"^postgres(ql)?://")
_FORM = "it must look like postgresql://user@host:5432/database"
_ENCODE = "write / as %2F, @ as %40, : as %3A, ? as %3F, # as %23, % as %25 and a space as %20 in a user or password, or leave the password to PGPASSWORD or ~/.pgpass"


def find_fault(dsn: str) -> str | None:
    """What is wrong with a connection string, and what to do; None if nothing is.

    PostgreSQL takes part of a password for a host, a port or a database if a character in it is not encoded, and then names that part
    in its message. So this is found before PostgreSQL sees the text.
    """
    if "\0" in dsn or "\n" in dsn.strip():
        return "it must be one line"
    if not _SCHEME.match(dsn):
        return None if re.match(r"^\s*\w+\s*=", dsn) else _FORM
    rest = _SCHEME.sub("", dsn)
    before_at, at, after_at = rest.partition("@")
    if at and "/" not in before_at:  # as libpq finds a user and a password
        rest = after_at
    authority, path, query = re.fullmatch(r"([^/?]*)([^?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]  # it matches anything
    if "@" in authority + path or "@" in query.partition("=")[0] or re.search(r"\s", dsn.strip()):
        return f"a user or password in it holds a character that must be encoded: {_ENCODE}"
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", dsn):
        return f"a % in it does not begin a character in hexadecimal: {_ENCODE}"
    ports = [re.sub(r"^(\[[^\]]*\]|[^:]*):?", "", host) for host in authority.split(",")]
    if not all(re.fullmatch(r"\d{0,5}", port, re.ASCII) and int(port or 1) < 65536 for port in ports):
        return f"a port in it is no number below 65536; if that is part of a password, {_ENCODE}"
    return None


def find_broker_fault(url: str) -> str | None:
    """What is wrong with the address of a Redis server, and what to do; None if nothing is."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss"):
            return "it must look like redis://host:6379/0, or rediss:// for TLS"
        readable = parts.port is None or parts.port > 0
    except ValueError:  # its message repeats the text
        readable = False
    if not readable or "@" in parts.path + parts.query + parts.fragment or parts.netloc.count("@") > 1:
        return f"its host or port cannot be read; if it has a password, {_ENCODE.partition(', or leave')[0]}"
    return None
