"""What a command prints for programs: rows as CSV, JSON, Parquet or a table on standard output, and nothing else there.

`--format` is the same on every command that prints data. What the formats write is in `client.formats`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import click

from btc_assets.cli.console import leave_closed_pipe, out
from btc_assets.domain.errors import UserError
from btc_assets.domain.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["text", "integer", "number", "flag", "day", "time"]
Columns = Mapping[str, Kind]

FORMATS = ("csv", "json", "parquet", "table")


def format_option(default: str = "table", *, what: str = "what a person reads") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the option --format to a command, as the parameter `form`.

    Args:
        default: what the command prints without it.
        what: that is, in the help.
    """
    return click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default=default,
        show_default=True,
        help=f"Rows for programs, or {what}." if default == "table" else "How the rows are printed.",
    )


def part_option(*parts: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the option --part to a command that shows several tables; without it, a program gets the first of them."""
    return click.option(
        "--part", type=click.Choice(parts), help=f"Print one of its tables alone; with another --format than table, by default {parts[0]}."
    )


def print_rows(form: str, columns: Columns, rows: Iterable[Sequence[object]]) -> None:
    """Print a few rows.

    Args:
        form: one of `FORMATS`.
        columns: their names and kinds, in order.
        rows: a value for each column; None where it is not known.

    Raises:
        UserError: Parquet is asked for on a terminal.
    """
    import pyarrow as pa

    kinds: dict[Kind, pa.DataType] = {
        "text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_(), "day": pa.date32(),
        "time": pa.timestamp("us", "UTC"),
    }  # fmt: skip
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    values = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [
        pa.array([*map(_encodable, each)] if field.type == pa.string() else each, field.type)
        for each, field in zip(values, schema, strict=True)
    ]
    print_batches(form, pa.RecordBatchReader.from_batches(schema, [pa.RecordBatch.from_arrays(arrays, schema=schema)]))


def _encodable(text: Any) -> str | None:
    """Text of which a byte was no UTF-8, such as the name of a file, with an escape instead."""
    return None if text is None else str(text).encode(errors="backslashreplace").decode()


def print_batches(form: str, batches: pa.RecordBatchReader) -> None:
    """Print batches as they come; arguments and errors are those of `print_rows`."""
    from btc_assets.client.formats import writing

    if form == "table":
        _print_table(batches)
        return
    with standard_output(binary=form in BINARY) as stream, writing(form, stream, batches.schema) as writer:
        for batch in batches:
            writer.write(batch)


BINARY = ("parquet", "arrow", "arrow stream")


@contextmanager
def standard_output(*, binary: bool) -> Iterator[BinaryIO]:
    """Standard output for bytes. A reader that goes away ends the command as it would end `cat`.

    Raises:
        UserError: they are not text, and standard output is a terminal.
    """
    out.file.flush()
    stream: BinaryIO = sys.stdout.buffer
    if stream.isatty():
        if binary:
            raise UserError("These bytes are no text, and standard output is a terminal: redirect it (> FILE) or pipe it into a program.")
        stream = cast(BinaryIO, _Terminal(stream))
    try:
        yield stream
        stream.flush()
    except BrokenPipeError:
        leave_closed_pipe()


class _Terminal:
    """A terminal, which is sent no control characters that it would obey, but their escapes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: Any) -> None:
        self._stream.write("\n".join(map(printable, bytes(data).decode().split("\n"))).encode())

    def flush(self) -> None:
        self._stream.flush()


def _print_table(batches: pa.RecordBatchReader) -> None:
    from pyarrow import types
    from rich.table import Table

    from btc_assets.client.formats import cell_texts

    table = Table()
    for field in batches.schema:
        numeric = types.is_integer(field.type) or types.is_floating(field.type) or types.is_decimal(field.type)
        table.add_column(field.name, justify="right" if numeric else "left", overflow="fold")
    for batch in batches:
        for row in zip(*(cell_texts(column).to_pylist() for column in batch.columns), strict=True):
            table.add_row(*(text or "" for text in row))
    out.print(table)
