"""Asset keys of this room, as `schema/table`."""

TICKS = "market_data/btc_ticks"
TICKS_HISTORY = "market_data/btc_ticks_history"
CANDLES_HISTORY = "market_data/candles_history"


def candles_key(interval: str) -> str:
    """The key of the asset of an interval's candles."""
    return f"market_data/candles_{interval}"
