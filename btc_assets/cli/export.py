"""Commands `export`: what the store holds, into a file, an object of S3 or a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from btc_assets.cli.app import App, example, pass_app, progress_bar
from btc_assets.cli.console import err
from btc_assets.cli.interrupts import EXIT_STATUS
from btc_assets.cli.output import BINARY, standard_output
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, parse_time

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_assets.client.relation import Relation
    from btc_assets.client.store import ClientStore
    from btc_assets.domain.progress import Listener
    from btc_assets.domain.settings import Settings

Open = Callable[[], AbstractContextManager[BinaryIO]]

_STDOUT = "-"
_FORMATS = ("parquet", "arrow", "csv", "json")
_ENDINGS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".json": "json",
}
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}  # text only: the others compress themselves


@dataclass(frozen=True)
class Export:
    """The options that all kinds of rows share.

    Attributes:
        symbols: labels of feeds; by default the only one.
        during, between: the range, in one of two ways.
        columns: names, separated by commas; all if it is not given.
        to: file, URL or `-`.
        form: the format; by default as the ending says.
        decimals: `exact` or `float`.
        force: whether a file that exists is replaced.
    """

    symbols: tuple[str, ...]
    during: str | None
    between: tuple[str, str] | None
    columns: str | None
    to: str
    form: str | None
    decimals: str
    force: bool

    @property
    def range(self) -> str | tuple[str, str]:
        """The range as the client takes it."""
        if (self.during is None) == (self.between is None):
            raise UserError("Name one range: --during 2024-01-10 (a day, a month or a year), or --between 2024-01-10 2024-01-12T13:35.")
        return self.during or self.between or ""

    def labels(self, app: App) -> list[str]:
        """The symbols, or the only one that there is."""
        return list(self.symbols) or [app.settings.landing_feeds.by_label(None).label]

    def label(self, app: App) -> str:
        """The symbol, of rows that are those of one symbol."""
        if len(self.symbols) > 1:
            raise UserError("These rows are those of one symbol: name one --symbol, and export the others into files of their own.")
        return self.labels(app)[0]

    @property
    def names(self) -> list[str] | None:
        """The columns that are wanted; None for all."""
        return [name.strip() for name in self.columns.split(",")] if self.columns is not None else None

    @property
    def compression(self) -> str | None:
        """Of the whole file, as its ending says."""
        return _COMPRESSED.get(Path(self.to).suffix)

    @property
    def format(self) -> str:
        """The format that is written.

        Raises:
            UserError: neither the ending nor --format names one.
        """
        path = Path(self.to)
        form = self.form or ("csv" if self.to == _STDOUT else _ENDINGS.get((path.with_suffix("") if self.compression else path).suffix))
        if form is None:
            endings = f"{', '.join(_ENDINGS)}, or one of text with {' or '.join(_COMPRESSED)}"
            raise UserError(f"{self.to} has no ending that names a format ({endings}): give it one, or name the format with --format.")
        if self.compression and form not in ("csv", "json"):
            raise UserError(f"{self.to} would be compressed twice, because {form} compresses itself: leave out {path.suffix}.")
        return "arrow stream" if form == "arrow" and self.to == _STDOUT else form

    def check_target(self, settings: Settings) -> None:
        """Refuse a place for the file before anything is read.

        Raises:
            UserError: it is a time, or exists.
        """
        try:
            parse_time(self.to)
        except UserError:
            pass
        else:
            raise UserError(f"--to names the file here, and {self.to} is a time: name the range with --between FROM TO.")
        from btc_assets.client.files import exists

        if self.to != _STDOUT and not self.force and exists(self.to, settings):
            raise UserError(f"{self.to} exists: name another file, or replace it with --force.")


def _refuse_from(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError("Here --to names the file, so the range has another name: --between FROM TO, or --during DAY.")


def _export_options(function: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--symbol", "symbols", multiple=True, help="Label of the feed; needed if there are several."),
        click.option("--during", "--day", "during", help="The range: a day, month or year, such as 2024-01-10 or 2024-01; UTC."),
        click.option("--between", nargs=2, metavar="FROM TO", help="The range: its start, and its end, which is exclusive; UTC."),
        click.option("--from", "_from", hidden=True, expose_value=False, callback=_refuse_from),
        click.option("--columns", help="Names of columns, separated by commas; by default all."),
        click.option("--to", required=True, help="File, s3://bucket/key, or - for standard output; the ending names the format."),
        click.option(
            "--format", "form", type=click.Choice(_FORMATS), help="By default what the ending of --to says, and csv for standard output."
        ),
        click.option("--decimals", type=click.Choice(["exact", "float"]), default="exact", show_default=True, help="Or 64-bit floats."),
        click.option("--force", is_flag=True, help="Replace the file if it exists."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group(epilog=example("btc-assets export ticks --during 2024-01 --to s3://bucket/january.parquet"))
def export() -> None:
    """Write what the store holds into a file: Parquet, Arrow IPC, CSV or JSON.

    The ending of --to names the format: .parquet, .arrow (or .feather), .csv, .json; the last two also with .gz or .zst. The file
    appears under its name once it is whole. Memory is bounded whatever the range.
    """


@export.command(epilog=example("btc-assets export ticks --during 2024-01-10 --columns trade_time,price,quantity --to day.csv.gz"))
@_export_options
@click.option(
    "--by", type=click.Choice(["event_time", "trade_time"]), default="event_time", show_default=True, help="The time that the range is of."
)
@pass_app
def ticks(app: App, /, by: str, **common: Any) -> None:
    """Write ticks."""
    options = Export(**common)
    columns = options.names and [*dict.fromkeys([*options.names, "bucket_5m"])]  # by which the progress is told
    _write(app, options, lambda store: store.ticks(options.label(app), options.range, columns, by=by))


@export.command(epilog=example("btc-assets export candles --interval 15m --between 2024-01-01 2024-02-01 --to january.parquet"))
@_export_options
@click.option("--interval", required=True, help="Such as 1m, 15m, 4h, 7d, or day, week, month in the time zone --tz.")
@click.option("--tz", default="UTC", show_default=True, help="Time zone of a calendar's interval, such as America/New_York.")
@click.option("--fill", is_flag=True, help="Also the intervals without a trade, with the close before them and no volume.")
@click.option("--wide", is_flag=True, help="One row for each interval, with columns such as close_BTCUSDT.")
@pass_app
def candles(app: App, /, interval: str, tz: str, fill: bool, wide: bool, **common: Any) -> None:
    """Write candles of any interval that those of the store make up."""
    options = Export(**common)
    _write(app, options, lambda store: store.candles(options.labels(app), interval, options.range, tz=tz, fill=fill, wide=wide))


@export.command(epilog=example("btc-assets export bars --clock dollar --size 1000000 --during 2024-01 --to bars.parquet"))
@_export_options
@click.option("--clock", required=True, help="tick, volume, dollar, time; or tick_imbalance, dollar_runs and the like (docs/bars.md).")
@click.option("--size", required=True, help="Trades, base units or quote units of a bar; on the clock time, a duration such as 1m.")
@click.option("--side", type=click.Choice(["aggressor", "tick_rule"]), default="aggressor", show_default=True, help="Of an adaptive clock.")
@pass_app
def bars(app: App, /, clock: str, size: str, side: str, **common: Any) -> None:
    """Write bars on any clock of trades, which close within the range."""
    options = Export(**common)
    _write(app, options, lambda store: store.bars(options.label(app), options.range, clock=clock, size=size, side=side))


@export.command(epilog=example("btc-assets export features --during 2024-01 --columns bucket_5m,available_at,vpin --to vpin.csv"))
@_export_options
@pass_app
def features(app: App, /, **common: Any) -> None:
    """Write the features of slices; with the column bars named in --columns, their 60 bars as well."""
    options = Export(**common)
    columns = options.names and [*dict.fromkeys([*options.names, "bucket_5m"])]
    _write(app, options, lambda store: store.features(options.label(app), options.range, columns))


@export.command(epilog=example("btc-assets export slice-bars --during 2024-01-10 --to bars.parquet"))
@_export_options
@pass_app
def slice_bars(app: App, /, **common: Any) -> None:
    """Write the bars of 5 seconds of slices, a row for each."""
    options = Export(**common)
    _write(app, options, lambda store: store.slice_bars(options.label(app), options.range))


@export.command(epilog=example("btc-assets export embeddings --during 2024-01 --to vectors.parquet"))
@_export_options
@click.option("--model", help="Id of the model; by default the active one.")
@pass_app
def embeddings(app: App, /, model: str | None, **common: Any) -> None:
    """Write the vectors of slices by a model, as arrays."""
    options = Export(**common)
    _write(app, options, lambda store: store.embeddings(options.range, symbol=options.label(app), model=model))


@export.command(epilog=example("btc-assets export slices --during 2024-01 --to slices.csv"))
@_export_options
@pass_app
def slices(app: App, /, **common: Any) -> None:
    """Write the state of each slice; of all symbols, unless some are named."""
    options = Export(**common)
    _write(app, options, lambda store: store.slices(options.range, options.symbols))


@export.command(epilog=example("btc-assets export gaps --during 2024 --to gaps.csv"))
@_export_options
@pass_app
def gaps(app: App, /, **common: Any) -> None:
    """Write the trade ids that are missing; of all symbols, unless some are named."""
    options = Export(**common)
    _write(app, options, lambda store: store.gaps(options.range, options.symbols))


def _write(app: App, options: Export, choose: Callable[[ClientStore], Relation]) -> None:
    """Write a relation; a sentence on standard error says how much it was."""
    options.check_target(app.settings)
    form, name = options.format, "standard output" if options.to == _STDOUT else options.to
    from btc_assets.client.store import connect

    with connect(settings=app.settings, decimals=options.decimals) as store:
        relation = choose(store)
        names = options.names or relation.columns
        if unknown := [each for each in names if each not in relation.columns]:
            raise UserError(f"There is no column {unknown[0]!r}: name some of {', '.join(relation.columns)}.")
        try:
            with progress_bar("exporting") as advance:
                progress = _Progress(options, advance)
                _copy(relation, names, form, partial(_opened, app, options, form), progress)
        except KeyboardInterrupt:
            err.print()
            err.print(f"Stopped: nothing was written to {name}." if options.to != _STDOUT else "Stopped.")
            raise click.exceptions.Exit(EXIT_STATUS) from None
    err.print(f"Wrote {progress.rows:,} rows to {name}.")


@contextmanager
def _opened(app: App, options: Export, form: str) -> Iterator[BinaryIO]:
    """The stream that is written; a file appears at the end, if nothing went wrong."""
    import pyarrow as pa

    from btc_assets.client.files import whole_file

    if options.to == _STDOUT:
        with standard_output(binary=form in BINARY) as stream:
            yield stream
        return
    with whole_file(options.to, app.settings) as path, path.open("wb") as file:
        if options.compression:
            with pa.CompressedOutputStream(pa.PythonFile(file, "w"), options.compression) as compressed:
                yield compressed
        else:
            yield file


def _copy(relation: Relation, names: list[str], form: str, opened: Open, progress: _Progress) -> None:
    """Write some columns of a relation; opens the stream once there are rows.

    Raises:
        UserError: there is none, and nothing was written.
    """
    import pyarrow as pa

    from btc_assets.client.formats import writing

    schema = pa.schema([relation.schema.field(name) for name in names])
    with relation.batches() as reader:
        batches = (batch for batch in reader if batch.num_rows)
        first = next(batches, None)
        if first is None:
            raise UserError(f"There are no {relation.name}, so nothing was written: see btc-assets coverage.")
        with opened() as stream, writing(form, stream, schema) as writer:
            for batch in chain([first], batches):
                writer.write(batch.select(names))
                progress.advance(batch)


class _Progress:
    """How far an export is: by the slices that its rows are of, or if these are not known, by its rows."""

    def __init__(self, options: Export, listener: Listener) -> None:
        from btc_assets.client.ranges import parse_range

        self._window, self._listener, self.rows = parse_range(options.range).window, listener, 0

    def advance(self, batch: pa.RecordBatch) -> None:
        """Tell that a batch was written."""
        self.rows += batch.num_rows
        time = next((name for name in ("bucket_5m", "bucket") if name in batch.schema.names), None)
        if time is None:
            self._listener("rows", self.rows, 0)
        else:
            newest = batch.column(time)[-1].as_py()
            self._listener("slices", max(min((newest - self._window.start) // SLICE + 1, len(self._window)), 0), len(self._window))
