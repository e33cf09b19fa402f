-- Refreshes the partial candles of [p_from, p_to), rounded outwards to the level's tick_step. Call it outside a
-- transaction: a refresh commits as it goes.
CREATE OR REPLACE PROCEDURE market_data.make_candle_partials(p_level text, p_from timestamptz, p_to timestamptz, INOUT p_made bigint DEFAULT NULL)
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
    -- Beyond what was made so far, the first one leaves the last window of that as it is (timescaledb#10221; seen with 2.28.3 as well).
    CALL refresh_continuous_aggregate(target::regclass, p_from, p_to);
    EXECUTE format('SELECT count(*) FROM %s WHERE tick_bucket >= $1 AND tick_bucket < $2', target::regclass) INTO p_made USING p_from, p_to;
END
$$;

COMMENT ON PROCEDURE market_data.make_candle_partials IS 'Refresh the partial candles of a window of slices, from the ticks that exist';
