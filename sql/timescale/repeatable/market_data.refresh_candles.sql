-- Refreshes the partial candles of a window, unless ticks of the window were dropped since they were loaded. Call it
-- outside a transaction: a refresh commits as it goes.
CREATE OR REPLACE PROCEDURE market_data.refresh_candles(p_level text, p_from timestamptz, p_to timestamptz, INOUT p_made bigint DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    target text := 'market_data.candle_partials_' || p_level;
    dropped text;
BEGIN
    -- A session lock, because the refresh commits. It also keeps the retention policy from dropping ticks meanwhile.
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

COMMENT ON PROCEDURE market_data.refresh_candles IS 'Refresh the partial candles of a window of slices; refused (BTC01) if their ticks were dropped';
