"""Room `market_data`: loading ticks, and building candles from them. Reads objects only through `landing`."""
