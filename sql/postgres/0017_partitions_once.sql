-- Loaders of one day, at once, where its partition is missing. What another session has made is seen for sure only once a lock
-- on a table is taken: after an advisory one, the name that was looked up before it may still count as free.
CREATE OR REPLACE FUNCTION market_data.ensure_tick_partitions(p_from timestamptz, p_to timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
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
        LOCK TABLE market_data.btc_ticks IN SHARE UPDATE EXCLUSIVE MODE;  -- attaching takes it anyway; it excludes itself
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
