"""Asset checks of ticks and candles: complete, unique, equal to the registry and to each other."""

from collections.abc import Sequence

import dagster as dg
import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import Window
from btc_assets.market_data.candles import enabled_intervals, read_candle_differences
from btc_assets.market_data.conflicts import read_conflicts
from btc_assets.market_data.continuity import not_judged, read_gaps, read_repeats
from btc_assets.market_data.keys import CANDLES_HISTORY, TICKS, TICKS_HISTORY, candles_key
from btc_assets.market_data.registry_equality import find_unequal_slices
from btc_assets.orchestration.checks import Problems, SliceCheck
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import asset_key


def _gaps_check(feeds: Feeds) -> SliceCheck:
    unjudged = feeds.labels_with_gaps

    def find(connection: psycopg.Connection, window: Window) -> Problems:
        gaps = read_gaps(connection, window, unjudged)
        return Problems(gaps, {"trades_missing": sum(gap.missing for gap in gaps)}, not_judged(unjudged))

    return SliceCheck(
        "trade_ids_contiguous",
        "Trade ids are contiguous inside the slices and from one to the next, except for feeds in which the exchange skips ids.",
        "gaps",
        find,
    )


def _conflicts(connection: psycopg.Connection, window: Window) -> Problems:
    conflicts = read_conflicts(connection, window)
    return Problems([sentence for sentence, _ in conflicts], {"contradicting_versions": sum(count for _, count in conflicts)})


_TICK_CHECKS = [
    SliceCheck(
        "no_trade_twice",
        "No trade occurs in two slices.",
        "repeats",
        lambda connection, window: Problems(read_repeats(connection, window)),
    ),
    SliceCheck(
        "versions_agree", "No two versions of a trade differ in price, quantity, side or trade time.", "slices_with_conflicts", _conflicts
    ),
    SliceCheck(
        "registry_equals_table",
        "The table holds the rows that the registry says were loaded, unless retention dropped them, and every registered object is loaded.",
        "differences",
        lambda connection, window: Problems([sentence for _, sentence in find_unequal_slices(connection, window)]),
    ),
]


def _volume_check(intervals: Sequence[str]) -> SliceCheck:
    return SliceCheck(
        "volume_equals_ticks",
        "The candles of the slices hold exactly the volume and the trades of their ticks.",
        "differences",
        lambda connection, window: Problems(
            [sentence for interval in intervals for sentence in read_candle_differences(connection, interval, window)]
        ),
    )


def market_data_checks(deployment: Deployment) -> list[dg.AssetChecksDefinition]:
    """The checks of this room."""
    intervals = enabled_intervals(deployment.settings)
    tick_checks = [_gaps_check(deployment.settings.landing_feeds), *_TICK_CHECKS]
    checked = [(TICKS, check) for check in tick_checks] + [(candles_key(interval), _volume_check([interval])) for interval in intervals]
    if deployment.partitions.history:
        checked += [(TICKS_HISTORY, check) for check in tick_checks] + [(CANDLES_HISTORY, _volume_check(intervals))]
    return [check.on(asset_key(key), deployment) for key, check in checked]
