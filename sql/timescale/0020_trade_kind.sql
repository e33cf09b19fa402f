-- Takes milliseconds however large the store is: neither ticks, compressed or not, nor candles are rewritten.
ALTER TABLE market_data.btc_ticks ADD COLUMN trade_kind text;

COMMENT ON COLUMN market_data.btc_ticks.trade_kind IS 'Kind of the trade as the exchange tells it: MARKET, or INSURANCE_FUND, ADL and others, which candles and features leave out; NULL where it is not told';

-- From now on, candles are made of market trades alone. The rows that they have stay as they are, which is right, because no tick of
-- before tells its kind, and which is all that is left where the ticks were dropped.
--
-- TimescaleDB has no statement that changes the query of a continuous aggregate. It keeps that query in two views of the aggregate's
-- owner: the one that a refresh reads, and the one that it copies if somebody asks for real-time aggregation. Both get a condition. A
-- view's query is its rule named _RETURN, which the owner may replace in a schema in which it may not create anything. Columns, rows,
-- policies, invalidations and the levels built on this one are not touched. Levels that are made of other levels need no condition.
DO $$
DECLARE
    view regclass;
    body text;
    filtered text;
    condition constant text := 'btc_ticks.trade_kind IS NULL OR btc_ticks.trade_kind = ''MARKET''';
BEGIN
    FOR view IN
        SELECT format('%I.%I', view_schema, view_name)::regclass
        FROM market_data.candle_levels AS level
        JOIN _timescaledb_catalog.continuous_agg AS aggregate
            ON (user_view_schema, user_view_name) = ('market_data', 'candle_partials_' || level.name)
        CROSS JOIN LATERAL (VALUES (partial_view_schema, partial_view_name), (direct_view_schema, direct_view_name)) AS query(view_schema, view_name)
        WHERE level.source IS NULL
    LOOP
        body := pg_get_viewdef(view);
        filtered := regexp_replace(body, '(FROM (market_data\.)?btc_ticks)(\s+GROUP BY )', '\1 WHERE ' || condition || '\3');
        IF filtered = body THEN
            RAISE EXCEPTION USING ERRCODE = 'BTC02', MESSAGE = format('The query of the view %s is not the one that this migration expects: %s', view, body);
        END IF;
        EXECUTE format('CREATE OR REPLACE RULE "_RETURN" AS ON SELECT TO %s DO INSTEAD %s', view, filtered);
    END LOOP;
END
$$;
