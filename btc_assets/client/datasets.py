"""Data sets for learning: rows of slices that train and rows that test, and no way for the one to know the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from btc_assets.client.ranges import RangeLike, TimeRange, clip_to_trades, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import Source
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, MICROSECOND, Window
from btc_assets.signals.datasets.own_columns import OwnColumns, OwnTarget
from btc_assets.signals.datasets.plan import COMPLETE, Plan, Split
from btc_assets.signals.datasets.source import PartSource, RowSource
from btc_assets.signals.datasets.spans import Span, to_span
from btc_assets.signals.datasets.targets import Target
from btc_assets.signals.features.bars import CHANNELS
from btc_assets.signals.features.formulas import FEATURES

if TYPE_CHECKING:
    import torch

    from btc_assets.signals.datasets.torch_rows import TorchRows

_AT_ONCE = 7 * DAY  # of rows that are read at once
_JUDGED = 4032  # slices by which leaks are looked for: two weeks
_BUFFER = 10_000  # rows that are shuffled at once

INCOMPLETE = ("drop", "mask")


class Rows(Relation):
    """The rows of a data set that train, or those that test."""

    def __init__(self, name: str, source: Source, part: PartSource, windows: Sequence[Window]) -> None:
        super().__init__(name, part.rows.plan.schema, lambda: self._open_rows(part), settings=source.settings)
        self._part, self._windows = part, windows

    def _open_rows(self, part: PartSource) -> pa.RecordBatchReader:
        def batches() -> Iterator[pa.RecordBatch]:
            for window in _pieces(self._windows):
                yield from part.read(window).to_batches()

        return pa.RecordBatchReader.from_batches(self.schema, batches())

    def torch(  # how rows are handed out, each by its keyword
        self,
        *,
        batch_size: int | None = None,
        shuffle: int | bool = True,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> TorchRows:
        """The complete rows as an iterable data set of PyTorch, which reads the store as it is iterated over.

        A sample is a dictionary of tensors: `features` [f] in the order of their names, `bars` [60, channels] and `target` [] if there are
        some, and `bucket_5m` [], µs since 1970. A `DataLoader` with several workers gives each of them other rows.

        Args:
            batch_size: rows in a sample, for a `DataLoader(…, batch_size=None)`: ten times as fast as if that one put them together.
            shuffle: how many rows are shuffled at once, at least (True: 10,000), in blocks of days in random order; False: none, in order
                of time.
            seed: the same seed gives the same order, another one in each epoch.
            dtype: of features, bars and targets; `torch.float32` if omitted.
            rank, world_size: which of how many processes that train together.

        Raises:
            UserError: PyTorch is not installed, or a number is out of range.
        """
        from btc_assets.signals.encoders.torch_extra import calm_threads

        if find_spec("torch") is None:
            raise UserError("PyTorch is not installed: pip install 'btc-assets[torch]'.")
        calm_threads()
        import torch

        from btc_assets.signals.datasets.order import Order, cut_blocks
        from btc_assets.signals.datasets.torch_rows import Delivery, TorchRows

        buffer = _BUFFER if shuffle is True else int(shuffle)
        if buffer < 0 or (batch_size is not None and batch_size < 1) or not 0 <= rank < world_size:
            raise UserError(
                f"shuffle={shuffle}, batch_size={batch_size}, rank={rank} of world_size={world_size} do not fit: shuffle 0 or more rows, in "
                "batches of 1 or more, for a rank below the size."
            )
        part = self._part.complete()
        order = Order(cut_blocks(self._windows), buffer, seed)
        return TorchRows(part.rows.plan, part.read, order, Delivery(batch_size, dtype or torch.float32, rank, world_size))


@dataclass(frozen=True)
class Dataset:
    """Rows of slices with features and targets, split into what trains and what tests; nothing is read yet.

    Attributes:
        source: the store.
        plan: what the rows consist of.
        split: which train and which test.
    """

    source: Source
    plan: Plan
    split: Split

    @cached_property
    def train(self) -> Rows:
        """The rows that train: those that keep clear of what is tested."""
        return self._rows("training rows", self.split.train, self.split)

    @cached_property
    def test(self) -> Rows:
        """The rows that test.

        Raises:
            UserError: the data set has no range to test on.
        """
        if not self.split.test:
            raise UserError("This data set has no rows to test on: give store.dataset a range as test=…")
        return self._rows("test rows", self.split.test, None)

    def with_features(self, table: Any) -> Dataset:
        """The data set with columns of your own as further features.

        Args:
            table: an Arrow table or a data frame with `bucket_5m`, numbers, and perhaps `available_at`, when each row was known.

        Raises:
            UserError: it is no such table, or a row of it was known later than its slice.
        """
        if self.plan.own:
            raise UserError("This data set has columns of your own already: join both tables and pass them at once.")
        return replace(self, plan=replace(self.plan, own=OwnColumns.of(table, self.plan.latency, self.plan.features)))

    def with_target(self, table: Any) -> Dataset:
        """The data set with targets of your own in place of its own.

        Args:
            table: an Arrow table or a data frame with `bucket_5m`, `target`, `target_end` (the end of what the target is made of, by which
                rows are purged) and perhaps `target_start` (by default when the slice is known).

        Raises:
            UserError: it is no such table, or a target begins before its slice is known.
        """
        return replace(self, plan=replace(self.plan, target=OwnTarget.of(table, self.plan.latency)))

    def walk_forward(self, folds: int, *, expanding: bool = True) -> list[Dataset]:
        """Data sets that test one part of the test range after the other and train on what is before it.

        Args:
            folds: how many.
            expanding: train on everything from the beginning of the training range; otherwise on as much as the first of them does.

        Raises:
            UserError: train and test are not one range each, one after the other, or there are more folds than slices.
        """
        return [replace(self, split=split) for split in self.split.walk_forward(folds, expanding=expanding)]

    def count(self) -> dict[str, dict[str, int]]:
        """How many slices of `train` and `test` are complete rows, and why the others are not: all rows are read for it."""
        found: dict[str, dict[str, int]] = {}
        source = RowSource(self.source.store.dsn, replace(self.plan, mask=True))
        for name, windows in (("train", self.split.train), ("test", self.split.test)):
            states: Counter[str] = Counter()
            for window in _pieces(windows):
                rows = source.read(window)
                kept = PartSource(source, self.split).keep(rows) if name == "train" else rows
                states.update(kept["state"].to_pylist())
                if len(rows) > len(kept):
                    states["purged"] += len(rows) - len(kept)
            found[name] = dict(sorted(states.items(), key=lambda item: (item[0] != COMPLETE, item[0])))
        return found

    def check_leaks(self, slices: int = _JUDGED) -> list[str]:
        """Look for inputs that know what they cannot know, by the alarms of `btc-assets evaluate`.

        Neighbors of each slice by one column, and by all of them, forecast the next slice and the target. An alarm is that they do it
        better than a market allows, or better than what came before the slice. It finds features of the future, targets among the
        features and targets that were shifted into their slice. It does not prove that there is no leak: what is too weak to help a
        forecast of so many slices is not seen, and neither are bars and models that were trained on the test.

        Args:
            slices: how many of the newest slices are judged; twice as many take four times as long.

        Returns:
            A sentence for each sign of a leak; none if there is none.

        Raises:
            UserError: too few slices, or no columns but bars.
        """
        from btc_assets.signals.datasets.leaks import find_dataset_leaks, newest_windows
        from btc_assets.signals.evaluation.dataset import SOURCES
        from btc_assets.signals.features.table import fetch_features

        if not self.plan.inputs:
            raise UserError("This data set has no columns to judge but bars, whose leaks do not show: name some features.")
        windows = newest_windows(self.split, slices)
        rows = RowSource(self.source.store.dsn, replace(self.plan, mask=False, channels=()))
        read = [rows.read(piece) for piece in _pieces(windows)]
        with self.source.store.connect() as connection:
            features = [fetch_features(connection, self.plan.symbol, window, SOURCES) for window in windows]
        return find_dataset_leaks(rows.plan, self.split, pa.concat_tables(read), pa.concat_tables(features))

    def _rows(self, what: str, windows: Sequence[Window], split: Split | None) -> Rows:
        part = PartSource(RowSource(self.source.store.dsn, self.plan), split)
        return Rows(f"{what} of {self.plan.symbol}, {', '.join(map(str, windows))}", self.source, part, windows)

    def __repr__(self) -> str:
        train, test = (", ".join(map(str, windows)) or "nothing" for windows in (self.split.train, self.split.test))
        return f"<data set of {self.plan.symbol}: {len(self.plan.inputs)} features, train {train}, test {test}>"


def dataset(  # noqa: PLR0913  # what it consists of, each by its keyword
    source: Source,
    symbol: str,
    features: Sequence[str] | None,
    *,
    train: RangeLike,
    test: RangeLike | None,
    bars: bool | Sequence[str],
    target: str | None,
    horizon: Span,
    purge: Span,
    embargo: Span,
    latency: Span | None,
    incomplete: str,
) -> Dataset:
    """As `ClientStore.dataset`."""
    if incomplete not in INCOMPLETE:
        raise UserError(f'incomplete={incomplete!r} is unknown: write incomplete="drop" or incomplete="mask".')
    trained, tested = _windows(train), _windows(test) if test is not None else ()
    source.catalog.require([symbol], TimeRange(trained[0].start, trained[-1].end))
    channels = [channel.name for channel in CHANNELS] if bars is True else _names(bars or ())
    plan = Plan(
        symbol,
        tuple(feature.name for feature in FEATURES) if features is None else _names(features),
        tuple(channels),
        Target(target, to_span("horizon", horizon)) if target else None,
        latency=source.latency // MICROSECOND if latency is None else to_span("latency", latency),
        mask=incomplete == "mask",
        contiguous=symbol not in source.unjudged(),
    )
    return Dataset(source, plan, Split(trained, tested, to_span("purge", purge), to_span("embargo", embargo)))


def _windows(ranges: RangeLike) -> tuple[Window, ...]:
    """The slices that a range touches, or that those of a list of ranges touch: in order, each once."""
    several = isinstance(ranges, list) and all(isinstance(each, tuple | list | Window | TimeRange) for each in ranges)
    found: list[Window] = []
    asked = (parse_range(each).window for each in (ranges if several else [ranges]))
    for window in sorted(clip_to_trades(window) or window for window in asked):
        if found and window.start <= found[-1].end:
            found[-1] = Window(found[-1].start, max(window.end, found[-1].end))
        else:
            found.append(window)
    if not found:
        raise UserError("A list of ranges is empty: name at least one.")
    return tuple(found)


def _pieces(windows: Sequence[Window]) -> Iterator[Window]:
    """Windows in pieces that are read at once."""
    for window in windows:
        start = window.start
        while start < window.end:
            end = min(start + _AT_ONCE, window.end)
            yield Window(start, end)
            start = end


def _names(names: object) -> tuple[Any, ...]:
    """One name or several."""
    return (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
