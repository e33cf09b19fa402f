"""Command `coverage`: which days can be trusted, as a calendar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btc_assets.cli.app import App, example, parse_past_time, pass_app, plot_option, range_options, save_picture
from btc_assets.cli.console import err, out, styled
from btc_assets.cli.output import format_option, print_batches
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import floor_day, parse_time

if TYPE_CHECKING:
    from rich.text import Text

    from btc_assets.client.calendar import Calendar

_LISTED = 10  # days that are not complete, in words
_YEAR = timedelta(days=364)
_TRUSTED = ("complete", "dropped", "nothing")
_MARGIN = 4  # for the names of weekdays


@click.command(epilog=example("btc-assets coverage --from 2024-01-01 --to 2025-01-01 --plot 2024.png"))
@range_options
@click.option("--symbol", "symbols", multiple=True, help="Label of a feed; by default all that are stored.")
@plot_option("Save the calendar as a picture instead")
@format_option()
@pass_app
def coverage(app: App, start: str | None, end: str | None, symbols: tuple[str, ...], plot: Path | None, form: str) -> None:
    """Show which days can be trusted, as a calendar of each symbol; by default of the last year.

    A day has the first of these marks that holds: R objects or rows were rejected, P something waits to be loaded, G trades are missing,
    / the symbol begins or ends within the day, D it was complete and its ticks were dropped by the retention, a dot: it is complete.
    """
    first = parse_past_time(start)
    from btc_assets.client.store import connect

    last = parse_time(end) if end else datetime.now(UTC)
    with connect(settings=app.settings) as store:
        table = store.coverage((first or floor_day(last) - _YEAR, last), list(symbols)).arrow()
    rows = _known(table.to_pylist(), keep_start=start is not None, keep_end=end is not None)
    if not rows:
        raise UserError("Nothing of that range is stored: land objects, then run btc-assets load.")
    if form != "table":
        print_batches(form, table.from_pylist(rows, table.schema).to_reader())
    if plot:
        from btc_assets.client.calendar import plot_calendars

        save_picture(plot, plot_calendars(_calendars(rows)))
        (out if form == "table" else err).print(f"Saved the calendar to {plot}.")
    elif form == "table":
        for whole in _calendars(rows):
            for calendar in whole.years():
                _print_calendar(calendar, [row for row in rows if row["symbol"] == calendar.symbol and row["day"] in calendar])


def _known(rows: list[dict[str, Any]], *, keep_start: bool, keep_end: bool) -> list[dict[str, Any]]:
    """The days of a range without those at its ends of which nothing is stored, unless a person named that end; none if there is nothing."""
    known = [row["day"] for row in rows if row["state"] != "nothing"]
    if not known:
        return []
    return [row for row in rows if (keep_start or row["day"] >= min(known)) and (keep_end or row["day"] <= max(known))]


def _calendars(rows: Sequence[dict[str, Any]]) -> list[Calendar]:
    """A calendar of each symbol, all of the same days."""
    from btc_assets.client.calendar import Calendar

    days = [row["day"] for row in rows]
    words: dict[str, dict[date, str]] = {}
    for row in rows:
        words.setdefault(row["symbol"], {})[row["day"]] = row["state"]
    return [Calendar(symbol, min(days), max(days), own) for symbol, own in words.items()]


def _print_calendar(calendar: Calendar, rows: Sequence[dict[str, Any]]) -> None:
    from rich.text import Text

    from btc_assets.client.calendar import format_days

    out.print(styled(f"Coverage of {calendar.symbol}, {calendar.first} to {calendar.last} (UTC)", "bold"))
    for line in _calendar_lines(calendar, out.width):
        out.print(line)
    legend = Text(" " * _MARGIN)
    for mark, count in calendar.counts().items():
        legend.append(f" {mark.letter} ", mark.style).append(f" {mark.word}: {format_days(count)}   ")
    out.print(legend)
    wrong = [row for row in rows if row["state"] not in _TRUSTED]
    for row in wrong[:_LISTED]:
        out.print(f"    {row['day']}  {_describe(row)}")
    if len(wrong) > _LISTED:
        out.print(f"    and {len(wrong) - _LISTED:,} more days: --format csv lists all.")
    out.print()


def _describe(row: dict[str, Any]) -> str:
    """What the counts of a day say, in words."""
    counts = {
        "missing trades": row["missing_trades"], "slices to load": row["pending"], "slices without objects": row["missing"],
        "rejected objects": row["rejected_objects"], "rejected rows": row["rejected_rows"],
    }  # fmt: skip
    return ", ".join([f"{row['state']} ({row['loaded']:,} of {row['slices']:,} slices loaded)", *_counted(counts)])


def _counted(counts: dict[str, int | None]) -> list[str]:
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def _calendar_lines(calendar: Calendar, width: int) -> Iterator[Text]:
    """A calendar for a terminal, in as many blocks as its width makes necessary."""
    from rich.text import Text

    from btc_assets.client.calendar import WEEKDAYS

    placed = {calendar.place(day): mark for day, mark in calendar.days()}
    months = calendar.months()
    across = max((width - _MARGIN) // 2, 4)
    for start in range(0, calendar.weeks, across):
        weeks = range(start, min(start + across, calendar.weeks))
        yield Text(_month_line(months, weeks))
        for weekday, name in enumerate(WEEKDAYS):
            line = Text(f"{name} ")
            for week in weeks:
                mark = placed.get((week, weekday))
                line.append(f"{mark.letter} " if mark else "  ", mark.style if mark else "")
            yield line
    yield Text()


def _month_line(months: dict[int, str], weeks: range) -> str:
    """The names of months above the weeks in which they begin, as far as there is room."""
    line = " " * _MARGIN
    for week, name in sorted(months.items()):
        at = _MARGIN + 2 * (week - weeks.start)
        if week in weeks and (at == _MARGIN or len(line) < at <= _MARGIN + 2 * len(weeks) - len(name)):
            line = f"{line:{at}}{name}"
    return line
