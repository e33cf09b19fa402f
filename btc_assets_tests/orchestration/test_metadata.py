"""Metadata of materializations."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.orchestration.metadata import add_once, add_slice_rows, column_schema, pictures
from btc_assets.store.tables import Column
from btc_assets_tests.support.trades import NOON

KEY = dg.AssetKey(["market_data", "btc_ticks"])


class Recorder:
    """A context that keeps the metadata of each partition."""

    def __init__(self) -> None:
        self.metadata: dict[str | None, dict[str, Any]] = {}

    def add_asset_metadata(self, metadata: Mapping[str, Any], asset_key: dg.AssetKey, partition_key: str | None) -> None:
        assert asset_key == KEY
        self.metadata[partition_key] = dict(metadata)


@pytest.mark.parametrize(
    ("slices", "last", "shown"),
    [(2, None, 2), (36, None, 36), (37, None, 0), (2, "2024-01-10", 0)],
    ids=["few slices", "the most", "too many", "days of history"],
)
def test_each_slice_shows_its_rows_if_there_are_few_slices(slices: int, last: str | None, shown: int) -> None:
    recorder, window = Recorder(), Window(NOON, NOON + slices * SLICE)
    add_slice_rows(recorder, KEY, window, last or (window.end - SLICE).strftime(KEY_FORMAT), {NOON: 7})
    counts = [metadata["dagster/partition_row_count"] for metadata in recorder.metadata.values()]
    assert counts == ([7] + [0] * (slices - 1) if shown else [])


def test_large_metadata_is_added_to_the_last_partition_only() -> None:
    recorder = Recorder()
    add_once(recorder, KEY, "2024-01-10T12:55Z", {"picture": "large"})
    assert recorder.metadata == {"2024-01-10T12:55Z": {"picture": "large"}}


def test_columns_show_type_comment_and_whether_they_may_be_null() -> None:
    columns = [
        Column("price", "numeric", nullable=False, has_default=False, generated=False, description="In quote currency."),
        Column("note", "text", nullable=True, has_default=False, generated=False, description=""),
    ]
    price, note = column_schema(columns)["dagster/column_schema"].columns
    assert (price.name, price.type, price.description, price.constraints.nullable) == ("price", "numeric", "In quote currency.", False)
    assert (note.description, note.constraints.nullable) == (None, True)


@pytest.mark.parametrize(("drawing", "kind"), [("<svg/>", "svg+xml"), (b"\x89PNG", "png")])
def test_a_picture_is_a_markdown_image_that_contains_its_data(drawing: str | bytes, kind: str) -> None:
    data = base64.b64encode(drawing if isinstance(drawing, bytes) else drawing.encode()).decode()
    assert pictures({"volume": drawing})["volume"].value == f"![volume](data:image/{kind};base64,{data})"
