"""Asset checks of slices, for all rooms: how one is declared, which slices it covers, and how its result is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg

from btc_assets.domain.printable import escape_markdown, printable
from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.orchestration.dagster_private import WindowCheckResult
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.partitions import Partitions
from btc_assets.store.database import Store, only_row

_SHOWN = 50  # problems in the metadata of a result
_LOOKBACK = timedelta(days=7)  # of a check that runs without a range


@dataclass(frozen=True)
class Problems:
    """Result of a check, which passes if there is no problem.

    Attributes:
        found: the problems; `str(problem)` is a sentence.
        numbers: further metadata.
        note: what the result does not say if there is no problem.
    """

    found: Sequence[object]
    numbers: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class SliceCheck:
    """Declaration of a check of the slices of a run.

    Attributes:
        name: of the check.
        description: what holds if it passes.
        noun: plural noun for its problems, such as `gaps`; the metadata key of their number.
        find: finds the problems in a window of slices.
    """

    name: str
    description: str
    noun: str
    find: Callable[[psycopg.Connection, Window], Problems]

    def on(self, asset: dg.AssetKey, deployment: Deployment) -> dg.AssetChecksDefinition:
        """The check of an asset."""

        @dg.asset_check(asset=asset, name=self.name, description=self.description)
        def check(context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
            with plain_failures(), store.connect() as connection:
                window = _check_window(context, connection, deployment.partitions)
                problems = self.find(connection, window)
            return check_result(problems.found, self.noun, problems.note, slices=str(window), **problems.numbers)

        return check


def _check_window(context: dg.AssetCheckExecutionContext, connection: psycopg.Connection, partitions: Partitions) -> Window:
    """The slices of the run; if it has none, those of the last days before the newest registered slice."""
    if window := partitions.tagged_window(context.run.tags):
        return window
    (newest,) = only_row(connection.execute("SELECT max(bucket_5m) FROM landing.raw_blobs_5m"))
    end = (newest or floor_slice(datetime.now(UTC))) + SLICE
    return Window(end - _LOOKBACK, end)


def check_result(problems: Sequence[object], noun: str, note: str = "", /, **metadata: int | str) -> dg.AssetCheckResult:
    """The result of a check, with the number of problems and the first of them as metadata; it passes if there is none.

    The first problem is also its description, as plain text, or else the note.

    Args:
        problems: shown as `str(problem)`.
        noun: plural noun for them; the metadata key of their number.
        note: what the result does not say if there is no problem.
        metadata: further metadata.
    """
    return WindowCheckResult(
        passed=not problems,
        description=printable(str(problems[0])) if problems else note or None,
        metadata={
            noun: len(problems),
            **metadata,
            **({"not_judged": note} if note else {}),
            "examples": dg.MetadataValue.md(bullets(problems)),
        },
    )


def bullets(problems: Sequence[object]) -> str:
    """A Markdown list of the first problems, each of them as it is."""
    listed = [f"* {escape_markdown(str(problem))}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        listed.append(f"* and {len(problems) - _SHOWN} more")
    return "\n".join(listed) or "none"
