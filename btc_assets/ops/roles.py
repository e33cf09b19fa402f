"""The rights of a store's roles, of which one owns the tables, one writes rows and one reads: `btc-assets db grant`."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from btc_assets.domain.errors import UserError
from btc_assets.store.database import identifier
from btc_assets.store.errors import server_errors
from btc_assets.store.tables import ROOMS

# The loader writes every table of these rooms, and the tables of other rooms that loading writes. It does not write candles, which
# their owner builds from the ticks.
WRITTEN_ROOMS = ("landing", "signals", "ingestion")
WRITTEN_TABLES = ("market_data.btc_ticks", "market_data.conflicting_trades", "market_data.loaded_slices", "ops.reconciliations")

# These run with the rights of their owner; see sql/common/repeatable/ops.make_security_definer.sql.
_LOADER_FUNCTIONS = """
SELECT format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid))
FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
WHERE prosecdef AND prorettype <> 'trigger'::regtype AND nspname = ANY (%(rooms)s)
"""

# By object id: a user without a right on a schema may not even name the objects in it.
_MISSING = """
WITH rooms AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname = ANY (%(rooms)s)
), relations AS (
    SELECT pg_class.oid, nspname, format('%%s.%%s', nspname, relname) AS name
    FROM pg_class JOIN rooms ON rooms.oid = relnamespace WHERE relkind IN ('r', 'p') AND NOT relispartition
)
SELECT format('USAGE on schema %%s', nspname) FROM rooms WHERE NOT has_schema_privilege(oid, 'USAGE')
UNION ALL
SELECT format('%%s on %%s', privilege, name) FROM relations, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
WHERE (nspname = ANY (%(written_rooms)s) OR name = ANY (%(written_tables)s)) AND NOT has_table_privilege(oid, privilege)
UNION ALL
SELECT format('EXECUTE on function %%s.%%s', nspname, proname) FROM pg_proc JOIN rooms ON rooms.oid = pronamespace
WHERE prosecdef AND prorettype <> 'trigger'::regtype AND NOT has_function_privilege(pg_proc.oid, 'EXECUTE')
UNION ALL
SELECT format('TEMPORARY on database %%s', current_database()) WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
"""

# The tables that only their owner can maintain: policies, candles on TimescaleDB and indexes demand it.
_OWNED_BY_OTHERS = """
SELECT format('%s.%s', nspname, relname) AS name FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE format('%s.%s', nspname, relname) ~ '^(market_data[.](btc_ticks|candle_partials_[a-z0-9]+)|signals[.]btc_embeddings)$'
  AND NOT pg_has_role(relowner, 'USAGE')
