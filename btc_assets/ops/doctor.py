"""Is everything there that the store needs? One finding each, with what to do: `btc-assets doctor`."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import Window, ceil_slice, floor_slice
from btc_assets.ops import retention_jobs, roles
from btc_assets.ops.policies import declared_policies
from btc_assets.signals.encoders import models
from btc_assets.signals.encoders.optional import require_torch
from btc_assets.store.database import Store
from btc_assets.store.engines import ServerFacts, read_facts
from btc_assets.store.errors import server_errors
from btc_assets.store.migrations import migration_status

State = Literal["ok", "warning", "problem"]

_TIGHT, _FULL = 10 << 30, 1 << 30  # bytes free
_SKEW_SECONDS = 2.0  # a slice is closed 90 s after its end; S3 refuses signatures 15 minutes off


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and how it is; what to do stands in the text."""

    subject: str
    state: State
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything; what cannot be looked at because of an earlier problem is left out."""
    try:
        connection = Store.of(settings).connect()
    except UserError as error:
        yield Finding("server", "problem", str(error))
    else:
        with connection:
            yield from _database(connection, settings)
    yield from _guarded("landing zone", lambda: _landing(settings))
    yield from _guarded("Dagster", lambda: _dagster(settings))
    yield from _guarded("disk", lambda: _local_disk(settings))


def _guarded(subject: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        with server_errors():
            yield from look()
    except UserError as error:
        yield Finding(subject, "problem", str(error))


def _database(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    facts = read_facts(connection)
    started = time.perf_counter()
    connection.execute("SELECT 1")
    latency = (time.perf_counter() - started) * 1000
    yield Finding(
        "server", "ok", f"PostgreSQL {connection.info.parameter_status('server_version')} at {facts.place}, {latency:.1f} ms away."
    )
    yield from _guarded("engine", lambda: _engine(facts))
    yield from _guarded("pgvector", lambda: _vector(facts))
    if not facts.ticks:
        yield Finding("migrations", "problem", "The database is not set up: run btc-assets db migrate.")
    else:
        yield from _guarded("migrations", lambda: _migrations(connection))
        yield from _guarded("rights", lambda: _rights(connection))
        yield from _guarded("owner", lambda: _owner(connection, settings))
        yield from _guarded("policies", lambda: _policies(connection, settings))
        yield from _guarded("encoders", lambda: _encoders(connection, settings))
    yield from _server_disk(connection)
    yield from _server_clock(connection)


def _engine(facts: ServerFacts) -> Iterator[Finding]:
    if facts.engine == "timescale":
        version = facts.timescale_installed or facts.timescale_available
        yield Finding("engine", "ok", f"timescale: TimescaleDB {version} Community.")
    elif facts.timescale_available and facts.ticks == "postgres":
        yield Finding(
            "engine", "warning",
            "postgres: this database was set up without TimescaleDB, which the server has; to move up, copy it to a new one "
            "(btc-assets db copy).",
        )  # fmt: skip
    else:
        yield Finding("engine", "ok", "postgres: plain PostgreSQL, without compression; production runs on TimescaleDB.")


def _vector(facts: ServerFacts) -> Iterator[Finding]:
    facts.require_vector()
    yield Finding("pgvector", "ok", f"{facts.vector_installed or facts.vector_available}.")


def _migrations(connection: psycopg.Connection) -> Iterator[Finding]:
    states = migration_status(connection)
    broken = [state for state in states if state.problem]
    pending = [state for state in states if state.pending]
    if broken:
        yield Finding("migrations", "problem", f"{broken[0].name}: {broken[0].problem}; restore the file as it was applied.")
    elif pending:
        yield Finding("migrations", "problem", f"{len(pending)} of {len(states)} are not applied: run btc-assets db migrate.")
    else:
        yield Finding("migrations", "ok", f"all {len(states)} applied.")


def _rights(connection: psycopg.Connection) -> Iterator[Finding]:
    missing = roles.missing_rights(connection)
    (user,) = connection.execute("SELECT current_user").fetchone() or ("",)
    if missing:
        yield Finding("rights", "problem", f"{user} lacks {', '.join(missing)}: have the owner run btc-assets db grant --loader {user}.")
    else:
        yield Finding("rights", "ok", f"{user} has what loading needs.")


def _owner(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    with Store.of(settings).connect(owner=True) if settings.owner_dsn else nullcontext(connection) as as_owner:
        foreign = roles.owned_by_others(as_owner)
        (user,) = as_owner.execute("SELECT current_user").fetchone() or ("",)
    if foreign:
        yield Finding(
            "owner", "problem", f"{user} does not own {', '.join(foreign)}: set BTC_ASSETS_OWNER_DSN to the DSN of the role that does."
        )
    else:
        yield Finding("owner", "ok", f"{user} owns what candles, policies and indexes are made on.")


def _policies(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    statuses = retention_jobs.read_statuses(connection, declared_policies(settings))
    drifted = [status for status in statuses if status.drift]
    failed = [status for status in statuses if status.failure]
    if drifted:
        yield Finding(
            "policies", "warning", f"{len(drifted)} of {len(statuses)} differ, the first {drifted[0].job_name}: {drifted[0].drift}."
        )
    if failed:
        yield Finding(
            "policies", "warning",
            f"{len(failed)} did not go well, the first {failed[0].job_name} ({failed[0].failure}): see btc-assets ops status; the Dagster job "
            "maintain runs what the server's scheduler fails at.",
        )  # fmt: skip
    if not drifted and not failed:
        yield Finding("policies", "ok", f"all {len(statuses)} in force.")


def _encoders(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    kept_up = models.read_maintained_models(connection)
    if not kept_up:
        yield Finding("encoders", "ok", "no model is active, so slices have features and no embeddings; btc-assets train makes one.")
        return
    require_torch()
    from btc_assets.landing.resources import Landing
    from btc_assets.signals.encoders.artefacts import load

    for model in kept_up:
        load(model.model_id, Landing(settings).models())
    yield Finding("encoders", "ok", f"{', '.join(model.model_id for model in kept_up)} kept up.")


def _server_disk(connection: psycopg.Connection) -> Iterator[Finding]:
    (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
    directory = None
    with suppress(psycopg.errors.InsufficientPrivilege):
        (directory,) = connection.execute("SHOW data_directory").fetchone() or (None,)
    host = connection.info.host
    if directory and (host.startswith("/") or host in ("localhost", "127.0.0.1", "::1")) and Path(directory).exists():
        yield _free("server disk", Path(directory), f"the database holds {_bytes(size)}")
    else:
        yield Finding("server disk", "ok", f"the database holds {_bytes(size)}; how much is free is seen only on its own host.")


def _server_clock(connection: psycopg.Connection) -> Iterator[Finding]:
    before = datetime.now(UTC)
    (theirs,) = connection.execute("SELECT clock_timestamp()").fetchone() or (before,)
    yield _skew("server clock", theirs, before + (datetime.now(UTC) - before) / 2)


def _landing(settings: Settings) -> Iterator[Finding]:
    from btc_assets.landing.resources import Landing

    zone = Landing(settings).zone()
    now = datetime.now(UTC)
    window = Window(floor_slice(now - timedelta(hours=1)), ceil_slice(now + timedelta(seconds=1)))
    for prefix in settings.landing_feeds.prefixes:
        found = len(zone.list_window(prefix, window))
        yield Finding("landing zone", "ok", f"{zone.url}/{prefix}: {found:,} object(s) in the last hour.")
    if theirs := zone.server_time():
        yield _skew("landing zone clock", theirs, datetime.now(UTC))


def _dagster(settings: Settings) -> Iterator[Finding]:
    from btc_assets.orchestration.home import prepare_dagster_home

    home = prepare_dagster_home(settings)
    import dagster as dg

    try:
        instance = dg.DagsterInstance.get()
    except Exception as error:  # whatever its storage, launcher or dagster.yaml raises
        yield Finding(
            "Dagster", "problem", f"The instance in {home} does not open ({str(error).splitlines()[0]}): correct its dagster.yaml."
        )
        return
    with instance:
        alive = [name for name, status in instance.get_daemon_statuses().items() if status.healthy]
    if alive:
        yield Finding("Dagster", "ok", f"instance in {home}; daemon running ({', '.join(sorted(alive)).lower()}).")
    else:
        yield Finding(
            "Dagster",
            "warning",
            f"instance in {home}; no daemon runs, so no schedule or sensor does: start btc-assets dev or dagster-daemon.",
        )


def _local_disk(settings: Settings) -> Iterator[Finding]:
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    yield _free("disk", place, f"BTC_ASSETS_HOME is {settings.home}")
    temporary = Path(tempfile.gettempdir())
    if os.stat(temporary).st_dev != os.stat(place).st_dev:
        yield _free("temporary disk", temporary, "objects being read are kept there; set TMPDIR to move them")


def _free(subject: str, path: Path, note: str) -> Finding:
    usage = shutil.disk_usage(path)
    text = f"{_bytes(usage.free)} of {_bytes(usage.total)} free at {path}; {note}"
    if usage.free < _FULL:
        return Finding(subject, "problem", f"{text}: make room.")
    if usage.free < _TIGHT:
        return Finding(subject, "warning", f"{text}: make room soon.")
    return Finding(subject, "ok", f"{text}.")


def _skew(subject: str, theirs: datetime, ours: datetime) -> Finding:
    seconds = (theirs - ours).total_seconds()
    # A server that sends its clock in whole seconds is up to one behind.
    if abs(seconds) > _SKEW_SECONDS:
        return Finding(
            subject, "problem", f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this machine: let NTP set both."
        )
    return Finding(subject, "ok", "agrees with this machine's.")


def _bytes(size: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:,.1f} TB"
