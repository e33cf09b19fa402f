-- Candles that are there only where somebody wants them, such as 100 ms: they cost more rows than the ticks of a quiet day.
CREATE PROCEDURE market_data.create_candles(p_level text, p_width interval)
LANGUAGE plpgsql
AS $$
DECLARE
    view text := 'candles_' || p_level;
    partials text := 'candle_partials_' || p_level;
    relation text;
    col record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('market_data.create_candles'));
    IF EXISTS (SELECT 1 FROM market_data.candle_levels WHERE name = p_level) THEN
        RETURN;
    END IF;
    INSERT INTO market_data.candle_levels (name, width, tick_step, source) VALUES (p_level, p_width, '5 minutes', NULL);
    CALL market_data.create_candle_partials(p_level);
    -- The same view as candles_1s, with the same comments, over partials of its own.
    EXECUTE format('CREATE VIEW market_data.%I AS %s', view,
                   replace(pg_get_viewdef('market_data.candles_1s'), 'candle_partials_1s', partials));
    EXECUTE format('COMMENT ON VIEW market_data.%I IS %L', view,
                   replace(obj_description('market_data.candles_1s'::regclass), '1s', p_level));
    FOREACH relation IN ARRAY ARRAY['candles_', 'candle_partials_'] LOOP
        FOR col IN
            SELECT attname, col_description(attrelid, attnum) AS text FROM pg_attribute
            WHERE attrelid = ('market_data.' || relation || '1s')::regclass AND attnum > 0 AND NOT attisdropped
        LOOP
            EXECUTE format('COMMENT ON COLUMN market_data.%I.%I IS %L', relation || p_level, col.attname, col.text);
        END LOOP;
    END LOOP;
END
$$;

COMMENT ON PROCEDURE market_data.create_candles IS 'Make candles of a further interval, from ticks, unless they are there';
