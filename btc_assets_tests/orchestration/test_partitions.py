"""Partitions: 5-minute slices from the first slice on, days of history before it."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.orchestration.partitions import Partitions, partition_tags

FIRST = datetime(2024, 1, 10, 6, 35, tzinfo=UTC)  # within a day
HISTORY = datetime(2024, 1, 8, tzinfo=UTC)


def partitions(**settings: object) -> Partitions:
    return Partitions.of(Settings.model_validate({"partitions_start": FIRST, "history_start": HISTORY} | settings))


def test_days_of_history_end_with_the_day_of_the_first_slice() -> None:
    history = partitions().history
    assert history is not None and history.get_partition_keys() == ["2024-01-08", "2024-01-09", "2024-01-10"]
    assert partitions().slices.get_first_partition_key() == "2024-01-10T06:35Z"


def test_of_the_last_day_of_history_only_the_part_before_the_first_slice_counts() -> None:
    of = partitions()
    assert of.history is not None
    days = [of.own_slices(of.history.time_window_for_partition_key(key), of.history) for key in of.history.get_partition_keys()]
    assert days == [Window(HISTORY, HISTORY + DAY), Window(HISTORY + DAY, HISTORY + 2 * DAY), Window(HISTORY + 2 * DAY, FIRST)]


def test_without_days_before_the_first_slice_there_is_no_history() -> None:
    assert partitions(partitions_start=HISTORY).history is None


@pytest.mark.parametrize(("slices_per_run", "policy"), [(None, dg.BackfillPolicy.single_run()), (288, dg.BackfillPolicy.multi_run(288))])
def test_a_backfill_is_one_run_unless_the_settings_say_otherwise(slices_per_run: int | None, policy: dg.BackfillPolicy) -> None:
    assert partitions(backfill_slices_per_run=slices_per_run).backfill_policy == policy


@pytest.mark.parametrize(
    ("window", "step", "tags"),
    [
        (Window.of_slice(FIRST), SLICE, {"dagster/partition": "2024-01-10T06:35Z"}),
        (
            Window(FIRST, FIRST + 3 * SLICE),
            SLICE,
            {"dagster/asset_partition_range_start": "2024-01-10T06:35Z", "dagster/asset_partition_range_end": "2024-01-10T06:45Z"},
        ),
        (Window(HISTORY, HISTORY + DAY), DAY, {"dagster/partition": "2024-01-08"}),
        (
            Window(HISTORY, FIRST),
            DAY,
            {"dagster/asset_partition_range_start": "2024-01-08", "dagster/asset_partition_range_end": "2024-01-10"},
        ),
    ],
    ids=["a slice", "slices", "a day", "days, the last of them cut short"],
)
def test_the_tags_of_a_run_are_read_back_as_its_slices(window: Window, step: object, tags: dict[str, str]) -> None:
    assert partition_tags(window, step) == tags  # type: ignore[arg-type]
    assert partitions().tagged_window(tags) == window


@pytest.mark.parametrize("tags", [{}, {"dagster/partition": "some_other"}, {"dagster/asset_partition_range_start": "2024-01-10"}])
def test_a_run_without_partitions_or_with_others_has_no_slices(tags: dict[str, str]) -> None:
    assert partitions().tagged_window(tags) is None
