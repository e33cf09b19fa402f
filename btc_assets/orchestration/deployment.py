"""Deployment: everything that the rooms build the definitions of one code location from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import dagster as dg

from btc_assets.domain.progress import Listener, ignore_progress
from btc_assets.domain.settings import Settings
from btc_assets.orchestration.failures import RETRIES
from btc_assets.orchestration.partitions import Partitions

DATABASE_POOL = "database"  # its limit in dagster.yaml is how many runs may write to the store at once


class SlicedAssetOptions(TypedDict):
    """Options of Dagster's `asset` decorator that all assets share whose runs write slices to the store."""

    partitions_def: dg.PartitionsDefinition
    backfill_policy: dg.BackfillPolicy
    retry_policy: dg.RetryPolicy | None
    pool: str


@dataclass(frozen=True)
class Deployment:
    """Settings, partitions and behavior of runs, from which every room builds its definitions.

    Attributes:
        settings: of this process.
        partitions: of the sliced assets.
        retries: of a step whose failure may pass by itself; None fails at once, for a person who waits at a terminal.
        report_progress: called with stage, done and total while an asset is materialized in this process.
    """

    settings: Settings
    partitions: Partitions
    retries: dg.RetryPolicy | None = RETRIES
    report_progress: Listener = ignore_progress

    @classmethod
    def of(cls, settings: Settings, *, patient: bool = True, progress: Listener = ignore_progress) -> Deployment:
        """The deployment of these settings; unless `patient`, a step that fails is not retried."""
        return cls(settings, Partitions.of(settings), RETRIES if patient else None, progress)

    def writes_slices(self, partitions: dg.PartitionsDefinition) -> SlicedAssetOptions:
        """The options of an asset with these partitions, whose runs write slices to the store."""
        return SlicedAssetOptions(
            partitions_def=partitions,
            backfill_policy=self.partitions.backfill_policy,
            retry_policy=self.retries,
            pool=DATABASE_POOL,
        )