ORDER BY name
"""


# Functions that run with the rights of their owner look for operators of the extensions in these schemas.
_OPEN_SCHEMAS = """
SELECT DISTINCT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
CROSS JOIN aclexplode(coalesce(nspacl, acldefault('n', nspowner))) AS granted
WHERE extname IN ('vector', 'timescaledb') AND granted.grantee = 0 AND granted.privilege_type = 'CREATE' ORDER BY nspname
"""


IDLE_IN_TRANSACTION = "10min"  # of readers: what they have read in an open transaction cannot be dropped or compressed


def grant_rights(connection: psycopg.Connection, *, loaders: Iterable[str] = (), readers: Iterable[str] = ()) -> list[str]:
    """Let existing roles load into the store or read it, including tables that are created later; safe to repeat.

    Args:
        connection: as the owner of the store.
        loaders: roles that write rows, but cannot create, change or drop a table.
        readers: roles that read everything except Dagster's own tables. In this database their transactions may be idle for ten minutes,
            unless a limit is set already.

    Returns:
        Statements for an administrator, because the owner may not set that limit.

    Raises:
        UserError: a role does not exist, everybody may create functions that run as the owner would run pgvector's, or the connection
            is not the owner's.
    """
    loaders, readers = list(loaders), list(readers)
    statements = []
    with server_errors(), connection.transaction():
        if open_schemas := schemas_open_to_all(connection):
            raise UserError(open_schema_sentence(open_schemas))
        for role in [*loaders, *readers]:
            _require_role(connection, role)
        for role in [*loaders, *readers]:
            _grant_reading(connection, sql.Identifier(role))
        for role in loaders:
            _grant_loading(connection, sql.Identifier(role))
        for role in set(readers).difference(loaders):
            statements += _limit_idle_transactions(connection, role)
    return sorted(statements)


def missing_rights(connection: psycopg.Connection) -> list[str]:
    """The rights that the user of a connection lacks for loading, each in the form `INSERT on landing.raw_blobs_5m`."""
    parameters = {"rooms": list(ROOMS), "written_rooms": list(WRITTEN_ROOMS), "written_tables": list(WRITTEN_TABLES)}
    return [right for (right,) in connection.execute(_MISSING, parameters).fetchall()]


def owned_by_others(connection: psycopg.Connection) -> list[str]:
    """The tables that only their owner can maintain, and that the user of a connection does not own."""
    return [table for (table,) in connection.execute(_OWNED_BY_OTHERS).fetchall()]


def schemas_open_to_all(connection: psycopg.Connection) -> list[str]:
    """The schemas of the extensions in which everybody may create functions and operators."""
    return [name for (name,) in connection.execute(_OPEN_SCHEMAS).fetchall()]


def open_schema_sentence(schemas: Iterable[str]) -> str:
    """What to do about schemas that are open to all."""
    names = ", ".join(schemas)
    return (
        f"Everybody may create functions in the schema {names}, where the functions of the owner look for those of the extensions: run "
        f"REVOKE CREATE ON SCHEMA {names} FROM PUBLIC there as a superuser."
    )


def _require_role(connection: psycopg.Connection, role: str) -> None:
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).rowcount == 0:
        raise UserError(f"There is no role {role!r} on the server: create it there (createuser), then grant again.")


_HAS_IDLE_LIMIT = """
SELECT 1 FROM pg_db_role_setting, unnest(setconfig) AS setting
WHERE starts_with(setting, 'idle_in_transaction_session_timeout=') AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = %s))
    AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


def _limit_idle_transactions(connection: psycopg.Connection, role: str) -> list[str]:
    """Limit how long transactions of a role may be idle; returns the statement if the user of the connection may not do that."""
    if connection.execute(_HAS_IDLE_LIMIT, (role,)).rowcount:
        return []
    statement = sql.SQL("ALTER ROLE {} IN DATABASE {} SET idle_in_transaction_session_timeout = {}").format(
        sql.Identifier(role), sql.Identifier(connection.info.dbname), IDLE_IN_TRANSACTION
    )
    try:
        with connection.transaction():
            connection.execute(statement)
    except InsufficientPrivilege:
        return [statement.as_string(connection)]
    return []


def _grant_reading(connection: psycopg.Connection, role: sql.Identifier) -> None:
    database = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role))
    for room in map(sql.Identifier, ROOMS):
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(room, role))
        connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(room, role))
        connection.execute(sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON TABLES TO {}").format(room, role))


def _grant_loading(connection: psycopg.Connection, role: sql.Identifier) -> None:
    # A slice is assembled in a temporary table before it is written into compressed chunks.
    connection.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(sql.Identifier(connection.info.dbname), role))
    for room in map(sql.Identifier, WRITTEN_ROOMS):
        connection.execute(sql.SQL("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}").format(room, role))
        connection.execute(sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT INSERT, UPDATE, DELETE ON TABLES TO {}").format(room, role))
    there = "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL"  # an older schema has fewer
    for table in [identifier(name) for (name,) in connection.execute(there, (list(WRITTEN_TABLES),)).fetchall()]:
        connection.execute(sql.SQL("GRANT INSERT, UPDATE, DELETE ON {} TO {}").format(table, role))
    for (signature,) in connection.execute(_LOADER_FUNCTIONS, {"rooms": list(ROOMS)}).fetchall():
        connection.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(sql.SQL(signature), role))
