"""Room `market_data`: loading ticks, and the candles made of them. Reads objects only through `landing`."""
