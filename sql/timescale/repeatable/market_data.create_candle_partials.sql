-- Creates the continuous aggregate of a level. 0006_candles.sql explains what partial candles are, and called an earlier
-- copy of this procedure for the levels that every store has. TimescaleDB cannot replace a continuous aggregate: a
-- change here affects levels created later. To change existing ones, write a numbered migration, such as
-- 0020_trade_kind.sql, which made the levels of that copy leave out what is no market trade.
CREATE OR REPLACE PROCEDURE market_data.create_candle_partials(p_level text)
LANGUAGE plpgsql
AS $$
DECLARE
    level market_data.candle_levels;
    target text := 'candle_partials_' || p_level;
    epoch constant text := '1970-01-01 00:00:00+00';
    chunk interval;
    body text;
BEGIN
    SELECT * INTO STRICT level FROM market_data.candle_levels WHERE name = p_level;
    -- Queries filter by the candle's start, not by the slice, so they look into every chunk. Few chunks of some million rows are best.
    chunk := CASE WHEN level.width < interval '1 second' THEN '5 days'
                  WHEN level.width < interval '30 seconds' THEN '30 days'
                  ELSE '360 days' END;
    IF level.source IS NULL THEN
        body := format($sql$
            SELECT time_bucket(%1$L::interval, bucket_5m) AS tick_bucket,
                   date_bin(%2$L::interval, trade_time, %3$L::timestamptz) AS bucket, symbol,
                   first(price, trade_id) AS open, max(price) AS high, min(price) AS low, last(price, trade_id) AS close,
                   sum(quantity) AS volume, sum(price * quantity) AS quote_volume, count(*) AS trade_count,
                   coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker), 0) AS taker_buy_volume,
                   coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker), 0) AS taker_buy_quote_volume,
                   min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id
            FROM market_data.btc_ticks
            WHERE trade_kind IS NULL OR trade_kind = 'MARKET'
            GROUP BY time_bucket(%1$L::interval, bucket_5m), date_bin(%2$L::interval, trade_time, %3$L::timestamptz), symbol
        $sql$, level.tick_step, level.width, epoch);
    ELSE
        body := format($sql$
            SELECT time_bucket(%1$L::interval, tick_bucket) AS tick_bucket,
                   date_bin(%2$L::interval, bucket, %3$L::timestamptz) AS bucket, symbol,
                   first(open, first_trade_id) AS open, max(high) AS high, min(low) AS low, last(close, last_trade_id) AS close,
                   sum(volume) AS volume, sum(quote_volume) AS quote_volume, sum(trade_count)::bigint AS trade_count,
                   sum(taker_buy_volume) AS taker_buy_volume, sum(taker_buy_quote_volume) AS taker_buy_quote_volume,
                   min(first_trade_id) AS first_trade_id, max(last_trade_id) AS last_trade_id
            FROM market_data.%4$I
            GROUP BY time_bucket(%1$L::interval, tick_bucket), date_bin(%2$L::interval, bucket, %3$L::timestamptz), symbol
        $sql$, level.tick_step, level.width, epoch, 'candle_partials_' || level.source);
    END IF;
    EXECUTE format(
        'CREATE MATERIALIZED VIEW market_data.%I WITH (timescaledb.continuous, timescaledb.materialized_only = true, '
        'timescaledb.create_group_indexes = false, timescaledb.chunk_interval = %L) AS %s WITH NO DATA',
        target, chunk, body
    );
    EXECUTE format('CREATE INDEX ON market_data.%I (bucket, symbol)', target);
    EXECUTE format('COMMENT ON VIEW market_data.%I IS %L', target,
                   'Parts of candles, one for each slice that adds to one; read candles_' || p_level || ' instead');
    EXECUTE format('COMMENT ON COLUMN market_data.%I.tick_bucket IS %L', target,
                   'Start of the window of event time whose ticks these are');
END
$$;

COMMENT ON PROCEDURE market_data.create_candle_partials IS 'Create the continuous aggregate with the partial candles of a level';
