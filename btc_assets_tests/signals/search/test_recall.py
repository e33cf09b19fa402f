"""Recall of an index against exact search."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from btc_assets.domain.slices import SLICE
from btc_assets.signals.search.recall import compute_recall, measure_recall, sample_neighbors
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

START = datetime(2024, 1, 10, tzinfo=UTC)


def test_recall_is_the_share_of_exact_neighbors_that_were_found() -> None:
    one, two, three = (START + i * SLICE for i in range(3))
    assert compute_recall({one: {two}, two: {three}}, {one: {two, three}, two: {one, three}}) == 0.5
    assert compute_recall({}, {}) == 1.0


def test_queries_are_spread_over_time_and_do_not_find_themselves(on_postgres: psycopg.Connection) -> None:
    model = registered_model(on_postgres, dim=8)
    write_vectors(on_postgres, model, market_like(100, 8), START)
    sampled = sample_neighbors(on_postgres, model, exact=True, queries=4)
    assert sorted(sampled) == [START + i * SLICE for i in (0, 25, 50, 75)]
    assert all(len(nearest) == 10 and query not in nearest for query, nearest in sampled.items())
    assert measure_recall(on_postgres, model) == 1.0  # without an index, all vectors are compared
