"""Charts have round steps, labels inside the picture, and short paths."""

from __future__ import annotations

from datetime import timedelta
from xml.etree import ElementTree

import pytest

from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.market_data.svg import BOTTOM, LEFT, RIGHT, WIDTH, Axes, document, step_for, sticks
from btc_assets_tests.support.trades import HOUR, NOON

AXES = Axes(HOUR, 0.0, 50.0, 30, 200)


def labels(parts: list[str]) -> list[str]:
    chart = ElementTree.fromstring(document(200, "title", parts))
    return [element.text or "" for element in chart.iter("{http://www.w3.org/2000/svg}text")][1:]


def test_steps_are_round() -> None:
    assert step_for(timedelta(hours=1), 300) == timedelta(seconds=15)
    assert step_for(DAY, 300) == SLICE
    assert step_for(365 * DAY, 300) == 2 * DAY


def test_times_and_values_span_the_plotting_area() -> None:
    assert (AXES.x(HOUR.start), AXES.x(HOUR.end)) == (LEFT, WIDTH - RIGHT)
    assert (AXES.y(0.0), AXES.y(50.0)) == (200 - BOTTOM, 30)
    assert AXES.width(timedelta(minutes=30)) == (WIDTH - LEFT - RIGHT) / 2


@pytest.mark.parametrize(
    ("window", "some"),
    [
        (Window.of_slice(NOON), "12:00:30"),
        (HOUR, "12:10"),
        (Window(NOON, NOON + DAY), "Jan 11"),
        (Window(NOON, NOON + 30 * DAY), "Jan 18"),
    ],
    ids=["a slice", "an hour", "a day", "a month"],
)
def test_times_are_labeled_as_finely_as_their_steps_need(window: Window, some: str) -> None:
    found = labels([*Axes(window, 0.0, 1.0, 30, 200).times()])
    assert some in found
    assert 3 <= len(found) <= 10


def test_values_are_labeled_in_round_steps() -> None:
    assert labels([*AXES.values(5)]) == ["0", "10", "20", "30", "40", "50"]
    assert labels([*Axes(HOUR, 0.0, 0.004, 30, 200).values(4)]) == ["0.000", "0.001", "0.002", "0.003", "0.004"]


def test_lines_are_one_path_of_relative_steps_in_tenths_of_a_pixel() -> None:
    assert sticks([(1.0, 2.0, 5.0), (2.5, 4.0, 6.0)], "#fff", 0.8) == (
        '<path transform="scale(.1)" d="m10 20v30m15 -10v20" stroke="#fff" stroke-width="8"/>'
    )
    assert sticks([], "#fff", 1) == ""
