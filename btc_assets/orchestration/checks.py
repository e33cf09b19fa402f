"""What the asset checks of all rooms share: how one is declared, the slices that it covers, and how a result is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg

from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.orchestration.dagster_private import WindowCheckResult
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.partitions import Partitions
from btc_assets.store.database import Store, only_row

_SHOWN = 50
_LOOKBACK = timedelta(days=7)  # of a check that runs without a range


@dataclass(frozen=True)
class Problems:
    """What a check found: the problems, each shown as a sentence, and numbers to show beside them. No problem passes."""

    found: Sequence[object]
    numbers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SliceCheck:
    """A check of the slices of a run.

    Attributes:
        name: of the check.
        description: what holds if it passes.
        noun: what a problem is, in the plural; the metadata key of their number.
        find: looks for problems in a window of slices.
    """

    name: str
    description: str
    noun: str
    find: Callable[[psycopg.Connection, Window], Problems]

    def on(self, asset: dg.AssetKey, deployment: Deployment) -> dg.AssetChecksDefinition:
        """The check as one of an asset."""

        @dg.asset_check(asset=asset, name=self.name, description=self.description)
        def check(context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
            with plain_failures(), store.connect() as connection:
                window = _check_window(context, connection, deployment.partitions)
                problems = self.find(connection, window)
            return check_result(problems.found, self.noun, slices=str(window), **problems.numbers)

        return check


def _check_window(context: dg.AssetCheckExecutionContext, connection: psycopg.Connection, partitions: Partitions) -> Window:
    """The slices of the run or, without a range, those of the last days up to the newest registered slice."""
    if window := partitions.tagged_window(context.run.tags):
        return window
    (newest,) = only_row(connection.execute("SELECT max(bucket_5m) FROM landing.raw_blobs_5m"))
    end = (newest or floor_slice(datetime.now(UTC))) + SLICE
    return Window(end - _LOOKBACK, end)


def check_result(problems: Sequence[object], noun: str, **metadata: int | str) -> dg.AssetCheckResult:
    """Passed if there is no problem; the number of problems and the first of them as metadata.

    Args:
        problems: each is shown as `str(problem)`.
        noun: what they are, as the metadata key of their number.
        metadata: shown as well.
    """
    return WindowCheckResult(
        passed=not problems, metadata={noun: len(problems), **metadata, "examples": dg.MetadataValue.md(bullets(problems))}
    )


def bullets(problems: Sequence[object]) -> str:
    """The first problems as a list in Markdown."""
    listed = [f"* {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        listed.append(f"* and {len(problems) - _SHOWN} more")
    return "\n".join(listed) or "none"
