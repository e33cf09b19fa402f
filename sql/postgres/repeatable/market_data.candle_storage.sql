-- The table that holds the partial candles of a level.
CREATE OR REPLACE FUNCTION market_data.candle_storage(p_level text) RETURNS text
LANGUAGE sql STABLE
AS $$ SELECT 'market_data.candle_partials_' || p_level $$;

COMMENT ON FUNCTION market_data.candle_storage IS 'The table that holds the rows of candle_partials_<level>';
