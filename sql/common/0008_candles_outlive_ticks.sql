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

-- The query that makes the partial candles of a level; $1 and $2 are the window of tick_buckets, rounded to its steps.
CREATE FUNCTION market_data.partials_query(p_level text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT CASE WHEN source IS NULL THEN format($sql$
        SELECT tick_bucket, bucket, symbol, prices[1] AS open, high, low, prices[trade_count] AS close, volume, quote_volume,
               trade_count, taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id
        FROM (
            SELECT bucket_5m AS tick_bucket, date_bin(%1$L::interval, trade_time, '1970-01-01 00:00:00+00') AS bucket, symbol,
                   array_agg(price ORDER BY trade_id) AS prices, max(price) AS high, min(price) AS low,
                   sum(quantity) AS volume, sum(price * quantity) AS quote_volume, count(*) AS trade_count,
                   coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker), 0) AS taker_buy_volume,
                   coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker), 0) AS taker_buy_quote_volume,
                   min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id
            FROM market_data.btc_ticks WHERE bucket_5m >= $1 AND bucket_5m < $2 GROUP BY 1, 2, 3
        ) AS candle
    $sql$, width) ELSE format($sql$
        SELECT date_bin(%1$L::interval, tick_bucket, '1970-01-01 00:00:00+00') AS tick_bucket,
               date_bin(%2$L::interval, bucket, '1970-01-01 00:00:00+00') AS bucket, symbol,
               (array_agg(open ORDER BY first_trade_id))[1] AS open, max(high) AS high, min(low) AS low,
               (array_agg(close ORDER BY last_trade_id DESC))[1] AS close,
               sum(volume) AS volume, sum(quote_volume) AS quote_volume, sum(trade_count)::bigint AS trade_count,
               sum(taker_buy_volume) AS taker_buy_volume, sum(taker_buy_quote_volume) AS taker_buy_quote_volume,
               min(first_trade_id) AS first_trade_id, max(last_trade_id) AS last_trade_id
        FROM market_data.%3$I WHERE tick_bucket >= $1 AND tick_bucket < $2 GROUP BY 1, 2, 3
    $sql$, tick_step, width, 'candle_partials_' || source) END
    FROM market_data.candle_levels WHERE name = p_level
$$;

COMMENT ON FUNCTION market_data.partials_query IS 'Query for the partial candles of a level, of the tick_buckets from $1 to $2';

-- NULL, or how the candles of a level differ from what they are made of, in the slices from p_from to p_to. Compared is
-- every figure of every partial candle. Slices whose ticks were dropped are left out, for their candles are all there is.
CREATE FUNCTION market_data.outdated_candles(p_level text, p_from timestamptz, p_to timestamptz) RETURNS text
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
            SELECT bucket_5m AS tick_bucket, asset AS symbol FROM landing.raw_blobs_5m
            WHERE $3 AND bucket_5m >= $1 AND bucket_5m < $2 AND loaded_at IS NOT NULL AND loaded_rows > 0
            EXCEPT SELECT tick_bucket, symbol FROM wanted
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

COMMENT ON FUNCTION market_data.outdated_candles IS 'NULL, or how the candles of a level differ from the ticks or candles that they are made of';
