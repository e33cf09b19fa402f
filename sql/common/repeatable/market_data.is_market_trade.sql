-- Is a tick part of the market, given its trade_kind? Others, such as those of a futures exchange's insurance fund, are trades that the
-- exchange reports, but leaves out of its candles. A tick whose kind is unknown (NULL) is a market trade: most feeds do not tell it.
--
-- Whatever is computed of ticks asks this function, which the planner inlines. The continuous aggregates of TimescaleDB cannot follow
-- a change of it, so they spell it out (sql/timescale/0020_trade_kind.sql, market_data.create_candle_partials).
CREATE OR REPLACE FUNCTION market_data.is_market_trade(trade_kind text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN trade_kind IS NULL OR trade_kind = 'MARKET';

COMMENT ON FUNCTION market_data.is_market_trade IS 'Whether a tick is a trade of the market, which candles and features are made of, given its trade_kind';
