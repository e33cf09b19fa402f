-- Makes the partial candles of a window again, unless ticks of the window were dropped since they were loaded. The lock
-- also keeps the retention policy from dropping ticks meanwhile.
CREATE OR REPLACE PROCEDURE market_data.refresh_candles(p_level text, p_from timestamptz, p_to timestamptz, INOUT p_made bigint DEFAULT NULL)
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

COMMENT ON PROCEDURE market_data.refresh_candles IS 'Make the partial candles of a window of slices again; refused (BTC01) if their ticks were dropped';
