-- Candles go by trade time, slices by event time, and a trade may be reported in a later slice than it was made in.
-- So each continuous aggregate below holds *partial* candles, what the ticks of one `tick_bucket` contribute to the
-- candle at `bucket`, and the views candles_* merge the partials of a candle. A refresh of the slices that changed is
-- then exact, however late their trades were. Every level is made of the one below it, which is exact because a
-- partial keeps its first and last trade id.
--
-- time_bucket has to be on the hypertable's own time (the slice) and may come only once; the candle's start is made by
-- date_bin. They are read as materialised: candles change when a refresh says so, as on plain PostgreSQL, a query
-- never aggregates ticks behind the reader's back, and no half-loaded slice shows.

CREATE TABLE market_data.candle_levels (
    name        text     PRIMARY KEY,
    width       interval NOT NULL UNIQUE,
    tick_step   interval NOT NULL,
    source      text     REFERENCES market_data.candle_levels
);

INSERT INTO market_data.candle_levels (name, width, tick_step, source) VALUES
    ('1s', '1 second', '5 minutes', NULL),
    ('30s', '30 seconds', '5 minutes', '1s'),
    ('1m', '1 minute', '5 minutes', '30s'),
    ('5m', '5 minutes', '5 minutes', '1m'),
    ('1h', '1 hour', '1 hour', '5m'),
    ('1d', '1 day', '1 day', '1h');

COMMENT ON TABLE market_data.candle_levels IS 'Candle intervals and how each is made';
COMMENT ON COLUMN market_data.candle_levels.name IS 'Suffix of the view candles_<name>';
COMMENT ON COLUMN market_data.candle_levels.width IS 'Length of a candle';
COMMENT ON COLUMN market_data.candle_levels.tick_step IS 'Length of a tick_bucket: the unit that a refresh replaces';
COMMENT ON COLUMN market_data.candle_levels.source IS 'The level that it is made of; NULL: ticks';

CREATE PROCEDURE market_data.create_candle_partials(p_level text)
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
    -- A query names the candle's start, not the slice, so it looks into every chunk: few of them, of some million rows.
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

COMMENT ON PROCEDURE market_data.create_candle_partials IS 'Make the continuous aggregate of a level';

CALL market_data.create_candle_partials('1s');
CALL market_data.create_candle_partials('30s');
CALL market_data.create_candle_partials('1m');
CALL market_data.create_candle_partials('5m');
CALL market_data.create_candle_partials('1h');
CALL market_data.create_candle_partials('1d');
