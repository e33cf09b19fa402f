-- Replaces the partial candles of [p_from, p_to), rounded outwards to the level's tick_step. A procedure, because on
-- TimescaleDB it has to commit.
CREATE OR REPLACE PROCEDURE market_data.make_candle_partials(p_level text, p_from timestamptz, p_to timestamptz, INOUT p_made bigint DEFAULT NULL)
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

COMMENT ON PROCEDURE market_data.make_candle_partials IS 'Make the partial candles of a window of slices again, from the ticks that exist';
