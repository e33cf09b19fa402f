"""Metadata of materializations, under the keys that Dagster's UI understands."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import dagster as dg
import psycopg

from btc_assets.domain.printable import escape_markdown
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.store.replace import Replacements
from btc_assets.store.tables import Column

# Dagster's cost of metadata for single partitions grows with the square of the range: 30 ms for these, 2 s for a day.
_SLICES_SHOWN = 36


@dataclass(frozen=True)
class Shown:
    """What the UI shows about committed rows, besides their number.

    Attributes:
        metadata: of every slice of the run.
        slice_rows: number of rows of each slice that has any.
        pictures: SVG drawings by name, of the last slice of the run.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    slice_rows: Mapping[datetime, int] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """An output whose metadata is more than the number of rows.

    Attributes:
        replacements: the rows.
        show: reads what to show, once they are committed.
    """

    replacements: Replacements
    show: Callable[[psycopg.Connection], Shown]


class MaterializationContext(Protocol):
    """The context of a running asset, or of its step."""

    def add_asset_metadata(self, metadata: Mapping[str, Any], asset_key: dg.AssetKey, partition_key: str | None) -> None:
        """Add metadata to the materialization of an asset, of one partition if given."""


def add_slice_rows(context: MaterializationContext, key: dg.AssetKey, window: Window, last: str, rows: Mapping[datetime, int]) -> None:
    """Show the number of rows of each slice, unless the run has many of them or its partitions are days.

    Args:
        context: of the asset.
        key: of the asset.
        window: the slices of the run.
        last: key of its last partition.
        rows: by slice; slices without rows may be missing.
    """
    if len(window) <= _SLICES_SHOWN and last == (window.end - SLICE).strftime(KEY_FORMAT):
        for bucket in window.slices():
            context.add_asset_metadata({"dagster/partition_row_count": rows.get(bucket, 0)}, key, bucket.strftime(KEY_FORMAT))


def add_once(context: MaterializationContext, key: dg.AssetKey, last: str, metadata: Mapping[str, Any]) -> None:
    """Show large metadata with the last partition of the run only.

    Dagster stores the metadata of a range run with each of its slices, 288 times a day; the asset's page shows that of the last one.
    """
    context.add_asset_metadata(metadata, key, last)


def column_schema(columns: Iterable[Column]) -> dict[str, dg.TableSchema]:
    """Columns with type, nullability and comment, for the list in the UI."""
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[dg.TableColumn(c.name, c.type, c.description or None, dg.TableColumnConstraints(nullable=c.nullable)) for c in columns]
        )
    }


def pictures(drawings: Mapping[str, str | bytes]) -> dict[str, dg.MarkdownMetadataValue]:
    """Drawings by name, SVG as text or PNG as bytes, as Markdown images that contain their data, which the UI shows."""

    def image(name: str, drawing: str | bytes) -> str:
        kind, data = ("svg+xml", drawing.encode()) if isinstance(drawing, str) else ("png", drawing)
        return f"![{escape_markdown(name)}](data:image/{kind};base64,{base64.b64encode(data).decode()})"

    return {name: dg.MetadataValue.md(image(name, drawing)) for name, drawing in drawings.items()}
