-- The same text on both engines: a candle is the merge of its partials (see the candles migration of the engine).

DO $$
DECLARE
    level text;
    relation text;
BEGIN
    FOREACH level IN ARRAY ARRAY['1s', '30s', '1m', '5m', '1h', '1d'] LOOP
        EXECUTE format($ddl$
            CREATE VIEW market_data.%1$I AS
            SELECT
                bucket,
                date_bin('5 minutes', bucket, '1970-01-01 00:00:00+00') AS bucket_5m,
                symbol,
                (array_agg(open ORDER BY first_trade_id))[1] AS open,
                max(high) AS high,
                min(low) AS low,
                (array_agg(close ORDER BY last_trade_id DESC))[1] AS close,
                sum(volume) AS volume,
                sum(quote_volume) AS quote_volume,
                sum(trade_count)::bigint AS trade_count,
                sum(taker_buy_volume) AS taker_buy_volume,
                sum(taker_buy_quote_volume) AS taker_buy_quote_volume,
                min(first_trade_id) AS first_trade_id,
                max(last_trade_id) AS last_trade_id
            FROM market_data.%2$I
            GROUP BY bucket, symbol;
            COMMENT ON VIEW market_data.%1$I IS 'Candles of %3$s by trade time, as the exchange defines them; no row where there was no trade';
            COMMENT ON COLUMN market_data.%1$I.bucket IS 'Start of the candle (UTC); filter by it, the index serves that';
            COMMENT ON COLUMN market_data.%1$I.bucket_5m IS 'Slice that the candle starts in';
            COMMENT ON COLUMN market_data.%2$I.bucket IS 'Start of the candle that this is a part of (UTC)';
        $ddl$, 'candles_' || level, 'candle_partials_' || level, level);
        FOREACH relation IN ARRAY ARRAY['candles_' || level, 'candle_partials_' || level] LOOP
            EXECUTE format($ddl$
                COMMENT ON COLUMN market_data.%1$I.symbol IS 'Symbol label of the feed';
                COMMENT ON COLUMN market_data.%1$I.open IS 'Price of the trade with the lowest id';
                COMMENT ON COLUMN market_data.%1$I.high IS 'Highest price';
                COMMENT ON COLUMN market_data.%1$I.low IS 'Lowest price';
                COMMENT ON COLUMN market_data.%1$I.close IS 'Price of the trade with the highest id';
                COMMENT ON COLUMN market_data.%1$I.volume IS 'Base currency traded';
                COMMENT ON COLUMN market_data.%1$I.quote_volume IS 'Quote currency traded: sum of price x quantity';
                COMMENT ON COLUMN market_data.%1$I.trade_count IS 'Trades';
                COMMENT ON COLUMN market_data.%1$I.taker_buy_volume IS 'Base currency bought by takers (is_market_maker false)';
                COMMENT ON COLUMN market_data.%1$I.taker_buy_quote_volume IS 'Quote currency of those trades';
                COMMENT ON COLUMN market_data.%1$I.first_trade_id IS 'Lowest trade id';
                COMMENT ON COLUMN market_data.%1$I.last_trade_id IS 'Highest trade id';
            $ddl$, relation);
        END LOOP;
    END LOOP;
END
$$;
