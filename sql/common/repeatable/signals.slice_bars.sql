-- The bars of each slice as rows. The channels are defined in Python; a test compares this view with them.
CREATE OR REPLACE VIEW signals.slice_bars AS
SELECT bucket_5m, symbol, bucket_5m + step * interval '5 seconds' AS bar,
       channels[16 * step + 1] AS log_return,
       channels[16 * step + 2] AS close,
       channels[16 * step + 3] AS high,
       channels[16 * step + 4] AS low,
       channels[16 * step + 5] AS vwap,
       channels[16 * step + 6] AS tick_volatility,
       channels[16 * step + 7] AS volume,
       channels[16 * step + 8] AS signed_volume,
       channels[16 * step + 9] AS trade_count,
       channels[16 * step + 10] AS signed_trade_count,
       channels[16 * step + 11] AS mean_trade_size,
       channels[16 * step + 12] AS largest_trade,
       channels[16 * step + 13] AS taker_buy_share,
       channels[16 * step + 14] AS same_side_share,
       channels[16 * step + 15] AS zero_tick_share,
       channels[16 * step + 16] AS longest_wait
FROM (SELECT bucket_5m, symbol, bars::real[] AS channels FROM signals.slice_features) AS slice
CROSS JOIN generate_series(0, 59) AS step;

COMMENT ON VIEW signals.slice_bars IS 'Bars of 5 seconds by event time, 60 of each slice';
COMMENT ON COLUMN signals.slice_bars.bucket_5m IS 'Start of the slice (UTC)';
COMMENT ON COLUMN signals.slice_bars.symbol IS 'Symbol';
COMMENT ON COLUMN signals.slice_bars.bar IS 'Start of the bar (UTC)';
COMMENT ON COLUMN signals.slice_bars.log_return IS 'log: from the close before (in the first bar, from the first price of the slice) to the close';
COMMENT ON COLUMN signals.slice_bars.close IS 'log: last price so far against the first price of the slice; carried forward';
COMMENT ON COLUMN signals.slice_bars.high IS 'log: highest price of the bar against the close before; below 0 where every trade was lower';
COMMENT ON COLUMN signals.slice_bars.low IS 'log: lowest price of the bar against the close before; above 0 where every trade was higher';
COMMENT ON COLUMN signals.slice_bars.vwap IS 'log: volume-weighted average price of the bar against the close before';
COMMENT ON COLUMN signals.slice_bars.tick_volatility IS 'log: square root of the sum of squared returns from trade to trade';
COMMENT ON COLUMN signals.slice_bars.volume IS 'base: quantity traded';
COMMENT ON COLUMN signals.slice_bars.signed_volume IS 'base: quantity that takers bought less what they sold';
COMMENT ON COLUMN signals.slice_bars.trade_count IS 'trades: number of trades';
COMMENT ON COLUMN signals.slice_bars.signed_trade_count IS 'trades: trades in which takers bought less those in which they sold';
COMMENT ON COLUMN signals.slice_bars.mean_trade_size IS 'base: volume over the number of trades';
COMMENT ON COLUMN signals.slice_bars.largest_trade IS 'base: quantity of the largest trade';
COMMENT ON COLUMN signals.slice_bars.taker_buy_share IS 'share: part of the volume that takers bought; 0.5 without trades';
COMMENT ON COLUMN signals.slice_bars.same_side_share IS 'share: trades on the side of the trade before them; 0.5 where none has one before it in the slice';
COMMENT ON COLUMN signals.slice_bars.zero_tick_share IS 'share: trades at the price of the trade before them; 0 where none has one before it in the slice';
COMMENT ON COLUMN signals.slice_bars.longest_wait IS 's: longest time without a trade inside the bar, its edges included; 5 without trades';
