ALTER TABLE market_data.btc_ticks ADD COLUMN trade_kind text;

COMMENT ON COLUMN market_data.btc_ticks.trade_kind IS 'Kind of the trade as the exchange tells it: MARKET, or INSURANCE_FUND, ADL and others, which candles and features leave out; NULL where it is not told';
