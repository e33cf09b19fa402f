-- Creates the table of an optional level, such as 100 ms. The other levels have theirs from 0006_candles.sql, which
-- also explains what partial candles are.
CREATE OR REPLACE PROCEDURE market_data.create_candle_partials(p_level text)
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('CREATE TABLE market_data.%I (LIKE market_data.candle_partials_1s INCLUDING ALL)', 'candle_partials_' || p_level);
    EXECUTE format('COMMENT ON TABLE market_data.%I IS %L', 'candle_partials_' || p_level,
                   'Parts of candles, one for each slice that adds to one; read candles_' || p_level || ' instead');
END
$$;

COMMENT ON PROCEDURE market_data.create_candle_partials IS 'Create the table with the partial candles of an optional level';
