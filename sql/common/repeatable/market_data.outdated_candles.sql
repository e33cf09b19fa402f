-- NULL, or how the candles of a level differ from what they are made of, in the slices from p_from to p_to. Every figure
-- of every partial candle is compared. Slices whose ticks were dropped are left out: their candles are all that is left.
CREATE OR REPLACE FUNCTION market_data.outdated_candles(p_level text, p_from timestamptz, p_to timestamptz) RETURNS text
LANGUAGE plpgsql STABLE
SET timezone = 'UTC'
SET jit = off
AS $$
DECLARE
    level market_data.candle_levels;
    epoch constant timestamptz := '1970-01-01 00:00:00+00';
    differing bigint;
    first timestamptz;
BEGIN
    SELECT * INTO STRICT level FROM market_data.candle_levels WHERE name = p_level;
    p_from := date_bin(level.tick_step, p_from, epoch);
    p_to := date_bin(level.tick_step, p_to + level.tick_step - interval '1 microsecond', epoch);
    EXECUTE format($sql$
        WITH wanted AS (%1$s), made AS (
            SELECT tick_bucket, bucket, symbol, open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume,
                   taker_buy_quote_volume, first_trade_id, last_trade_id
            FROM market_data.%2$I WHERE tick_bucket >= $1 AND tick_bucket < $2
        ), dropped AS (
            SELECT loaded.bucket_5m AS tick_bucket, asset AS symbol FROM (
                SELECT bucket_5m, asset FROM landing.raw_blobs_5m
                WHERE $3 AND bucket_5m >= $1 AND bucket_5m < $2 AND loaded_at IS NOT NULL AND loaded_rows > 0
                GROUP BY bucket_5m, asset
            ) AS loaded
            LEFT JOIN LATERAL (
                SELECT true AS there FROM market_data.btc_ticks AS tick
                WHERE tick.bucket_5m = loaded.bucket_5m AND tick.symbol = loaded.asset AND tick.bucket_5m >= $1 AND tick.bucket_5m < $2
                LIMIT 1
            ) AS stored ON true
            WHERE stored.there IS NULL
        )
        SELECT count(*), min(tick_bucket) FROM (
            (SELECT * FROM wanted EXCEPT ALL SELECT * FROM made)
            UNION ALL
            (SELECT * FROM made EXCEPT ALL SELECT * FROM wanted)
        ) AS difference
        WHERE NOT EXISTS (
            SELECT 1 FROM dropped WHERE dropped.tick_bucket = difference.tick_bucket AND dropped.symbol = difference.symbol
        )
    $sql$, market_data.partials_query(p_level), 'candle_partials_' || p_level)
        INTO differing, first USING p_from, p_to, level.source IS NULL;
    IF differing > 0 THEN
        RETURN format('candles_%s are not what they are made of, from %s on', p_level, to_char(first, 'YYYY-MM-DD"T"HH24:MI"Z"'));
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION market_data.outdated_candles IS 'NULL, or how the candles of a level differ from the ticks or candles they are made of';
