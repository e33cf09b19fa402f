"""What the asset checks of all rooms share: the slices they look at, and a result that costs no enumeration."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import psycopg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.orchestration.partitions import run_slices

if TYPE_CHECKING:
    from dagster._core.execution.context.system import StepExecutionContext

_SHOWN = 50


def check_window(context: dg.AssetCheckExecutionContext, connection: psycopg.Connection) -> Window:
    """The slices that a check looks at: those of its run, or where it runs by itself, the last week that has landed."""
    if window := run_slices(context.run.tags):
        return window
    newest = connection.execute("SELECT max(bucket_5m) FROM landing.raw_blobs_5m").fetchone()
    end = (newest[0] if newest and newest[0] else floor_slice(datetime.now(UTC))) + SLICE
    return Window(end - timedelta(days=7), end)


class WindowCheckResult(dg.AssetCheckResult):
    """A check result that points at the asset's newest materialisation by asking for it.

    Dagster finds that event by way of the data versions of *all* partitions, whose keys it lists first: 10 seconds a
    check for three years of slices.
    """

    def to_asset_check_evaluation(self, step_context: "StepExecutionContext") -> dg.AssetCheckEvaluation:
        key, spec = _check_of(step_context)
        latest = step_context.instance.fetch_materializations(key, limit=1).records
        return dg.AssetCheckEvaluation(
            check_name=spec.name,
            asset_key=key,
            passed=self.passed,
            metadata=self.metadata,
            severity=self.severity,
            description=self.description,
            blocking=spec.blocking,
            target_materialization_data=(
                AssetCheckEvaluationTargetMaterializationData(
                    run_id=latest[0].run_id, storage_id=latest[0].storage_id, timestamp=latest[0].timestamp
                )
                if latest
                else None
            ),
        )


def _check_of(step_context: "StepExecutionContext") -> tuple[dg.AssetKey, dg.AssetCheckSpec]:
    (spec,) = step_context.job_def.asset_layer.get_assets_def_for_node(step_context.node_handle).check_specs  # type: ignore[union-attr]
    return spec.asset_key, spec


def check_result(window: Window, problems: Sequence[object], name: str, **numbers: int) -> dg.AssetCheckResult:
    """Passed where there is no problem; else the first of them, each as its sentence.

    Args:
        window: the slices that were looked at.
        problems: what was found.
        name: what they are, as a metadata key.
        numbers: further metadata.
    """
    return problems_result(problems, name, slices=str(window), **numbers)


def problems_result(problems: Sequence[object], name: str, **metadata: int | str) -> dg.AssetCheckResult:
    """The same for what is not a matter of slices."""
    return WindowCheckResult(
        passed=not problems, metadata={name: len(problems), **metadata, "examples": dg.MetadataValue.md(bullets(problems))}
    )


def bullets(problems: Sequence[object]) -> str:
    """The first of them as a list in Markdown."""
    listed = [f"* {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        listed.append(f"* and {len(problems) - _SHOWN} more")
    return "\n".join(listed) or "none"
