"""Asset checks of ticks and candles: complete, unique, equal to the registry and to each other."""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg
import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import Window
from btc_assets.market_data.candles import enabled_intervals, find_candle_differences
from btc_assets.market_data.conflicts import read_conflicts
from btc_assets.market_data.continuity import not_judged, read_gaps, read_repeats, read_spans
from btc_assets.market_data.keys import CANDLES_HISTORY, TICKS, TICKS_HISTORY, candles_key
from btc_assets.market_data.registry_equality import find_changed_slices
from btc_assets.orchestration.checks import Problems, Shared, SliceCheck, check_slices
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import asset_key


def _ids_checks(feeds: Feeds) -> list[SliceCheck]:
    unjudged, spans = feeds.labels_with_gaps, Shared(read_spans)

    def find_gaps(connection: psycopg.Connection, window: Window) -> Problems:
        gaps = read_gaps(connection, window, unjudged, spans(connection, window))
        return Problems(gaps, {"trades_missing": sum(gap.missing for gap in gaps)}, not_judged(unjudged))

    return [
        SliceCheck(
            "trade_ids_contiguous",
            "Trade ids are contiguous inside the slices and from one to the next, except for feeds in which the exchange skips ids. The "
            "first and last ids and the numbers of ticks that the loads recorded are compared; where they are unusual, the ticks.",
            "gaps",
            find_gaps,
        ),
        SliceCheck(
            "no_trade_twice",
            "No trade occurs in two slices. The first and last ids that the loads recorded are compared; where they overlap, the ticks.",
            "repeats",
            lambda connection, window: Problems(read_repeats(connection, window, spans(connection, window))),
        ),
    ]


def _conflicts(connection: psycopg.Connection, window: Window) -> Problems:
    conflicts = read_conflicts(connection, window)
    return Problems([sentence for sentence, _ in conflicts], {"contradicting_versions": sum(count for _, count in conflicts)})


_TICK_CHECKS = [
    SliceCheck(
        "versions_agree", "No two versions of a trade differ in price, quantity, side or trade time.", "slices_with_conflicts", _conflicts
    ),
    SliceCheck(
        "registry_equals_table",
        "The table holds the ticks that were loaded, by the registry and by what the load recorded of each slice (number, ids, volume and "
        "value by side), unless retention dropped them, and every registered object is loaded. All ticks of the slices are read, once.",
        "differences",
        lambda connection, window: Problems(find_changed_slices(connection, window)),
    ),
]


def _volume_checks(intervals: Sequence[str]) -> dict[str, SliceCheck]:
    """A check for each interval; they share one comparison."""
    differences = Shared(lambda connection, window: find_candle_differences(connection, intervals, window))
    return {interval: _volume_check([interval], differences) for interval in intervals}


def _volume_check(intervals: Sequence[str], differences: Callable[[psycopg.Connection, Window], Mapping[str, Sequence[str]]]) -> SliceCheck:
    def find(connection: psycopg.Connection, window: Window) -> Problems:
        by_interval = differences(connection, window)
        return Problems([sentence for interval in intervals for sentence in by_interval[interval]])

    return SliceCheck(
        "volume_equals_ticks",
        "The candles of the slices hold exactly the volume, the value, the taker's purchases and the trades of the ticks that were loaded, "
        "as the load recorded them (registry_equals_table compares that with the table); where they differ, those of the ticks themselves.",
        "differences",
        find,
    )


def market_data_checks(deployment: Deployment) -> list[dg.AssetChecksDefinition]:
    """The checks of this room: one step for those of the ticks and one for those of the candles."""
    intervals = enabled_intervals(deployment.settings)

    def of_ticks(key: str) -> list[tuple[dg.AssetKey, SliceCheck]]:
        return [(asset_key(key), check) for check in [*_ids_checks(deployment.settings.landing_feeds), *_TICK_CHECKS]]

    volumes = [(asset_key(candles_key(interval)), check) for interval, check in _volume_checks(intervals).items()]
    steps = {"check_ticks": of_ticks(TICKS), "check_candles": volumes}
    if deployment.partitions.history:
        steps["check_ticks_history"] = of_ticks(TICKS_HISTORY)
        whole = _volume_check(intervals, lambda connection, window: find_candle_differences(connection, intervals, window))
        steps["check_candles_history"] = [(asset_key(CANDLES_HISTORY), whole)]
    return [check_slices(name, checks, deployment) for name, checks in steps.items()]
