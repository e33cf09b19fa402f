"""Streaming rows to PyTorch: each row once whoever shares them, and the same rest after taking up again."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE, SLICE_US, Window, to_microseconds
from btc_assets.domain.ticks import TIME
from btc_assets.signals.datasets.order import Order, Position, cut_blocks, stream_buffers
from btc_assets.signals.datasets.plan import Plan
from btc_assets.signals.datasets.targets import Target
from btc_assets.signals.datasets.torch_rows import Delivery, TorchRows

START = datetime(2024, 1, 10, tzinfo=UTC)
PLAN = Plan("BTCUSDT", ("volume", "log_return"), ("close", "volume"), Target("return", 300_000_000))


def window(slices: int) -> Window:
    return Window(START, START + slices * SLICE)


def read_rows(window: Window) -> pa.Table:
    """A row for every slice but each seventh, with the number of the slice as its features and target."""
    starts = np.arange(to_microseconds(window.start), to_microseconds(window.end), SLICE_US)
    starts = starts[starts // SLICE_US % 7 > 0]
    numbers = (starts - to_microseconds(START)) // SLICE_US
    values = pa.array(numbers.astype(np.float64))
    bars = pa.array(np.repeat(numbers, 120).astype(np.float32))
    shaped = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(bars, 2), 60)
    times = pa.array(starts).cast(TIME)
    columns = [
        times,
        pa.repeat("BTCUSDT", len(starts)),
        times,
        values,
        values,
        shaped,
        times,
        times,
        values,
        pa.repeat("complete", len(starts)),
    ]
    return pa.Table.from_arrays(columns, schema=PLAN.schema)


def expected(slices: int) -> list[int]:
    first = to_microseconds(START) // SLICE_US
    return [number for number in range(slices) if (first + number) % 7]


def rows(slices: int = 400, *, buffer: int = 50, seed: int = 3, **delivery: object) -> TorchRows:
    return TorchRows(PLAN, read_rows, Order(cut_blocks([window(slices)]), buffer, seed), Delivery(**delivery))  # type: ignore[arg-type]


def numbers(samples: object) -> list[int]:
    return [int(value) for sample in samples for value in np.atleast_1d(sample["target"].numpy())]  # type: ignore[attr-defined]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=3))
def test_blocks_cover_the_windows_once_and_in_order(lengths: list[int]) -> None:
    windows = [Window(START + i * 30 * DAY, START + i * 30 * DAY + length * SLICE) for i, length in enumerate(lengths)]
    blocks = cut_blocks(windows)
    assert [start for block in blocks for start in block.slices()] == [start for each in windows for start in each.slices()]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 5), st.sampled_from([0, 1, 17, 1000]), st.integers(0, 2**40), st.integers(0, 3))
def test_shards_together_hand_out_each_row_once(slices: int, shards: int, buffer: int, seed: int, epoch: int) -> None:
    order = Order(cut_blocks([window(slices)]), buffer, seed)
    found = [
        int(value)
        for shard in range(shards)
        for _, table in stream_buffers(order, read_rows, Position(epoch), shard, shards)
        for value in table["target"].to_pylist()
    ]
    assert sorted(found) == expected(slices)
    if not buffer and shards == 1:
        assert found == expected(slices)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 400), st.sampled_from([0, 1, 60, 1000]), st.sampled_from([None, 1, 16]))
def test_after_taking_up_the_same_rows_remain(k: int, buffer: int, batch_size: int | None) -> None:
    whole = list(rows(buffer=buffer, batch_size=batch_size))
    interrupted = rows(buffer=buffer, batch_size=batch_size)
    stream = iter(interrupted)
    taken = [next(stream) for _ in range(min(k, len(whole)))]
    state = pickle.loads(pickle.dumps(interrupted.state_dict()))
    resumed = rows(buffer=buffer, batch_size=batch_size)
    resumed.load_state_dict(state)
    assert numbers(taken) + numbers(resumed) == numbers(whole)
    assert numbers(resumed) != numbers(whole) or not buffer  # the next epoch


def test_rows_are_shuffled_anew_in_each_epoch_and_by_each_seed() -> None:
    one = rows()
    first, second = numbers(one), numbers(one)
    assert sorted(first) == sorted(second) == expected(400)
    assert first != second
    assert numbers(rows()) == first
    assert numbers(rows(seed=4)) != first
    later = rows()
    later.set_epoch(1)
    assert numbers(later) == second
    assert numbers(rows(buffer=0)) == expected(400)


def test_rows_are_tensors_of_the_asked_type() -> None:
    sample = next(iter(rows(buffer=0)))
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "bucket_5m": (),
        "features": (2,),
        "bars": (60, 2),
        "target": (),
    }
    assert {sample[name].dtype for name in ("features", "bars", "target")} == {torch.float32}
    batch = next(iter(rows(buffer=0, batch_size=8, dtype=torch.float64)))
    assert batch["bars"].shape == (8, 60, 2)
    assert batch["features"].dtype == torch.float64
    assert (batch["bars"][:, 0, 0] == batch["target"]).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_with_workers_hands_out_each_row_once(workers: int) -> None:
    loader = DataLoader(rows(), batch_size=16, num_workers=workers)
    assert sorted(numbers(loader)) == expected(400)


def test_processes_that_train_together_get_other_rows() -> None:
    parts = [numbers(rows(rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(chain.from_iterable(parts)) == expected(400)


def test_a_worker_that_was_done_stays_done_until_the_epoch_is_over() -> None:
    one = rows()
    assert len(numbers(one)) == len(expected(400))
    state = one.state_dict()
    resumed = rows()
    resumed.load_state_dict(state)
    assert numbers(resumed) == []
    other = rows()
    other.set_epoch(1)
    assert numbers(resumed) == numbers(other)


@pytest.mark.parametrize("change", [{"seed": 4}, {"buffer": 51}, {"slices": 300}, {"rank": 1, "world_size": 2}])
def test_a_state_of_other_rows_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"^This state is of other rows"):
        rows(**change).load_state_dict(rows().state_dict())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [0, 1, 5, 11])
def test_a_stateful_loader_goes_on_where_it_was(workers: int, batches: int) -> None:
    loader_of = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    make: Callable[[], object] = lambda: loader_of(rows(), batch_size=16, num_workers=workers)  # noqa: E731
    whole = numbers(make())
    first = make()
    stream = iter(first)  # type: ignore[call-overload]
    taken = numbers([next(stream) for _ in range(batches)])
    second = make()
    second.load_state_dict(first.state_dict())  # type: ignore[attr-defined]
    assert taken + numbers(second) == whole
