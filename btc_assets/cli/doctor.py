"""Command `doctor`: checks everything that the store needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, pass_app
from btc_assets.cli.console import out, styled
from btc_assets.cli.output import format_option, print_rows
from btc_assets.domain.slices import SLICE

if TYPE_CHECKING:
    from btc_assets.domain.settings import Settings
    from btc_assets.ops.findings import Finding

_MOST_PARTITIONS = 20_000  # of an asset, with which its pages open within 2 s
_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(epilog=example("btc-assets doctor"))
@format_option()
@pass_app
def doctor(app: App, form: str) -> None:
    """Check everything that the store needs, and say what to do if something is missing."""
    from btc_assets.ops.doctor import examine_store

    findings = []
    for finding in examine_store(app.settings, lambda: examine_dagster(app.settings)):
        findings.append(finding)
        if form == "table":  # as they come
            out.print(styled(f"{finding.state:7}", _COLORS[finding.state]), styled(f"{finding.subject}:", "bold"), finding.text)
    if form != "table":
        print_rows(form, {"state": "text", "subject": "text", "text": "text"}, ((each.state, each.subject, each.text) for each in findings))
    if any(finding.state == "problem" for finding in findings):
        sys.exit(1)


def examine_dagster(settings: Settings) -> Iterator[Finding]:
    """Whether Dagster's instance opens, and whether a daemon runs."""
    from btc_assets.ops.findings import Finding
    from btc_assets.orchestration.home import missing_options
    from btc_assets.orchestration.instance import read_instance_status

    status = read_instance_status(settings)
    if status.daemons:
        yield Finding("Dagster", "ok", f"instance in {status.home}; daemon running ({', '.join(status.daemons).lower()}).")
    else:
        yield Finding(
            "Dagster",
            "warning",
            f"instance in {status.home}; no daemon runs, so no schedule and no sensor does: start btc-assets dev or dagster-daemon.",
        )
    if status.blocked:
        yield Finding("Dagster", "problem", status.blocked)
    if lacking := missing_options(status.home):
        text = f"dagster.yaml in {status.home} was edited and lacks {', '.join(lacking)}: add them, or delete the file for this version's."
        yield Finding("Dagster", "warning", text)
    slices = (datetime.now(UTC) - settings.first_slice) // SLICE
    if slices > _MOST_PARTITIONS:
        text = f"{slices:,} slices have a partition, and Dagster's pages become slow: move their start with btc-assets ops move-start (docs/production.md#dagster)."
        yield Finding("Dagster", "warning", text)
