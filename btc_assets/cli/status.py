"""Command `status`: what the store holds, and how far it lags behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, new_table, parse_window, pass_app, range_options
from btc_assets.cli.console import out, styled
from btc_assets.cli.output import Columns, format_option, part_option, print_rows
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, floor_slice, parse_time

if TYPE_CHECKING:
    from btc_assets.domain.settings import Settings
    from btc_assets.landing.problems import OpenProblems
    from btc_assets.ops.health import Health
    from btc_assets.ops.status import DayStatus
    from btc_assets.signals.encoders.models import Model

_SYMBOLS_SHOWN = 10  # one by one; of more, each day is one line


@click.command(epilog=example("btc-assets status --from 2020-02-01"))
@range_options
@click.option("--problems", "limit", type=click.IntRange(min=1), default=5, show_default=True, help="How many problems to show.")
@format_option()
@part_option("days", "symbols", "reasons", "problems")
@pass_app
def status(app: App, start: str | None, end: str | None, limit: int, form: str, part: str | None) -> None:
    """Show how far the store lags behind and why, what waits for a person, and what has landed and is loaded, by day."""
    from btc_assets.landing.problems import read_problems
    from btc_assets.ops.health import read_health
    from btc_assets.ops.status import read_daily_status
    from btc_assets.signals.encoders.models import read_maintained_models

    now, settings = datetime.now(UTC), app.settings
    with app.store.connect() as connection:
        days = read_daily_status(connection, parse_window(start, end, parse_time("2009-01-03"), floor_slice(now) + SLICE))
        health = read_health(
            connection,
            settings.landing_feeds,
            now,
            grace=settings.landing_grace,
            history_start=settings.history_start,
            daemon_runs=lambda: _daemon_runs(settings, now),
        )
        problems = read_problems(connection, settings.landing_feeds.labels, limit=limit)
        health = replace(health, reasons=[*health.reasons, *_explain_lacks(settings, read_maintained_models(connection))])
    if form != "table" or part:
        _print_part(form, part or "days", days, health, problems)
        return
    if days:
        _print_days(days)
    else:
        _print_absence(app)
    _print_health(health, now)
    _print_problems(problems)
    if health.stuck:
        _print_dagster(app)


def _explain_lacks(settings: Settings, models: Sequence[Model]) -> list[str]:
    """Why models are not kept up."""
    if not models:  # what follows imports NumPy
        return []
    from btc_assets.signals.encoders.kinds import Kinds

    return [lack for model in models if (lack := Kinds.of(settings).explain_lack(model))]


def _daemon_runs(settings: Settings, now: datetime) -> bool:
    from btc_assets.orchestration.storage_address import daemon_runs

    try:
        return daemon_runs(settings, now)
    except UserError:  # the doctor says why
        return False


def _print_absence(app: App) -> None:
    from btc_assets.landing.absence import explain_absence

    out.print("Nothing is registered in that range: land objects, then run btc-assets load.")
    try:
        for sentence in explain_absence(app.landing.zone(), app.settings.landing_feeds):
            out.print(styled(sentence, "yellow"))
    except UserError as error:  # the state of the store is worth showing all the same
        out.print(styled(str(error), "yellow"))


_DAY_COLUMNS: Columns = {
    "day": "day", "symbol": "text", "objects": "integer", "bytes": "integer", "landed_rows": "integer", "loaded_rows": "integer",
    "slices": "integer", "loaded": "integer", "waiting": "integer", "gone": "integer", "missing": "integer", "rejected_objects": "integer",
    "rejected_rows": "integer",
}  # fmt: skip
_PROBLEM_COLUMNS: Columns = {"kind": "text", "what": "text", "symbol": "text", "since": "time", "sentence": "text", "command": "text"}


def _print_part(form: str, part: str, days: Sequence[DayStatus], health: Health, problems: OpenProblems) -> None:
    match part:
        case "days":
            print_rows(form, _DAY_COLUMNS, ([getattr(day, name) for name in _DAY_COLUMNS] for day in days))
        case "symbols":
            print_rows(form, {"symbol": "text", "newest": "time"}, ((each.label, each.newest) for each in health.symbols))
        case "reasons":
            print_rows(form, {"reason": "text"}, ((reason,) for reason in health.reasons))
        case _:
            print_rows(form, _PROBLEM_COLUMNS, problems.shown)


def _print_days(days: Sequence[DayStatus]) -> None:
    from btc_assets.ops.status import sum_symbols

    if len({day.symbol for day in days}) > _SYMBOLS_SHOWN:
        days = sum_symbols(days)
    table = new_table("day", "symbol", "objects", "MB", "ticks", "slices", "problems", numbers=slice(2, 6))
    for day in days:
        counts = f"{day.objects:,}", f"{day.bytes / 1e6:,.1f}", f"{day.loaded_rows:,}", f"{day.loaded:,} of {day.slices:,}"
        problems = ", ".join(day.problems())
        table.add_row(str(day.day), day.symbol, *counts, styled(problems, "red"))
    out.print(table)


def _print_health(health: Health, now: datetime) -> None:
    from btc_assets.domain.durations import format_age

    for symbol in health.symbols:
        newest = f"ticks up to {symbol.newest:%Y-%m-%d %H:%M:%S}, {format_age(symbol.newest, now)} ago" if symbol.newest else "no ticks yet"
        out.print(styled(f"{symbol.label}:", "bold"), f"{newest}.")
    waiting = health.waiting
    out.print(
        f"Slices with something to load: {len(waiting.due):,} due, {waiting.still_receiving:,} still receiving objects, {waiting.open:,} not "
        f"closed yet; candles to build: {health.candles_due:,}, features and embeddings: {health.signals_due:,}.",
    )
    for reason in health.reasons:
        out.print(styled(reason, "yellow"))


def _print_problems(problems: OpenProblems) -> None:
    for problem in problems.shown:
        out.print(styled(f"{problem.kind} since {problem.since:%Y-%m-%d %H:%M}:", "red"), f"{problem}; or {problem.command}")
    if (more := problems.count - len(problems.shown)) > 0:
        out.print(styled(f"{more:,} more problem(s): btc-assets status --problems {problems.count}", "red"))


def _print_dagster(app: App) -> None:
    """What Dagster knows of why slices are not loaded."""
    from btc_assets.orchestration.ingest import last_failure
    from btc_assets.orchestration.instance import read_instance_status

    if blocked := read_instance_status(app.settings).blocked:
        out.print(styled(blocked, "yellow"))
    if failure := last_failure():
        out.print(f"Last failed run: {failure}")
