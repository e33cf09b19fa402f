"""Asset checks of slices, for all rooms: how one is declared, which slices it covers, and how its result is shown."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple, TypeVar

import dagster as dg
import psycopg

from btc_assets.domain.printable import escape_markdown, printable, unescape_markdown
from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.orchestration.dagster_private import WindowCheckResult
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.partitions import Partitions
from btc_assets.store.database import Store, only_row

Found = TypeVar("Found")

_MORE = re.compile(r"and \d+ more")
_SHOWN = 50  # problems in the metadata of a result
_LOOKBACK = timedelta(days=7)  # of a check that runs without a range
_NEWEST = """
SELECT max(bucket_5m) FROM landing.raw_blobs_5m
WHERE bucket_5m NOT IN (SELECT bucket_5m FROM ingestion.due_slices WHERE asset = 'market_data/btc_ticks')
"""


@dataclass(frozen=True)
class Problems:
    """Result of a check, which passes if there is no problem.

    Attributes:
        found: the problems; `str(problem)` is a sentence.
        numbers: further metadata.
        note: what the result does not say if there is no problem.
        count: how many problems there are, if `found` holds the first ones alone.
    """

    found: Sequence[object]
    numbers: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    count: int | None = None


@dataclass(frozen=True)
class SliceCheck:
    """Declaration of a check of the slices of a run.

    Attributes:
        name: of the check.
        description: what holds if it passes.
        noun: plural noun for its problems, such as `gaps`; the metadata key of their number.
        find: finds the problems in a window of slices.
        whole_store: it looks at the whole store, whatever the window.
    """

    name: str
    description: str
    noun: str
    find: Callable[[psycopg.Connection, Window], Problems]
    whole_store: bool = False

    def result(self, asset: dg.AssetKey, connection: psycopg.Connection, window: Window) -> dg.AssetCheckResult:
        """What the check finds in a window."""
        problems = self.find(connection, window)
        covered = {} if self.whole_store else {"slices": str(window)}
        target, count = CheckTarget(asset, self.name), problems.count
        return check_result(problems.found, self.noun, problems.note, target, count, **covered, **problems.numbers)


def check_slices(name: str, checks: Sequence[tuple[dg.AssetKey, SliceCheck]], deployment: Deployment) -> dg.AssetChecksDefinition:
    """Checks of assets that are one step of a run: it costs Dagster less than a step each, and they can share what they read.

    Args:
        name: of the step.
        checks: each with its asset. Any of them can be run alone.
        deployment: what the assets are built from.
    """
    specs = [dg.AssetCheckSpec(check.name, asset=asset, description=check.description) for asset, check in checks]

    @dg.multi_asset_check(name=name, specs=specs, can_subset=True)
    def run_checks(context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]) -> Iterator[dg.AssetCheckResult]:
        selected = context.selected_asset_check_keys
        with plain_failures(), store.connect() as connection:
            window = _check_window(context, connection, deployment.partitions)
            for asset, check in checks:
                if dg.AssetCheckKey(asset, check.name) in selected:
                    yield check.result(asset, connection, window)

    return run_checks


class Shared(Generic[Found]):
    """What several checks of one step read once.

    Args:
        read: reads it in a window of slices.
    """

    def __init__(self, read: Callable[[psycopg.Connection, Window], Found]) -> None:
        self._read = read
        self._last: tuple[psycopg.Connection, Window, Found] | None = None

    def __call__(self, connection: psycopg.Connection, window: Window) -> Found:
        """What was read last, if that was through the same connection: a step opens one, and the next step another."""
        if self._last is None or self._last[0] is not connection or self._last[1] != window:
            self._last = connection, window, self._read(connection, window)
        return self._last[2]


def _check_window(context: dg.AssetCheckExecutionContext, connection: psycopg.Connection, partitions: Partitions) -> Window:
    """The slices of the run; if it has none, those of the last days before the newest registered slice that is not loaded while open."""
    if window := partitions.tagged_window(context.run.tags):
        return window
    (newest,) = only_row(connection.execute(_NEWEST))
    end = (newest or floor_slice(datetime.now(UTC))) + SLICE
    return Window(end - _LOOKBACK, end)


class CheckTarget(NamedTuple):
    """Which check of a step a result belongs to."""

    asset: dg.AssetKey
    check: str


def check_result(
    problems: Sequence[object],
    noun: str,
    note: str = "",
    target: CheckTarget | None = None,
    count: int | None = None,
    /,
    **metadata: int | str,
) -> dg.AssetCheckResult:
    """The result of a check, with the number of problems and the first of them as metadata; it passes if there is none.

    The first problem is also its description, as plain text, or else the note.

    Args:
        problems: shown as `str(problem)`.
        noun: plural noun for them; the metadata key of their number.
        note: what the result does not say if there is no problem.
        target: needed if the step has several checks.
        count: how many problems there are, if that is not all.
        metadata: further metadata.
    """
    return WindowCheckResult(
        asset_key=target.asset if target else None,
        check_name=target.check if target else None,
        passed=not problems,
        description=printable(str(problems[0])) if problems else note or None,
        metadata={
            noun: len(problems) if count is None else count,
            **metadata,
            **({"not_judged": note} if note else {}),
            "examples": dg.MetadataValue.md(bullets(problems, count)),
        },
    )


def bullets(problems: Sequence[object], count: int | None = None) -> str:
    """A Markdown list of the first problems, each of them as it is; `count` is how many there are, if that is not all."""
    listed = [f"* {escape_markdown(str(problem))}" for problem in problems[:_SHOWN]]
    if (more := (len(problems) if count is None else count) - len(listed)) > 0:
        listed.append(f"* and {more} more")
    return "\n".join(listed) or "none"


def read_bullets(markdown: str) -> list[str]:
    """The problems that `bullets` lists, without the line that tells how many more there are."""
    lines = [line.removeprefix("* ") for line in markdown.split("\n") if line.startswith("* ")]
    return [unescape_markdown(line) for line in lines if not _MORE.fullmatch(line)]
