"""No neighbor may know the future, and the nearest are the nearest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY_US, HOUR_US, SLICE_US
from btc_assets.signals.evaluation import neighbors
from btc_assets.signals.evaluation.neighbors import Neighbors, admissible, count_violations, nearest_neighbors, random_neighbors

MIDNIGHT = 19_732 * DAY_US  # 2024-01-10


def slices(*numbers: int) -> np.ndarray:
    """Starts of slices, by their number since midnight."""
    return MIDNIGHT + np.array(numbers, np.int64) * SLICE_US


times_with_gaps = st.sets(st.integers(0, 1000), min_size=1, max_size=80).map(lambda numbers: slices(*sorted(numbers)))
embargoes = st.integers(0, 400).map(lambda minutes: minutes * 60_000_000)


@given(times_with_gaps, embargoes, st.booleans(), st.integers(0, 2**32))
def test_no_neighbor_breaks_purge_embargo_or_the_rule_of_days(times: np.ndarray, embargo: int, same_day: bool, seed: int) -> None:
    ends = admissible(times, times, embargo=embargo, same_day=same_day)
    found = nearest_neighbors(np.random.default_rng(seed).normal(size=(len(times), 3)), ends, np.arange(len(times)), 5)
    for query, indices in zip(times, found.indices, strict=True):
        for neighbor in times[indices[indices >= 0]]:
            assert neighbor + SLICE_US <= query - embargo
            assert neighbor + 2 * SLICE_US <= query  # its label has ended
            assert same_day or neighbor // DAY_US < query // DAY_US
    assert count_violations(times, times, found.indices, embargo=embargo, same_day=same_day) == 0


@given(times_with_gaps, embargoes, st.booleans())
def test_every_slice_that_breaks_no_rule_is_admissible(times: np.ndarray, embargo: int, same_day: bool) -> None:
    for query, end in zip(times, admissible(times, times, embargo=embargo, same_day=same_day), strict=True):
        following = np.arange(end, len(times))[None]
        assert count_violations(times, np.array([query]), following, embargo=embargo, same_day=same_day) == following.size


def test_the_rules_by_example() -> None:
    times = slices(*range(-288, 288))
    assert times[admissible(times, slices(0))[0] - 1] == slices(-13)  # ends at 23:00, an hour before midnight
    assert times[admissible(times, slices(144))[0] - 1] == slices(-1)  # at noon the whole day before, nothing of this one
    assert times[admissible(times, slices(144), same_day=True)[0] - 1] == slices(131)
    assert times[admissible(times, slices(144), same_day=True, embargo=0)[0] - 1] == slices(142)  # 143's next slice is the query


@pytest.mark.parametrize(
    ("neighbor", "broken"), [(-1, 0), (0, 1), (135, 1), (143, 1), (144, 1), (145, 1)], ids=["before", "day", "embargo", "label", "itself", "future"]
)  # fmt: skip
def test_violations_are_counted_for_any_choice_of_neighbors(neighbor: int, broken: int) -> None:
    times = slices(*range(-288, 288))
    assert count_violations(times, slices(144), np.array([[288 + neighbor, -1]])) == broken


def test_a_negative_embargo_is_an_error() -> None:
    with pytest.raises(UserError, match="embargo"):
        admissible(slices(0), slices(0), embargo=-HOUR_US)


def search_exhaustively(vectors: np.ndarray, end: int, row: int, k: int) -> list[int]:
    if not np.isfinite(vectors[row]).all():
        return [-1] * k
    distances = {i: float(((vectors[i] - vectors[row]) ** 2).sum()) for i in range(end) if np.isfinite(vectors[i]).all()}
    order = sorted(distances, key=lambda i: distances[i])[:k]
    return order + [-1] * (k - len(order))


@pytest.mark.parametrize("cells", [1, 100, 1 << 23])
def test_neighbors_equal_an_exhaustive_search_for_any_block_size(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "_CELLS", cells)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 4)) + 1000
    vectors[[3, 17, 40]] = np.nan
    rows, ends = np.arange(10, 60), np.maximum(np.arange(10, 60) - 13, 0)
    found = nearest_neighbors(vectors, ends, rows, 5)
    assert found.indices.tolist() == [search_exhaustively(vectors, int(end), int(row), 5) for end, row in zip(ends, rows, strict=True)]
    assert (np.isfinite(found.distances) == (found.indices >= 0)).all()
    one = found.indices[-1, 0]
    assert found.distances[-1, 0] == pytest.approx(np.linalg.norm(vectors[one] - vectors[59]), rel=1e-4)


def test_without_vectors_there_are_no_neighbors() -> None:
    assert (nearest_neighbors(np.full((5, 2), np.nan), np.arange(5), np.arange(5), 3).indices == -1).all()


def test_the_mean_is_over_neighbors_whose_value_is_known() -> None:
    found = Neighbors(np.array([[0, 1], [1, 2], [2, -1], [-1, -1]]), np.zeros((4, 2)))
    assert found.mean(np.array([1.0, 3.0, np.nan])) == pytest.approx([2.0, 3.0, np.nan, np.nan], nan_ok=True)


def test_random_neighbors_are_admissible_and_the_same_for_the_same_seed() -> None:
    ends = np.array([0, 1, 1000])
    found = random_neighbors(ends, 50, seed=3).indices
    assert (found[0] == -1).all()
    assert (found[1] == 0).all()
    assert 0 <= found[2].min() < 200 < 800 < found[2].max() < 1000
    assert (found == random_neighbors(ends, 50, seed=3).indices).all()
