"""From the decoded pieces of a group of objects to their rows in the registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

import numpy as np
import orjson
import pyarrow as pa

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import EPOCH
from btc_assets.domain.ticks import CONTENT, symbol_codes
from btc_assets.landing.bounds import REJECTED_ROWS
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.reading import Fetched, Piece, count_by_slice
from btc_assets.landing.registry import Readings, RegistryRow, RejectedRow
from btc_assets.landing.states import Status

_KEPT_IDS = 1_000  # of the rows of an object that are left out


class TickCount(NamedTuple):
    """The ticks that an object holds for one slice: how many, the first and last event time and trade id, how many event times."""

    rows: int
    first: datetime
    last: datetime
    first_id: int
    last_id: int
    event_times: int

    def __or__(self, other: TickCount) -> TickCount:
        return TickCount(
            self.rows + other.rows,
            min(self.first, other.first),
            max(self.last, other.last),
            min(self.first_id, other.first_id),
            max(self.last_id, other.last_id),
            self.event_times + other.event_times,
        )


_Count: TypeAlias = tuple[int, datetime | None, datetime | None, int | None, int | None, int | None]
_NO_TICKS: _Count = (0, None, None, None, None, None)


@dataclass
class LeftOut:
    """The rows of one symbol in which nothing was traded: how many of each kind, and the first of their trade ids.

    The ids belong to the exchange's sequence, so that they explain where it seems to skip.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    ids: list[int] = field(default_factory=list)


@dataclass
class ObjectContent:
    """What the pieces of one object add up to.

    Attributes:
        slices: the ticks by symbol label and slice.
        rejected_rows: number, slice if it is known, reason and text of the first rows that are no valid trades.
        rejected_count: how many rows are no valid trades.
        left_out: rows in which nothing was traded, by symbol label.
        extra_columns: columns that no known producer sends.
        repeated, contradicting: rows that repeat a trade of the same object, with the same content and with other content.
    """

    slices: dict[tuple[str, datetime], TickCount] = field(default_factory=dict)
    rejected_rows: list[tuple[int, datetime | None, str, str]] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    rejected_count: int = 0
    extra_columns: set[str] = field(default_factory=set)
    repeated: int = 0
    contradicting: int = 0

    @property
    def left_out_rows(self) -> int:
        """How many rows are left out."""
        return sum(left_out.kinds.total() for left_out in self.left_out.values())


def collect_contents(count: int, pieces: Iterable[Piece]) -> list[ObjectContent]:
    """The contents of a group of `count` objects, from the pieces that were decoded of it."""
    contents = [ObjectContent() for _ in range(count)]
    for piece in pieces:
        _add_ticks(contents, piece)
        _add_repeats(contents, piece)
        _add_rejected_rows(contents, piece)
        _add_left_out_rows(contents, piece)
        if piece.decoded.extra_columns:
            for position in np.unique(piece.tick_object).tolist():
                contents[position].extra_columns.update(piece.decoded.extra_columns)
    return contents


def _add_ticks(contents: Sequence[ObjectContent], piece: Piece) -> None:
    counted = count_by_slice(piece.decoded.ticks, piece.tick_object)
    columns = (column.to_pylist() for column in counted.columns)
    for position, label, bucket, *count in zip(*columns, strict=True):
        slices, ticks = contents[position].slices, TickCount(*count)
        before = slices.get((label, bucket))
        slices[label, bucket] = ticks if before is None else before | ticks


def _add_repeats(contents: Sequence[ObjectContent], piece: Piece) -> None:
    """Count the rows of a piece that repeat a trade of the same object."""
    ticks, owner = piece.decoded.ticks, piece.tick_object
    trade_id = ticks["trade_id"].to_numpy()
    if ((trade_id[1:] > trade_id[:-1]) | (owner[1:] != owner[:-1])).all():
        return  # the common case: the ids of each object ascend, so none repeats
    keys = [trade_id, symbol_codes(ticks), owner]
    order = np.lexsort(keys)
    same = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    some = order[np.concatenate([same, [False]]) | np.concatenate([[False], same])]
    repeats = ticks.take(some).select(["symbol", "trade_id", *CONTENT]).append_column("object", pa.array(owner[some], pa.int64()))
    versions = repeats.group_by(["object", "symbol", "trade_id", *CONTENT], use_threads=False).aggregate([([], "count_all")])
    trades = versions.group_by(["object", "symbol", "trade_id"], use_threads=False).aggregate([([], "count_all"), ("count_all", "sum")])
    for position, different, rows in zip(*(trades[name].to_pylist() for name in ("object", "count_all", "count_all_sum")), strict=True):
        contents[position].repeated += rows - different
        contents[position].contradicting += different - 1


