-- Creates or replaces the view candles_<level>. A candle is the merge of its partials; how partials are made is told in
-- 0006_candles.sql of the engine. The text is the same on both engines.
CREATE OR REPLACE PROCEDURE market_data.create_candle_view(p_level text)
LANGUAGE plpgsql
AS $procedure$
BEGIN
    EXECUTE format($ddl$
        CREATE OR REPLACE VIEW market_data.%1$I AS
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

        COMMENT ON VIEW market_data.%1$I IS 'Candles of %3$s by trade time, as the exchange defines them; no row if there was no trade';
        COMMENT ON COLUMN market_data.%1$I.bucket IS 'Start of the candle (UTC); filter by it, the index serves that';
        COMMENT ON COLUMN market_data.%1$I.bucket_5m IS 'Slice that the candle starts in';
        COMMENT ON COLUMN market_data.%1$I.symbol IS 'Symbol label of the feed';
        COMMENT ON COLUMN market_data.%1$I.open IS 'Price of the trade with the lowest id';
        COMMENT ON COLUMN market_data.%1$I.high IS 'Highest price';
        COMMENT ON COLUMN market_data.%1$I.low IS 'Lowest price';
        COMMENT ON COLUMN market_data.%1$I.close IS 'Price of the trade with the highest id';
        COMMENT ON COLUMN market_data.%1$I.volume IS 'Base currency traded';
        COMMENT ON COLUMN market_data.%1$I.quote_volume IS 'Quote currency traded: sum of price x quantity';
        COMMENT ON COLUMN market_data.%1$I.trade_count IS 'Number of trades';
        COMMENT ON COLUMN market_data.%1$I.taker_buy_volume IS 'Base currency bought by takers (is_market_maker false)';
        COMMENT ON COLUMN market_data.%1$I.taker_buy_quote_volume IS 'Quote currency of those trades';
        COMMENT ON COLUMN market_data.%1$I.first_trade_id IS 'Lowest trade id';
        COMMENT ON COLUMN market_data.%1$I.last_trade_id IS 'Highest trade id';
    $ddl$, 'candles_' || p_level, 'candle_partials_' || p_level, p_level);
END
$procedure$;

COMMENT ON PROCEDURE market_data.create_candle_view IS 'Create or replace the view of the candles of a level';

-- The views of all levels follow a change of this file, also those of optional levels such as 100 ms.
DO $$
DECLARE
    level text;
BEGIN
    FOR level IN SELECT name FROM market_data.candle_levels ORDER BY width LOOP
        CALL market_data.create_candle_view(level);
    END LOOP;
END
$$;
