"""Objects without a trade that can be read: each is rejected alone, with one sentence, and its neighbor is loaded."""

from __future__ import annotations

import pytest

from btc_assets.domain.slices import Window
from btc_assets_tests.support import hostile
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every


@pytest.mark.parametrize("kind", hostile.OBJECTS)
def test_a_hostile_object_is_rejected_alone(store: StoreUnderTest, kind: str) -> None:
    store.land(every(1, 300))
    uri = store.put(f"{NOON:%Y/%m/%d/%H/%M}/hostile", hostile.OBJECTS[kind]())
    registered = store.register(Window.of_slice(NOON))
    assert registered.rejected == 1
    (sentence,) = registered.rejections
    assert sentence.startswith(f"{uri}: ") and len(sentence.splitlines()) == 1 and len(sentence) < 2_000
    assert store.load(Window.of_slice(NOON)).rows == 300
