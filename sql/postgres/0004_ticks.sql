CREATE TABLE market_data.btc_ticks (
    bucket_5m       timestamptz    NOT NULL,
    event_time      timestamptz    NOT NULL,
    trade_time      timestamptz    NOT NULL,
    symbol          text           NOT NULL,
    trade_id        bigint         NOT NULL,
    price           numeric(18, 8) NOT NULL,
    quantity        numeric(24, 12) NOT NULL,
    buyer_order_id  bigint,
    seller_order_id bigint,
    is_market_maker boolean        NOT NULL,
    PRIMARY KEY (bucket_5m, symbol, trade_id)
) PARTITION BY RANGE (bucket_5m);

-- Makes the daily partitions of [from, to) that are not there yet. Filling a table and attaching it needs only
-- SHARE UPDATE EXCLUSIVE on the parent, so readers and other loaders go on; CREATE ... PARTITION OF would stop them.
CREATE FUNCTION market_data.ensure_tick_partitions(p_from timestamptz, p_to timestamptz) RETURNS integer
LANGUAGE plpgsql
SET timezone = 'UTC'
AS $$
DECLARE
    day timestamptz;
    part text;
    made integer := 0;
BEGIN
    FOR day IN SELECT generate_series(date_trunc('day', p_from), p_to - interval '1 microsecond', interval '1 day') LOOP
        part := 'btc_ticks_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('market_data.' || part) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('market_data.ensure_tick_partitions'));
        CONTINUE WHEN to_regclass('market_data.' || part) IS NOT NULL;
        EXECUTE format('CREATE TABLE market_data.%I (LIKE market_data.btc_ticks INCLUDING DEFAULTS)', part);
        EXECUTE format(
            'ALTER TABLE market_data.btc_ticks ATTACH PARTITION market_data.%I FOR VALUES FROM (%L) TO (%L)',
            part, day, day + interval '1 day'
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

COMMENT ON FUNCTION market_data.ensure_tick_partitions IS 'Make the daily partitions of a window that are missing; returns how many were';
