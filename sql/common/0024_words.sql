-- What the registry calls asset is the symbol of all other tables. Both names stay; the database keeps them equal. The table is written
-- anew for that: up to 20 seconds for a million rows, in which readers and loaders wait.
ALTER TABLE landing.raw_blobs_5m ADD COLUMN symbol text NOT NULL GENERATED ALWAYS AS (asset) STORED;

COMMENT ON COLUMN landing.raw_blobs_5m.symbol IS 'Symbol label of the feed, as in btc_ticks.symbol';
COMMENT ON COLUMN landing.raw_blobs_5m.asset IS 'The same as symbol';
COMMENT ON COLUMN market_data.btc_ticks.is_market_maker IS 'Whether the buyer is the maker, so that the seller took; the exchange calls it m or isBuyerMaker';
COMMENT ON COLUMN market_data.btc_ticks.trade_id IS 'The exchange''s number of the trade, +1 within a symbol except where the exchange itself skips numbers, as on its futures';
COMMENT ON COLUMN market_data.btc_ticks.quantity IS 'Quantity in base currency (BTC), never in contracts';
