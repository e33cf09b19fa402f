"""How long Dagster's events are kept: those of steps are deleted after a while, those of assets never."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import sqlalchemy

from btc_assets.orchestration.dagster_private import EVENTS_TABLE, connect_to_events

_KEPT = "ASSET_", "FRESHNESS_"
_DELETED = [None, *(kind.value for kind in dg.DagsterEventType if not kind.value.startswith(_KEPT))]  # None: log messages
_BATCH = 20_000


def delete_old_events(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the events of steps from before a time; the history of assets, their checks and their freshness stays.

    Without the events of its steps, the page of a run only shows when it ran and how it ended.

    Returns:
        Number of deleted events.
    """
    deleted = 0
    with connect_to_events(instance) as connection:
        for kind in _DELETED:
            while (count := _delete_batch(connection, kind, before)) == _BATCH:
                deleted += count
            deleted += count
    return deleted


def _delete_batch(connection: sqlalchemy.Connection, kind: str | None, before: datetime) -> int:
    """Delete at most `_BATCH` events of a type; returns how many.

    The oldest are read by type and id, which is the order of an index. Ids ascend with time, so events that stay are hardly read.
    """
    oldest = (
        sqlalchemy.select(EVENTS_TABLE.c.id)
        .where(EVENTS_TABLE.c.dagster_event_type.is_not_distinct_from(kind))
        .order_by(EVENTS_TABLE.c.id)
        .limit(_BATCH)
        .subquery()
    )
    return connection.execute(
        sqlalchemy.delete(EVENTS_TABLE).where(
            EVENTS_TABLE.c.id.in_(sqlalchemy.select(oldest.c.id)),
            EVENTS_TABLE.c.timestamp < before.astimezone(UTC).replace(tzinfo=None),
        )
    ).rowcount
