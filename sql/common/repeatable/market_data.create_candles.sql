-- Creates optional candles, such as those of 100 ms: they take more rows than the ticks of a quiet day, so they exist
-- only in stores that want them.
CREATE OR REPLACE PROCEDURE market_data.create_candles(p_level text, p_width interval)
LANGUAGE plpgsql
AS $$
DECLARE
    col record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('market_data.create_candles'));
    IF EXISTS (SELECT 1 FROM market_data.candle_levels WHERE name = p_level) THEN
        RETURN;
    END IF;
    INSERT INTO market_data.candle_levels (name, width, tick_step, source) VALUES (p_level, p_width, '5 minutes', NULL);
    CALL market_data.create_candle_partials(p_level);
    CALL market_data.create_candle_view(p_level);
    -- The partials have the columns of candle_partials_1s, so they take over its comments.
    FOR col IN
        SELECT attname, col_description(attrelid, attnum) AS text FROM pg_attribute
        WHERE attrelid = 'market_data.candle_partials_1s'::regclass AND attnum > 0 AND NOT attisdropped
    LOOP
        EXECUTE format('COMMENT ON COLUMN market_data.%I.%I IS %L', 'candle_partials_' || p_level, col.attname, col.text);
    END LOOP;
END
$$;

COMMENT ON PROCEDURE market_data.create_candles IS 'Create the candles of a further interval, made from ticks, unless they exist';
