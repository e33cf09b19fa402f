-- Call these outside a transaction: a refresh commits as it goes.
CREATE PROCEDURE market_data.make_candle_partials(p_level text, p_from timestamptz, p_to timestamptz, INOUT p_made bigint DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    level market_data.candle_levels;
    target text := 'market_data.candle_partials_' || p_level;
    epoch constant timestamptz := '1970-01-01 00:00:00+00';
BEGIN
    SELECT * INTO STRICT level FROM market_data.candle_levels WHERE name = p_level;
    p_from := date_bin(level.tick_step, p_from, epoch);
    p_to := date_bin(level.tick_step, p_to + level.tick_step - interval '1 microsecond', epoch);
    CALL refresh_continuous_aggregate(target::regclass, p_from, p_to);
    EXECUTE format('SELECT count(*) FROM %s WHERE tick_bucket >= $1 AND tick_bucket < $2', target::regclass) INTO p_made USING p_from, p_to;
END
$$;

COMMENT ON PROCEDURE market_data.make_candle_partials IS 'Refresh the partial candles of a window of slices from what is there of their ticks';

CREATE PROCEDURE market_data.refresh_candles(p_level text, p_from timestamptz, p_to timestamptz, INOUT p_made bigint DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    target text := 'market_data.candle_partials_' || p_level;
    dropped text;
BEGIN
    -- A lock of the session, because the refresh commits. It also keeps retention from dropping ticks meanwhile.
    PERFORM pg_advisory_lock(hashtext(target));
    dropped := market_data.dropped_ticks(p_from, p_to);
    IF dropped IS NULL THEN
        CALL market_data.make_candle_partials(p_level, p_from, p_to, p_made);
    END IF;
    PERFORM pg_advisory_unlock(hashtext(target));
    IF dropped IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'BTC01', MESSAGE = dropped;
    END IF;
END
$$;

COMMENT ON PROCEDURE market_data.refresh_candles IS 'Refresh the partial candles of a window of slices; refused (BTC01) where their ticks were dropped';

CREATE FUNCTION market_data.candle_storage(p_level text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)
    FROM timescaledb_information.continuous_aggregates
    WHERE view_schema = 'market_data' AND view_name = 'candle_partials_' || p_level
$$;

COMMENT ON FUNCTION market_data.candle_storage IS 'Table that holds the rows of candle_partials_<level>';
