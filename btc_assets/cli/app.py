"""What commands share: the store that the settings name, tables, the options for a range, and the progress bar.

Commands import what they need inside their functions: `--help` and `db` must not wait for Dagster, nor `status` for matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from btc_assets.cli.console import err
from btc_assets.cli.interrupts import EXIT_STATUS, STOPPED
from btc_assets.domain.errors import UserError
from btc_assets.domain.printable import printable
from btc_assets.domain.slices import KEY_FORMAT, LAST_SLICE, SLICE, Window, floor_day, parse_time

if TYPE_CHECKING:
    import psycopg

    from btc_assets.domain.progress import Listener
    from btc_assets.domain.settings import Settings
    from btc_assets.landing.resources import Landing
    from btc_assets.store.database import Store


class App:
    """The settings, the store and the landing zone of one invocation, each made when a command first needs it.

    Args:
        settings: of the store; by default, those of the environment.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        if settings:
            self.settings = settings

    @cached_property
    def settings(self) -> Settings:
        """The settings; raises `UserError` if one is wrong."""
        from btc_assets.domain.settings import load_settings

        return load_settings()

    @cached_property
    def store(self) -> Store:
        """The store that the settings name."""
        from btc_assets.store.database import Store

        return Store.of(self.settings)

    @cached_property
    def landing(self) -> Landing:
        """The landing zone that the settings name."""
        from btc_assets.landing.resources import Landing

        return Landing(self.settings)

    def prepare_dagster(self) -> Path:
        """Create DAGSTER_HOME if it does not exist, set the variable for this process and its children, and return it."""
        from btc_assets.orchestration.home import prepare_dagster_home
        from btc_assets.orchestration.partitions_start import record_start

        record_start(self.settings)
        return prepare_dagster_home(self.settings)

    def set_up_embedded_database(self) -> None:
        """Migrate the embedded database and apply its policies; on any other server, that is for its owner to decide."""
        from btc_assets.market_data.candles import create_optional_candles
        from btc_assets.ops.policies import declared_policies
        from btc_assets.ops.retention_jobs import apply_policies
        from btc_assets.store.migrations import migrate

        if self.settings.dsn is None:
            with self.store.connect() as connection:
                migrate(connection)
                if self.settings.candles_100ms:
                    create_optional_candles(connection)
                apply_policies(connection, declared_policies(self.settings))


class PlainErrorsGroup(click.Group):
    """A group that shows a `UserError`, and an error of the server that a person can correct, as one line."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(printable(str(error))) from None
        except KeyboardInterrupt:
            err.print()
            err.print(STOPPED)
            ctx.exit(EXIT_STATUS)
        except (click.ClickException, click.exceptions.Exit, click.Abort):  # what follows imports what is slow
            raise
        except Exception as error:
            from btc_assets.store.errors import plain_error

            if plain := plain_error(error):
                raise click.ClickException(printable(str(plain))) from None
            raise


pass_app = click.make_pass_decorator(App)


def example(text: str) -> str:
    """The epilog of a command's help."""
    return f"\b\nExample:\n  {text}"


def new_table(*headings: str, numbers: slice, title: str | None = None) -> Table:
    """A table whose columns `numbers` are aligned to the right."""
    table = Table(*headings, title=title)
    for column in table.columns[numbers]:
        column.justify = "right"
    return table


def range_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options --from and --to to a command."""
    function = click.option("--to", "end", help="End of the range, exclusive; UTC. A bare date is its midnight.")(function)
    return click.option("--from", "start", help="Start of the range, such as 2020-02-22 or 2020-02-22T13:35Z; UTC.")(function)


def parse_window(start: str | None, end: str | None, default_start: datetime, default_end: datetime) -> Window:
    """The slices of a range; an end that is not given has a default."""
    first = parse_time(start) if start else default_start
    return Window.covering(first, parse_time(end) if end else max(default_end, min(first, LAST_SLICE - SLICE) + SLICE))


def newest_day(connection: psycopg.Connection) -> datetime:
    """The newest day with ticks, or today."""
    newest = connection.execute("SELECT max(bucket_5m) FROM landing.raw_blobs_5m WHERE loaded_rows > 0").fetchone()
    return floor_day(newest[0] if newest and newest[0] else datetime.now(UTC))


def parse_past_time(text: str | None) -> datetime | None:
    """The start of a range of what is stored; None if it is not given.

    Raises:
        UserError: it is no time, or lies in the future.
    """
    time = parse_time(text) if text else None
    if time is not None and time > datetime.now(UTC):
        raise UserError(f"The range starts in the future, at {time:{KEY_FORMAT}}, where nothing is stored: name an earlier one.")
    return time


def plot_option(what: str, ending: str = ".png") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the option --plot to a command. It refuses another ending before any work is done: viewers go by it.

    Args:
        what: the command saves, in the help.
        ending: of the files that it writes.
    """

    def check(_context: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() != ending:
            raise UserError(f"The picture is written as {kind}, and {path} does not end in {ending}: name a file that does.")
        return path

    kind = ending.removeprefix(".").upper()
    return click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), callback=check, help=f"{what} ({kind}).")


def save_picture(path: Path, png: bytes) -> None:
    """Write a picture.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        path.write_bytes(png)
    except OSError as error:
        raise UserError(f"The picture {path} cannot be written ({error.strerror}): name a file in a writable directory.") from None


@contextmanager
def progress_bar(title: str) -> Iterator[Listener]:
    """A progress bar with a line for each stage; yields the listener that advances it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    texts = TextColumn(title, markup=False), TextColumn("{task.description}", markup=False)
    with Progress(*texts, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err, transient=False) as shown:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total or None)
            shown.update(tasks[stage], completed=done, total=total or None)

        yield advance
        for task in shown.tasks:
            if task.total is None:
                shown.update(task.id, total=task.completed)
