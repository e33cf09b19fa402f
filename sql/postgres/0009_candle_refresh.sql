DROP FUNCTION market_data.refresh_candles(text, timestamptz, timestamptz);

-- Procedures, because on TimescaleDB they have to commit.
CREATE PROCEDURE market_data.make_candle_partials(p_level text, p_from timestamptz, p_to timestamptz, INOUT p_made bigint DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    level market_data.candle_levels;
    target text := 'candle_partials_' || p_level;
    epoch constant timestamptz := '1970-01-01 00:00:00+00';
BEGIN
    SELECT * INTO STRICT level FROM market_data.candle_levels WHERE name = p_level;
    p_from := date_bin(level.tick_step, p_from, epoch);
    p_to := date_bin(level.tick_step, p_to + level.tick_step - interval '1 microsecond', epoch);
    PERFORM set_config('jit', 'off', true);
    EXECUTE format('DELETE FROM market_data.%I WHERE tick_bucket >= $1 AND tick_bucket < $2', target) USING p_from, p_to;
    EXECUTE format('INSERT INTO market_data.%I %s', target, market_data.partials_query(p_level)) USING p_from, p_to;
    GET DIAGNOSTICS p_made = ROW_COUNT;
END
$$;

COMMENT ON PROCEDURE market_data.make_candle_partials IS 'Make the partial candles of a window of slices again, from what is there of their ticks';

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
    CALL market_data.make_candle_partials(p_level, p_from, p_to, p_made);
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
