"""Command `load`: loads a range of slices, from the landing zone to the checks."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, new_table, pass_app, progress_bar, range_options
from btc_assets.cli.console import err, out, styled
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import KEY_FORMAT, Window, parse_time

if TYPE_CHECKING:
    from btc_assets.landing.sources import ObjectCount
    from btc_assets.orchestration.ingest import IngestReport

_GAPS_CHECK = " trade_ids_contiguous"  # of the ticks, and of those of the history


@click.command(epilog=example("btc-assets load --from 2020-02-22 --to 2020-02-23"))
@range_options
@click.option("--force", is_flag=True, help="Also replace slices that were loaded from an object that no longer exists.")
@click.option("--reread", is_flag=True, help="Read registered objects again, as after a change of the feeds.")
@click.option("--new-landing", is_flag=True, help="Load from a landing zone that the store knows nothing of, beside the one it knows.")
@pass_app
def load(app: App, start: str | None, end: str | None, force: bool, reread: bool, new_landing: bool) -> None:
    """Load a range of slices: register what landed, load ticks, build candles, run the checks."""
    if not start or not end:
        raise UserError("Name the range with --from and --to, such as --from 2020-02-22 --to 2020-02-23.")
    window = what_is_over(Window.covering(parse_time(start), parse_time(end)), datetime.now(UTC))
    app.set_up_embedded_database()
    report = run_ingest(app, window, force=force, reread=reread, new_landing=new_landing)
    landed = count_landed(app, report.window)
    if landed.any_ever:
        print_report(report, landed.objects, count_candles(app, report.window))
    print_failed_checks(app, report)
    _print_what_is_missing(app, report)
    if not landed.any_ever:
        raise UserError(f"0 objects: nothing landed between {report.window.start:{KEY_FORMAT}} and {report.window.end:{KEY_FORMAT}}.")
    if not report.checks_passed:
        sys.exit(2)


def what_is_over(window: Window, now: datetime) -> Window:
    """The slices of a window that are over; says so if that is not all of them.

    Raises:
        UserError: none is over.
    """
    over = window.until(now)
    if over is None:
        raise UserError(
            f"The range starts at {window.start:{KEY_FORMAT}}, and that slice is not over yet (now it is {now:%Y-%m-%dT%H:%M:%SZ}): "
            "load it once it is over."
        )
    if over != window:
        err.print(f"The range ends after the present: loading what is over, up to {over.end:{KEY_FORMAT}}.")
    return over


def print_report(report: IngestReport, objects: int, candles: int) -> None:
    """Print what a run loaded.

    Args:
        report: of the run.
        objects: that cover its slices.
        candles: of its slices.
    """
    headings = "objects", "slices", "ticks", "candles", "seconds", "ticks/s"
    table = new_table(*headings, numbers=slice(None), title=f"Loaded {report.window}")
    table.add_row(
        f"{objects:,}", f"{report.slices:,}", f"{report.ticks:,}", f"{candles:,}", f"{report.seconds:.1f}",
        f"{report.ticks / report.seconds:,.0f}",
    )  # fmt: skip
    out.print(table)
    if report.checks_passed:
        out.print(f"All {report.checks} asset checks passed.")


def print_failed_checks(app: App, report: IngestReport) -> None:
    """Print the problems that checks found: the first ones of each, and all gaps."""
    for name, check in report.failed_checks.items():
        problems = check.first
        if name.endswith(_GAPS_CHECK) and check.count > len(problems):
            problems = _read_gaps(app, check.window)
        failed = styled("check failed", "red")
        if check.count == 1:
            out.print(failed, f"{name}: {problems[0]}")
            continue
        out.print(failed, f"{name}: {check.count:,} {check.noun}")
        for problem in problems:
            out.print(f"  {problem}")
        if (more := check.count - len(problems)) > 0:
            out.print(f"  and {more:,} more")


def _read_gaps(app: App, window: Window) -> list[str]:
    from btc_assets.market_data.continuity import read_gaps

    with app.store.connect() as connection:
        return [str(gap) for gap in read_gaps(connection, window, app.settings.landing_feeds.labels_with_gaps)]


def _print_what_is_missing(app: App, report: IngestReport) -> None:
    """Say that nothing was listed, with what lies there instead, and which strays there are."""
    from btc_assets.landing.absence import explain_absence
    from btc_assets.landing.strays import read_strays, summarize

    feeds = app.settings.landing_feeds
    if not report.objects:
        out.print(styled(f"Nothing was listed in the folders of {report.window}.", "yellow"))
        for sentence in explain_absence(app.landing.zone(), feeds):
            out.print(styled(sentence, "yellow"))
    if report.strays:
        with app.store.connect() as connection:
            out.print(styled(summarize(*read_strays(connection, feeds.labels)), "yellow"))


def run_ingest(app: App, window: Window, *, force: bool = False, reread: bool = False, new_landing: bool = False) -> IngestReport:
    """Run the job `ingest` over a window in this process, with a progress bar and without retries."""
    from btc_assets.assembly import LOADING_ASSETS, build_definitions
    from btc_assets.orchestration.ingest import IngestOptions, ingest
    from btc_assets.orchestration.partitions import Partitions

    app.prepare_dagster()
    with progress_bar("loading") as advance:
        definitions = build_definitions(app.settings, patient=False, progress=advance)
        return ingest(definitions, LOADING_ASSETS, Partitions.of(app.settings), window, IngestOptions(force, reread, new_landing))


def count_landed(app: App, window: Window) -> ObjectCount:
    """How many objects cover the slices of a window, and whether any ever did."""
    from btc_assets.landing.sources import count_objects

    with app.store.connect() as connection:
        return count_objects(connection, window)


def count_candles(app: App, window: Window) -> int:
    """Number of candles of all intervals in a window."""
    from btc_assets.market_data.candles import enabled_intervals
    from btc_assets.store.tables import count_rows

    with app.store.connect() as connection:
        return sum(
            sum(count_rows(connection, f"market_data.candles_{interval}", window, time_column="bucket").values())
            for interval in enabled_intervals(app.settings)
        )
