"""Prefetching hands over the same items, one ahead, and stops in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from btc_assets.store.prefetch import Prefetch
from btc_assets_tests.support.waiting import PATIENCE_SECONDS


def test_items_come_in_their_order() -> None:
    with Prefetch(range(100)) as items:
        assert list(items) == list(range(100))


def test_the_next_item_is_prepared_while_the_current_one_is_used() -> None:
    prepared = [threading.Event() for _ in range(3)]

    def numbers() -> Iterator[int]:
        for number, event in enumerate(prepared):
            event.set()
            yield number

    with Prefetch(numbers()) as items:
        for number in items:
            assert all(event.wait(PATIENCE_SECONDS) for event in prepared[: number + 2])


def test_an_exception_comes_after_the_items_before_it() -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise ValueError("the source broke")

    seen = []
    with pytest.raises(ValueError, match="the source broke"), Prefetch(breaks()) as items:
        for item in items:
            seen.append(item)
    assert seen == [1]


def test_leaving_stops_the_iterator_in_its_thread() -> None:
    closed_in: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed_in.append(threading.current_thread().name)

    with Prefetch(endless()) as items:
        assert next(iter(items)) == 1
    assert closed_in == ["prefetch"]
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}
