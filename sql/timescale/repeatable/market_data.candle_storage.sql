-- The table that holds the partial candles of a level: candle_partials_<level> itself is a view on this hypertable.
CREATE OR REPLACE FUNCTION market_data.candle_storage(p_level text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)
    FROM timescaledb_information.continuous_aggregates
    WHERE view_schema = 'market_data' AND view_name = 'candle_partials_' || p_level
$$;

COMMENT ON FUNCTION market_data.candle_storage IS 'The table that holds the rows of candle_partials_<level>';
