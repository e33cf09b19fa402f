"""Sets the passwords of roles, from lines `ROLE PASSWORD` on standard input; prints the roles whose password it changed.

The server gets a SCRAM verifier, which is computed here, so that no password comes near its log. A password that is in
force already is left alone. Run it as PostgreSQL's superuser.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import sys

import psycopg
from psycopg import sql

ITERATIONS = 4096  # PostgreSQL's own number


def scram_verifier(password: str, salt: bytes, iterations: int) -> str:
    """What PostgreSQL stores for a password of printable ASCII (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt_text}${stored_text}:{server_text}"


def is_in_force(verifier: str | None, password: str) -> bool:
    """Whether a stored verifier is this password's."""
    if verifier is None or not verifier.startswith("SCRAM-SHA-256$"):
        return False
    iterations, salt = verifier.split("$")[1].split(":")
    return hmac.compare_digest(verifier, scram_verifier(password, base64.b64decode(salt), int(iterations)))


def main() -> None:
    with psycopg.connect("dbname=postgres host=/var/run/postgresql port=5432", autocommit=True) as connection:
        for line in sys.stdin:
            role, password = line.split()
            row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (role,)).fetchone()
            assert row is not None, f"there is no role {role}"
            if not is_in_force(row[0], password):
                verifier = scram_verifier(password, os.urandom(16), ITERATIONS)
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))
                print(role)


if __name__ == "__main__":
    main()
