"""Defining jobs: by the keys of their assets; for sliced assets, together with the job for the days of history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import dagster as dg

from btc_assets.orchestration.dagster_private import UnresolvedAssetJobDefinition
from btc_assets.orchestration.partitions import Partitions

AssetJob: TypeAlias = UnresolvedAssetJobDefinition  # what `define_asset_job` returns


@dataclass(frozen=True)
class SlicedJobs:
    """A job for slices, and the one for the days before the first slice; None if there are no such days."""

    slices: AssetJob
    history: AssetJob | None

    def __iter__(self) -> Iterator[AssetJob]:
        return filter(None, (self.slices, self.history))


def asset_key(name: str) -> dg.AssetKey:
    """Dagster's key of the asset `schema/table`."""
    return dg.AssetKey(name.split("/"))


def run_makes(context: dg.AssetExecutionContext, *names: str) -> bool:
    """Whether the run that an asset is made in also makes one of these assets."""
    steps, all_steps = context.run.step_keys_to_execute, (asset_key(name).to_python_identifier() for name in names)
    return any(context.job_def.has_node_named(step) and (steps is None or step in steps) for step in all_steps)


def define_job(name: str, assets: Iterable[str], description: str) -> AssetJob:
    """A job that materializes assets, given by key, and runs their checks."""
    return dg.define_asset_job(name, selection=dg.AssetSelection.assets(*map(asset_key, assets)), description=description)


def define_sliced_jobs(
    name: str, assets: Iterable[str], history_assets: Iterable[str], description: str, partitions: Partitions
) -> SlicedJobs:
    """A job for slices and, if there are days of history, the job `<name>_history` for them."""
    history_description = f"The same as {name}, for days before the 5-minute partitions start."
    return SlicedJobs(
        define_job(name, assets, description),
        define_job(f"{name}_history", history_assets, history_description) if partitions.history else None,
    )
