"""What the commands of all rooms share: the console, the options for a range, and the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener
from btc_assets.domain.slices import SLICE, Window, parse_time

out = Console()


def example(text: str) -> str:
    return f"\b\nExample:\n  {text}"


def from_to(function: Callable[..., None]) -> Callable[..., None]:
    function = click.option("--to", "end", help="First moment that is not wanted; UTC. A bare date is its midnight.")(function)
    return click.option("--from", "start", help="First moment, such as 2020-02-22 or 2020-02-22T13:35Z; UTC.")(function)


def save_picture(path: Path, png: bytes) -> None:
    """Write a picture.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        path.write_bytes(png)
    except OSError as error:
        raise UserError(f"The picture {path} cannot be written ({error.strerror}): name a file in a directory of yours.") from None


def window_of(start: str | None, end: str | None, default_start: datetime, default_end: datetime) -> Window:
    first = parse_time(start) if start else default_start
    return Window.covering(first, parse_time(end) if end else max(default_end, first + SLICE))


@contextmanager
def bar(title: str, window: Window | None) -> Iterator[Listener]:
    """A progress bar for what the work reports, one line a stage."""
    from btc_assets.domain import progress

    columns = (TextColumn(title), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=False) as shown:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total or None)
            shown.update(tasks[stage], completed=done, total=total or None)

        with progress.listening(advance):
            yield advance
        for task in shown.tasks:
            if task.total is None:
                shown.update(task.id, total=task.completed)
