"""Columns that a user brings: features and targets by the start of their slice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import KEY_FORMAT, SLICE_US, from_microseconds
from btc_assets.domain.ticks import TIME, int64

_ADVICE = "pass an Arrow table, or a data frame of Polars or pandas, with one row for each slice"
_RESERVED = {"bucket_5m", "symbol", "available_at", "bars", "target", "target_start", "target_end", "state"}


@dataclass(frozen=True)
class OwnColumns:
    """Features of a user's own.

    Attributes:
        times: starts of slices, µs, ascending [n].
        values: float64 [n, names]; NaN for what is not known.
        names: of the columns.
        digest: of all of them.
    """

    times: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    names: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, table: Any, latency: int, taken: Sequence[str] = ()) -> OwnColumns:
        """From a table with `bucket_5m`, numbers, and perhaps `available_at`: when each row was known.

        Raises:
            UserError: it is no such table, a name is taken, or a row was known later than its slice is (its end plus `latency`, µs).
        """
        rows, times = _rows(table)
        names = [name for name in rows.column_names if name not in ("bucket_5m", "available_at", "symbol")]
        if not names:
            raise UserError("The table has no column of features beside bucket_5m: add some.")
        if clash := [name for name in names if name in _RESERVED or name in taken]:
            raise UserError(f"The data set has a column {clash[0]!r} already: rename that of the table.")
        if "available_at" in rows.column_names:
            late = np.flatnonzero(_times(rows, "available_at") > times + SLICE_US + latency)
            if len(late):
                first = from_microseconds(times[late[0]])
                raise UserError(
                    f"{len(late)} rows of the table were known later than their slices, first that of {first:{KEY_FORMAT}}: a feature may "
                    "not know more than its slice, so move these rows to later slices, or give the data set a longer latency."
                )
        values = np.column_stack([_numbers(rows, name) for name in names])
        return cls(times, values, tuple(names), _digest(times, values, names))

    def at(self, starts: np.ndarray) -> np.ndarray:
        """The values of slices that start then: float64 [n, names], NaN where the table has none."""
        return look_up(self.times, self.values, starts)


@dataclass(frozen=True)
class OwnTarget:
    """A target of a user's own.

    Attributes:
        times: starts of slices, µs, ascending [n].
        target_starts, target_ends: of the spans that the targets are made of, µs [n].
        values: float64 [n]; NaN for what is not known.
        digest: of all of them.
    """

    times: np.ndarray = field(repr=False)
    target_starts: np.ndarray = field(repr=False)
    target_ends: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    digest: str

    @classmethod
    def of(cls, table: Any, latency: int) -> OwnTarget:
        """From a table with `bucket_5m`, `target`, `target_end` and perhaps `target_start`, which by default is when the slice is known.

        Raises:
            UserError: it is no such table, or a target ends before it starts, or begins before its slice is known (its end plus
                `latency`, µs).
        """
        rows, times = _rows(table)
        if missing := [name for name in ("target", "target_end") if name not in rows.column_names]:
            raise UserError(f"The table has no column {missing[0]!r}: a target needs target and target_end, the end of what it is made of.")
        known, ends = times + SLICE_US + latency, _times(rows, "target_end")
        starts = _times(rows, "target_start") if "target_start" in rows.column_names else known
        wrong = np.flatnonzero((ends <= starts) | (starts < known))
        if len(wrong):
            first = wrong[0]
            what = "begins before its slice is known" if starts[first] < known[first] else "ends before it begins"
            raise UserError(
                f"The target of {from_microseconds(times[first]):{KEY_FORMAT}} {what}: a target is what happens after the slice's end and its latency."
            )
        values = _numbers(rows, "target")
        return cls(times, starts, ends, values, _digest(times, np.stack([values, starts, ends]), ["target"]))

    def ends(self, starts: np.ndarray) -> np.ndarray:
        """When the targets of slices that start then end, µs; 0 where the table has none."""
        return np.nan_to_num(look_up(self.times, self.target_ends.astype(np.float64), starts)).astype(np.int64)

    def at(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Starts, ends and values of the targets of slices that start then; 0, 0 and NaN where the table has none."""
        began = np.nan_to_num(look_up(self.times, self.target_starts.astype(np.float64), starts)).astype(np.int64)
        return began, self.ends(starts), look_up(self.times, self.values, starts)


def look_up(times: np.ndarray, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The values [n, ...] of `times` (ascending, [n]) at other times [m]: float64 [m, ...], NaN where there is none."""
    if not len(times):
        return np.full((len(starts), *values.shape[1:]), np.nan)
    at = np.minimum(np.searchsorted(times, starts), len(times) - 1)
    found = times[at] == starts
    return np.where(found.reshape(-1, *[1] * (values.ndim - 1)), values[at], np.nan)


def _rows(table: Any) -> tuple[pa.Table, np.ndarray]:
    """A table in order of its slices, and their starts."""
    try:
        rows = pa.table(table)
    except (TypeError, ValueError):
        raise UserError(f"{type(table).__name__} is no table: {_ADVICE}.") from None
    if "bucket_5m" not in rows.column_names:
        raise UserError(f"The table has no column bucket_5m, the start of the slice: {_ADVICE}.")
    rows = rows.sort_by("bucket_5m")
    times = _times(rows, "bucket_5m")
    if (np.diff(times) <= 0).any() or (times % SLICE_US).any():
        raise UserError(f"The table's bucket_5m are not starts of slices, each once: {_ADVICE}.")
    return rows, times


def _times(rows: pa.Table, name: str) -> np.ndarray:
    column = rows[name]
    if column.null_count or not pa.types.is_timestamp(column.type):
        raise UserError(f"The table's column {name!r} holds {column.type}, {column.null_count} of them null: give times.")
    return int64(column.cast(TIME, safe=False))


def _numbers(rows: pa.Table, name: str) -> np.ndarray:
    kind = rows[name].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)):
        raise UserError(f"The table's column {name!r} holds {kind}: give numbers.")
    column = rows[name].cast(pa.int8()) if pa.types.is_boolean(kind) else rows[name]
    return column.cast(pa.float64()).fill_null(np.nan).to_numpy()


def _digest(times: np.ndarray, values: np.ndarray, names: Sequence[str]) -> str:
    return hashlib.sha256(repr(names).encode() + times.tobytes() + np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
