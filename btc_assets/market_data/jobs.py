"""Jobs of this room."""

from btc_assets.domain.settings import Settings
from btc_assets.market_data.candles import enabled_intervals
from btc_assets.market_data.keys import CANDLES_HISTORY, candles_key
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import SlicedJobs, define_sliced_jobs


def candle_keys(settings: Settings) -> list[str]:
    """Keys of the candle assets of a store with these settings, in the order in which they are built."""
    return [candles_key(interval) for interval in enabled_intervals(settings)]


def rebuild_candles_jobs(deployment: Deployment) -> SlicedJobs:
    """The jobs `rebuild_candles` and `rebuild_candles_history`."""
    return define_sliced_jobs(
        "rebuild_candles",
        candle_keys(deployment.settings),
        [CANDLES_HISTORY],
        "Rebuild the candles of a range of slices from their ticks.",
        deployment.partitions,
    )
