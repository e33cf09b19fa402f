-- The query that makes the partial candles of a level, of market trades alone. Its parameters $1 and $2 are the window of tick_buckets, rounded
-- to the level's tick_step.
CREATE OR REPLACE FUNCTION market_data.partials_query(p_level text) RETURNS text
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
            FROM market_data.btc_ticks
            WHERE bucket_5m >= $1 AND bucket_5m < $2 AND market_data.is_market_trade(trade_kind) GROUP BY 1, 2, 3
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

COMMENT ON FUNCTION market_data.partials_query IS 'The query that makes the partial candles of a level, for the tick_buckets from $1 to $2';
