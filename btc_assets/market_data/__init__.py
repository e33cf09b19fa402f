"""Room `market_data`: ticks and the candles made of them."""
