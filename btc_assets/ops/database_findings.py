"""What the doctor finds in the database and about its server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from btc_assets.domain.settings import Settings
from btc_assets.landing.resources import Landing
from btc_assets.ops.findings import Finding, compare_clocks, examine_safely, find_free_space, format_bytes
from btc_assets.ops.forget import find_demo_zones
from btc_assets.ops.policies import declared_policies
from btc_assets.ops.policies_in_force import read_policy_statuses
from btc_assets.ops.roles import missing_rights, open_schema_sentence, owned_by_others, schemas_open_to_all
from btc_assets.signals.encoders.artifacts import load_maintained
from btc_assets.signals.encoders.kinds import Kinds
from btc_assets.signals.encoders.models import read_maintained_models
from btc_assets.store.database import Store, only_row
from btc_assets.store.engines import ServerFacts, read_facts
from btc_assets.store.errors import READ_ONLY
from btc_assets.store.migrations import migration_advice, migration_status
from btc_assets.store.sessions import role_settings


def examine_database(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    """Examine the database, its contents as far as they are set up, and its server."""
    facts = read_facts(connection)
    yield _find_server(connection, facts)
    yield _find_engine(facts)
    yield from examine_safely("session", lambda: _find_session(connection, facts))
    yield from examine_safely("pgvector", lambda: _find_pgvector(facts))
    if facts.ticks:
        yield from examine_safely("migrations", lambda: _find_migrations(connection))
        yield from examine_safely("rights", lambda: _find_rights(connection))
        yield from examine_safely("extensions", lambda: _find_open_schemas(connection))
        yield from examine_safely("owner", lambda: _find_owner(connection, settings))
        yield from examine_safely("demo", lambda: _find_demo(connection, settings))
        yield from examine_safely("policies", lambda: _find_policies(connection, settings))
        yield from examine_safely("encoders", lambda: _find_encoders(connection, settings))
    else:
        yield Finding("migrations", "problem", "The database is not set up: run btc-assets db migrate.")
    yield _find_server_disk(connection)
    yield _find_server_clock(connection)


def _find_server(connection: psycopg.Connection, facts: ServerFacts) -> Finding:
    started = time.perf_counter()
    connection.execute("SELECT 1")
    latency = (time.perf_counter() - started) * 1000
    version = connection.info.parameter_status("server_version")
    return Finding("server", "ok", f"PostgreSQL {version} at {facts.place}, {latency:.1f} ms away.")


def _find_engine(facts: ServerFacts) -> Finding:
    if facts.wrong_results:
        return Finding("engine", "problem", facts.wrong_results)
    if facts.engine == "timescale":
        version = facts.timescale_installed or facts.timescale_available
        return Finding("engine", "ok", f"timescale: TimescaleDB {version} Community.")
    if facts.timescale_available and facts.ticks == "postgres":
        return Finding(
            "engine",
            "warning",
            "postgres: the server has TimescaleDB, but this database was set up without it. To use it, copy the store to a new "
            "database (btc-assets db copy).",
        )
    return Finding("engine", "ok", "postgres: plain PostgreSQL, without compression; production runs on TimescaleDB.")


def _find_session(connection: psycopg.Connection, facts: ServerFacts) -> Iterator[Finding]:
    (read_only,) = only_row(connection.execute("SELECT current_setting('transaction_read_only')::boolean"))
    if read_only:
        yield Finding("session", "problem", READ_ONLY.format(f"The database at {facts.place}"))
    if facts.encoding != "UTF8":
        yield Finding(
            "session",
            "warning",
            f"the database is in {facts.encoding}, where names and reasons that are not ASCII may be refused: copy the store to a database in "
            "UTF-8 (btc-assets db copy).",
        )
    overridden = ", ".join(f"{name} = {value}" for name, value in role_settings(connection).items())
    if overridden:
        yield Finding("session", "ok", f"UTC and without limits in our sessions; others of {_current_user(connection)} have {overridden}.")
    elif not read_only:
        yield Finding("session", "ok", "UTC, UTF-8, without limits, and may write.")


def _find_pgvector(facts: ServerFacts) -> Iterator[Finding]:
    facts.require_vector()
    yield Finding("pgvector", "ok", f"{facts.vector_installed or facts.vector_available}.")


def _find_migrations(connection: psycopg.Connection) -> Iterator[Finding]:
    states = migration_status(connection)
    broken = [state for state in states if state.problem]
    pending = [state for state in states if state.pending]
    if broken:
        yield Finding("migrations", "problem", f"{broken[0].name}: {broken[0].problem}; {migration_advice(broken[0])}.")
    elif newer := [state for state in states if state.newer]:
        yield Finding("migrations", "ok", f"a later release applied {len(newer)} more, up to {newer[-1].name}; this release runs on them.")
    elif pending:
        yield Finding("migrations", "problem", f"{len(pending)} of {len(states)} are not applied: run btc-assets db migrate.")
    else:
        yield Finding("migrations", "ok", f"all {len(states)} applied.")


def _find_rights(connection: psycopg.Connection) -> Iterator[Finding]:
    missing, user = missing_rights(connection), _current_user(connection)
    if missing:
        yield Finding("rights", "problem", f"{user} lacks {', '.join(missing)}: have the owner run btc-assets db grant --loader {user}.")
    else:
        yield Finding("rights", "ok", f"{user} has every right that loading needs.")


def _find_open_schemas(connection: psycopg.Connection) -> Iterator[Finding]:
    open_schemas = schemas_open_to_all(connection)
    if open_schemas:
        yield Finding("extensions", "problem", open_schema_sentence(open_schemas))
    else:
        yield Finding("extensions", "ok", "nobody but their owner may create anything in their schemas.")


def _find_owner(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    with Store.of(settings).connect(owner=True) if settings.owner_dsn else nullcontext(connection) as as_owner:
        foreign, user = owned_by_others(as_owner), _current_user(as_owner)
    if foreign:
        yield Finding(
            "owner", "problem", f"{user} does not own {', '.join(foreign)}: set BTC_ASSETS_OWNER_DSN to the DSN of the role that does."
        )
    else:
        yield Finding("owner", "ok", f"{user} owns the tables of candles, policies and indexes.")


def _find_demo(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    for url in find_demo_zones(connection, settings.landing):
        yield Finding("demo", "problem", f"generated trades were loaded into this store, from {url}: run btc-assets db forget --demo.")


def _find_policies(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    statuses = read_policy_statuses(connection, declared_policies(settings))
    drifted = [status for status in statuses if status.drift]
    failed = [status for status in statuses if status.failure]
    if drifted:
        yield Finding(
            "policies",
            "warning",
            f"{len(drifted)} of {len(statuses)} differ from their declaration, the first {drifted[0].job_name}: {drifted[0].drift}.",
        )
    if failed:
        yield Finding(
            "policies",
            "warning",
            f"{len(failed)} failed, the first {failed[0].job_name} ({failed[0].failure}): see btc-assets ops status. The Dagster job "
            "maintain runs the policies that the server's scheduler fails to run.",
        )
    if not drifted and not failed:
        yield Finding("policies", "ok", f"all {len(statuses)} in force.")


def _find_encoders(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    maintained = read_maintained_models(connection)
    if not maintained:
        yield Finding("encoders", "ok", "no model is active, so slices have features but no embeddings; btc-assets train makes one.")
        return
    encoders, lacks = load_maintained(maintained, Landing(settings).models(), Kinds.of(settings), device="cpu")
    for lack in lacks:
        yield Finding("encoders", "problem", f"{lack} Its slices stay due until then.")
    if encoders:
        yield Finding("encoders", "ok", f"{', '.join(model.model_id for model, _ in encoders)} maintained.")


def _find_server_disk(connection: psycopg.Connection) -> Finding:
    (size,) = only_row(connection.execute("SELECT pg_database_size(current_database())"))
    holds = f"the database holds {format_bytes(size)}"
    directory = None
    with suppress(psycopg.errors.InsufficientPrivilege):
        (directory,) = only_row(connection.execute("SHOW data_directory"))
    host = connection.info.host
    is_local = host.startswith("/") or host in ("localhost", "127.0.0.1", "::1")
    if directory and is_local and Path(directory).exists():
        return find_free_space("server disk", Path(directory), holds)
    return Finding("server disk", "ok", f"{holds}; its free space can only be seen on the server's own host.")


def _find_server_clock(connection: psycopg.Connection) -> Finding:
    before = datetime.now(UTC)
    (theirs,) = only_row(connection.execute("SELECT clock_timestamp()"))
    return compare_clocks("server clock", theirs, before + (datetime.now(UTC) - before) / 2)


def _current_user(connection: psycopg.Connection) -> str:
    (user,) = only_row(connection.execute("SELECT current_user"))
    return str(user)