def reject_misread_ids(group: Sequence[Fetched], contents: Sequence[ObjectContent]) -> None:
    """Reject the objects whose trade ids cannot be any: more than half of their different rows repeat an id with another content.

    Rows that are the same to the last digit are one, so an object in which every trade stands ten times passes, and so does one that
    holds two contradicting versions of a trade; an asset check reports those. Of an object that is decoded in pieces, rows are compared
    with those of the same piece.
    """
    for fetched, content in zip(group, contents, strict=True):
        rows = sum(ticks.rows for ticks in content.slices.values()) - content.repeated
        if not fetched.rejected and content.contradicting * 2 > rows:
            fetched.rejected = (
                f"{content.contradicting} of its {rows} different rows repeat a trade id of the same object with another price, quantity, "
                "side or time, so its trade ids are none: land it with the ids that the exchange gave the trades"
            )


def _add_rejected_rows(contents: Sequence[ObjectContent], piece: Piece) -> None:
    rejected = zip(piece.rejected_object.tolist(), piece.rejected_row.tolist(), piece.decoded.rejected.to_pylist(), strict=True)
    for position, number, row in rejected:
        bucket = None if row["bucket_us"] is None else EPOCH + timedelta(microseconds=row["bucket_us"])
        if len(contents[position].rejected_rows) < REJECTED_ROWS:
            contents[position].rejected_rows.append((number, bucket, row["reason"], row["record"]))
    positions, counts = np.unique(piece.all_rejected_object, return_counts=True)
    for position, count in zip(positions.tolist(), counts.tolist(), strict=True):
        contents[position].rejected_count += count


def reject_without_valid_rows(group: Sequence[Fetched], contents: Sequence[ObjectContent]) -> None:
    """Mark the objects as `rejected` that hold rows, and not one valid trade."""
    for fetched, content in zip(group, contents, strict=True):
        if content.rejected_rows and not content.slices and not content.left_out and not fetched.rejected:
            number, _, reason, _ = min(content.rejected_rows, key=lambda row: row[0])
            fetched.rejected = f"none of its {content.rejected_count:,} row(s) is a valid trade (the first, row {number}: {reason})"


def _add_left_out_rows(contents: Sequence[ObjectContent], piece: Piece) -> None:
    for position, row in zip(piece.left_out_object.tolist(), piece.decoded.left_out.to_pylist(), strict=True):
        left_out = contents[position].left_out.setdefault(row["symbol"], LeftOut())
        left_out.kinds[row["trade_kind"]] += 1
        if len(left_out.ids) < _KEPT_IDS:
            left_out.ids.append(row["trade_id"])


def build_readings(group: Sequence[Fetched], contents: Sequence[ObjectContent], feeds: Feeds) -> Readings:
    """What the registry records of a group.

    Args:
        group: objects that were read; those that proved unreadable are marked `rejected`.
        contents: of each object; that of an unreadable one is ignored.
        feeds: what lands there.
    """
    rows: list[RegistryRow] = []
    rejected_rows: list[RejectedRow] = []
    for fetched, decoded in zip(group, contents, strict=True):
        obj, content = fetched.obj, ObjectContent() if fetched.rejected else decoded
        rows += _registry_rows(fetched, content, feeds.by_prefix(obj.prefix))
        rejected_rows += _rejected_rows(obj, content)
    return Readings([fetched.obj for fetched in group], rows, rejected_rows)


def _rejected_rows(obj: LandedObject, content: ObjectContent) -> list[RejectedRow]:
    rows = [
        RejectedRow(obj.uri, obj.etag, number, bucket or obj.home_slice, reason, record, 1)
        for number, bucket, reason, record in content.rejected_rows
    ]
    if rows:  # the last one stands for those that are not kept
        rows[-1] = rows[-1]._replace(row_count=1 + content.rejected_count - len(rows))
    return rows


def _registry_rows(fetched: Fetched, content: ObjectContent, feeds: Feeds) -> list[RegistryRow]:
    obj = fetched.obj
    status = Status.REJECTED if fetched.rejected else Status.REGISTERED
    # An object without a valid row has a row in the registry all the same, under the slice of its folder: it landed, and was read.
    slices: dict[tuple[str, datetime], _Count] = {**content.slices}
    labels = {label for label, _ in slices}
    for label in content.left_out.keys() - labels or ({feeds[0].label} if not labels else ()):
        slices[label, obj.home_slice] = _NO_TICKS
    return [
        RegistryRow(
            bucket, label, obj.uri, obj.etag, obj.size, *ticks,
            fetched.format, status.value, fetched.rejected, orjson.dumps(_metadata(fetched, content, label)).decode(), obj.last_modified,
        )
        for (label, bucket), ticks in slices.items()
    ]  # fmt: skip


def _metadata(fetched: Fetched, content: ObjectContent, label: str) -> dict[str, object]:
    metadata: dict[str, object] = {"verified": fetched.verified} | fetched.notes
    if content.rejected_rows:
        metadata["rejected_rows"] = content.rejected_count
    if label in content.left_out:
        metadata["left_out"] = dict(content.left_out[label].kinds)
        metadata["left_out_ids"] = content.left_out[label].ids
    if content.extra_columns:
        metadata["extra_columns"] = sorted(content.extra_columns)
    return metadata
