ALTER FUNCTION market_data.refresh_candles(text, timestamptz, timestamptz) RENAME TO make_candle_partials;

-- A procedure, because on TimescaleDB it has to commit.
CREATE PROCEDURE market_data.refresh_candles(p_level text, p_from timestamptz, p_to timestamptz, INOUT p_made bigint DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    dropped text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('market_data.candle_partials_' || p_level));
    dropped := market_data.dropped_ticks(p_from, p_to);
    IF dropped IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'BTC01', MESSAGE = dropped;
    END IF;
    p_made := market_data.make_candle_partials(p_level, p_from, p_to);
END
$$;

COMMENT ON PROCEDURE market_data.refresh_candles IS 'Make the partial candles of a window of slices again; refused (BTC01) where their ticks were dropped';

CREATE PROCEDURE market_data.create_candle_partials(p_level text)
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('CREATE TABLE market_data.%I (LIKE market_data.candle_partials_1s INCLUDING ALL)', 'candle_partials_' || p_level);
    EXECUTE format('COMMENT ON TABLE market_data.%I IS %L', 'candle_partials_' || p_level,
                   'Parts of candles, one for each slice that adds to one; read candles_' || p_level || ' instead');
END
$$;

COMMENT ON PROCEDURE market_data.create_candle_partials IS 'Make the table of a level';

CREATE FUNCTION market_data.candle_storage(p_level text) RETURNS text
LANGUAGE sql STABLE
AS $$ SELECT 'market_data.candle_partials_' || p_level $$;

COMMENT ON FUNCTION market_data.candle_storage IS 'Table that holds the rows of candle_partials_<level>';
