"""A relation: rows that are not read yet, and the ways out of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from btc_assets.client.conversions import to_numpy, to_pandas, whole_vectors
from btc_assets.domain.errors import UserError

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandas as pd
    import polars as pl

    from btc_assets.domain.settings import Settings

Open = Callable[[], pa.RecordBatchReader]
OpenHead = Callable[[int], pa.RecordBatchReader]


class Relation:
    """Rows of the store that nobody has read yet; what every method of a `ClientStore` returns.

    Each way out reads the rows anew, and all of them give the same rows in the same order. Whatever takes Arrow (Polars, DuckDB,
    pandas, pyarrow) takes a relation as it is, through `__arrow_c_stream__`.

    Args:
        name: what it is, with its range, as `repr` shows it.
        schema: of the batches.
        open_batches: starts reading.
        open_head: starts reading where only so many rows are wanted; it may give more.
        settings: of the store; `to_parquet` needs them for S3.
    """

    def __init__(
        self, name: str, schema: pa.Schema, open_batches: Open, *, open_head: OpenHead | None = None, settings: Settings | None = None
    ) -> None:
        self.name, self.schema = name, schema
        self._open, self._open_head, self._settings = open_batches, open_head, settings

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def batches(self) -> pa.RecordBatchReader:
        """The rows as a stream of record batches, in bounded memory whatever the range.

        The reader holds a session of the server until it is exhausted or deleted; `close()` of pyarrow does not end it.

        Raises:
            TransientError: while it is read: the server ended the session. What was read until then is not all.
        """
        return whole_vectors(self._open())

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        return self.batches().read_all()

    def polars(self) -> pl.DataFrame:
        """All rows as a Polars data frame; decimals stay decimals, vectors are arrays."""
        return _module("polars", "Polars").from_arrow(self.arrow())

    def pandas(self) -> pd.DataFrame:
        """All rows as a pandas data frame.

        Decimals are `decimal128` columns of Arrow (exact, and pandas computes with them); integers that may be missing are `Int64`.
        """
        return to_pandas(_module("pandas", "pandas"), self.arrow())

    def numpy(self) -> dict[str, np.ndarray]:
        """All rows as one array for each column, by name.

        Times are `datetime64[us]` in UTC, vectors have a second dimension (bars of slices a third), text and decimals are objects (with
        `decimals="float"`, decimals are float64). Where values may be missing, integers and truth values are masked arrays, and floats
        are NaN.
        """
        return to_numpy(self.arrow())

    def duckdb(self, con: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """A DuckDB relation, which reads the store whenever it is executed.

        Args:
            con: connection that it belongs to; DuckDB's default one if omitted.
        """
        module = _module("duckdb", "DuckDB")
        return (con or module).from_arrow(self)

    def to_parquet(self, to: str | PathLike[str]) -> int:
        """Write all rows to a Parquet file (zstd), which appears only once it is whole.

        Args:
            to: path of a file, or `s3://bucket/key`.

        Returns:
            Number of rows.

        Raises:
            UserError: it cannot be written there.
            TransientError: the server went away; nothing was written.
        """
        from btc_assets.client.files import whole_file, write_parquet

        with whole_file(to, self._settings) as path:
            return write_parquet(self.batches(), path)

    def head(self, n: int = 5) -> pa.Table:
        """The first rows as an Arrow table, without reading the others.

        Raises:
            UserError: `n` is below 0.
        """
        if n < 0:
            raise UserError(f"The first {n} rows cannot be read: name 0 or more.")
        rows: list[pa.RecordBatch] = []
        reader = self._open_head(n) if self._open_head else self._open()
        while sum(map(len, rows)) < n:
            try:
                rows.append(reader.read_next_batch())
            except StopIteration:
                break
        table = pa.Table.from_batches(rows, self.schema)
        return table.take(pa.array(range(min(n, len(table))), pa.int64()))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.batches().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(self.columns)}>"


def _module(name: str, title: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"{title} is not installed: pip install 'btc-assets[{name}]'.") from None
