-- Candles go by trade time, slices by event time, and a trade may be reported in a later slice than it was made in.
-- So a slice adds to a candle instead of owning it: each table below keeps *partial* candles, what the ticks of one
-- `tick_bucket` contribute to the candle at `bucket`, and the views candles_* merge the partials of a candle.
-- Replacing a slice then replaces exactly its partials, however late its trades were. Every level is made of the one
-- below it, which is exact because a partial keeps its first and last trade id.

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

DO $$
DECLARE
    level text;
BEGIN
    FOREACH level IN ARRAY ARRAY['1s', '30s', '1m', '5m', '1h', '1d'] LOOP
        EXECUTE format($ddl$
            CREATE TABLE market_data.%1$I (
                tick_bucket            timestamptz NOT NULL,
                bucket                 timestamptz NOT NULL,
                symbol                 text        NOT NULL,
                open                   numeric     NOT NULL,
                high                   numeric     NOT NULL,
                low                    numeric     NOT NULL,
                close                  numeric     NOT NULL,
                volume                 numeric     NOT NULL,
                quote_volume           numeric     NOT NULL,
                trade_count            bigint      NOT NULL,
                taker_buy_volume       numeric     NOT NULL,
                taker_buy_quote_volume numeric     NOT NULL,
                first_trade_id         bigint      NOT NULL,
                last_trade_id          bigint      NOT NULL,
                PRIMARY KEY (tick_bucket, symbol, bucket)
            );
            CREATE INDEX %2$I ON market_data.%1$I (bucket, symbol);
            COMMENT ON TABLE market_data.%1$I IS 'Parts of candles, one for each slice that adds to one; read candles_%3$s instead';
            COMMENT ON COLUMN market_data.%1$I.tick_bucket IS 'Start of the window of event time whose ticks these are';
        $ddl$, 'candle_partials_' || level, 'candle_partials_' || level || '_bucket', level);
    END LOOP;
END
$$;

-- Replaces the partials of [from, to), rounded outwards to tick_step; returns how many there are now.
CREATE FUNCTION market_data.refresh_candles(p_level text, p_from timestamptz, p_to timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET jit = off
AS $$
DECLARE
    level market_data.candle_levels;
    target text := 'candle_partials_' || p_level;
    epoch constant timestamptz := '1970-01-01 00:00:00+00';
    made bigint;
BEGIN
    SELECT * INTO STRICT level FROM market_data.candle_levels WHERE name = p_level;
    p_from := date_bin(level.tick_step, p_from, epoch);
    p_to := date_bin(level.tick_step, p_to + level.tick_step - interval '1 microsecond', epoch);
    PERFORM pg_advisory_xact_lock(hashtext('market_data.' || target));
    EXECUTE format('DELETE FROM market_data.%I WHERE tick_bucket >= $1 AND tick_bucket < $2', target) USING p_from, p_to;
    IF level.source IS NULL THEN
        EXECUTE format($sql$
            INSERT INTO market_data.%I
            SELECT tick_bucket, bucket, symbol, prices[1], high, low, prices[trade_count], volume, quote_volume, trade_count,
                   taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id
            FROM (
                SELECT bucket_5m AS tick_bucket, date_bin($3, trade_time, $4) AS bucket, symbol,
                       array_agg(price ORDER BY trade_id) AS prices, max(price) AS high, min(price) AS low,
                       sum(quantity) AS volume, sum(price * quantity) AS quote_volume, count(*) AS trade_count,
                       coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker), 0) AS taker_buy_volume,
                       coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker), 0) AS taker_buy_quote_volume,
                       min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id
                FROM market_data.btc_ticks
                WHERE bucket_5m >= $1 AND bucket_5m < $2
                GROUP BY 1, 2, 3
            ) AS candle
        $sql$, target) USING p_from, p_to, level.width, epoch;
    ELSE
        EXECUTE format($sql$
            INSERT INTO market_data.%I
            SELECT date_bin($3, tick_bucket, $5), date_bin($4, bucket, $5), symbol,
                   (array_agg(open ORDER BY first_trade_id))[1], max(high), min(low),
                   (array_agg(close ORDER BY last_trade_id DESC))[1],
                   sum(volume), sum(quote_volume), sum(trade_count), sum(taker_buy_volume), sum(taker_buy_quote_volume),
                   min(first_trade_id), max(last_trade_id)
            FROM market_data.%I
            WHERE tick_bucket >= $1 AND tick_bucket < $2
            GROUP BY 1, 2, 3
        $sql$, target, 'candle_partials_' || level.source) USING p_from, p_to, level.tick_step, level.width, epoch;
    END IF;
    GET DIAGNOSTICS made = ROW_COUNT;
    RETURN made;
END
$$;

COMMENT ON FUNCTION market_data.refresh_candles IS 'Make the partial candles of a window of slices again, from ticks or the level below';
