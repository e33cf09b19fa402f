"""Dagster's instance, as seen from outside a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.lost_runs import describe_blocked_queue
from btc_assets.store.errors import plain_error


@dataclass(frozen=True)
class InstanceStatus:
    """An instance: its DAGSTER_HOME, the names of its daemons that are running, and a sentence if its queue of runs is blocked."""

    home: Path
    daemons: tuple[str, ...]
    blocked: str | None


def read_instance_status(settings: Settings) -> InstanceStatus:
    """Open the instance and look for running daemons.

    Raises:
        UserError: the instance does not open.
    """
    home = prepare_dagster_home(settings)
    try:
        instance = dg.DagsterInstance.get()
    except UserError:
        raise
    except Exception as error:  # anything that its storage, launcher or dagster.yaml may raise
        if plain := plain_error(error):
            raise plain from error
        reason = str(error).splitlines()[0]
        raise UserError(f"The Dagster instance in {home} does not open ({reason}): correct its dagster.yaml.") from error
    with instance:
        daemons = sorted(name for name, status in instance.get_daemon_statuses().items() if status.healthy)
        blocked = describe_blocked_queue(instance, datetime.now(UTC))
    return InstanceStatus(home, tuple(daemons), blocked)
