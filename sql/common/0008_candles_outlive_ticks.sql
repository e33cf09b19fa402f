-- Candles are kept for ever, ticks are not. Two questions guard that: may a window be refreshed (are the ticks that it
-- was loaded from still there), and may ticks be dropped (are their candles made)?

-- NULL, or why the candles of [from, to) cannot be made again. The registry says which slices were loaded with how many
-- rows; where the table has none of them, they were dropped, whoever did it.
CREATE FUNCTION market_data.dropped_ticks(p_from timestamptz, p_to timestamptz) RETURNS text
LANGUAGE sql STABLE
SET timezone = 'UTC'
AS $$
    SELECT format(
        'the ticks of %s slice(s) from %s to %s were dropped since they were loaded, and refreshing would erase their candles',
        count(*), to_char(min(bucket_5m), 'YYYY-MM-DD"T"HH24:MI"Z"'),
        to_char(max(bucket_5m) + interval '5 minutes', 'YYYY-MM-DD"T"HH24:MI"Z"')
    )
    FROM (
        SELECT bucket_5m, asset FROM landing.raw_blobs_5m
        WHERE bucket_5m >= p_from AND bucket_5m < p_to AND loaded_at IS NOT NULL AND loaded_rows > 0
        GROUP BY bucket_5m, asset
    ) AS loaded
    WHERE NOT EXISTS (
        SELECT 1 FROM market_data.btc_ticks AS tick WHERE tick.bucket_5m = loaded.bucket_5m AND tick.symbol = loaded.asset
    )
    HAVING count(*) > 0
$$;

COMMENT ON FUNCTION market_data.dropped_ticks IS 'NULL, or why the candles of a window of slices cannot be made again';

-- NULL, or what the candles of the slices in [from, to) lack of their ticks.
CREATE FUNCTION market_data.incomplete_candles(p_from timestamptz, p_to timestamptz, p_level text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE
SET timezone = 'UTC'
AS $$
DECLARE
    level record;
    ticks record;
    candles record;
    epoch constant timestamptz := '1970-01-01 00:00:00+00';
BEGIN
    FOR level IN
        SELECT name, tick_step FROM market_data.candle_levels WHERE name = p_level OR p_level IS NULL ORDER BY width
    LOOP
        -- Slices of one level come in steps, and only whole steps can be compared.
        SELECT count(*) AS trades, coalesce(sum(quantity), 0) AS volume INTO ticks FROM market_data.btc_ticks
        WHERE bucket_5m >= date_bin(level.tick_step, p_from, epoch)
          AND bucket_5m < date_bin(level.tick_step, p_to - interval '1 microsecond', epoch) + level.tick_step;
        EXECUTE format(
            'SELECT coalesce(sum(trade_count), 0) AS trades, coalesce(sum(volume), 0) AS volume FROM market_data.%I '
            'WHERE tick_bucket >= date_bin($1, $2, $4) AND tick_bucket < date_bin($1, $3 - interval ''1 microsecond'', $4) + $1',
            'candle_partials_' || level.name
        ) INTO candles USING level.tick_step, p_from, p_to, epoch;
        IF (ticks.trades, ticks.volume) IS DISTINCT FROM (candles.trades::bigint, candles.volume) THEN
            RETURN format('candles_%s hold %s trades of volume %s where there are %s of %s',
                          level.name, candles.trades, candles.volume, ticks.trades, ticks.volume);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION market_data.incomplete_candles IS 'NULL, or what the candles of a window of slices lack of their ticks';
