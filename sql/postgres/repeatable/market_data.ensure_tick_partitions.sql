-- Makes the daily partitions of [p_from, p_to) that do not exist yet. Filling a table and attaching it needs only SHARE
-- UPDATE EXCLUSIVE on the parent, so readers and other loaders go on; CREATE TABLE ... PARTITION OF would block them.
--
-- Several loaders may need the same day at once. Only after taking a lock on a table does a session see for certain what
-- other sessions created before; after an advisory lock, a name that was looked up earlier may still count as free.
--
-- It runs with the rights of its owner, as ops.make_security_definer explains.
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
        LOCK TABLE market_data.btc_ticks IN SHARE UPDATE EXCLUSIVE MODE;  -- conflicts with itself; attaching needs it anyway
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

COMMENT ON FUNCTION market_data.ensure_tick_partitions IS 'Make the daily partitions of a window that are missing; returns how many it made';

REVOKE EXECUTE ON FUNCTION market_data.ensure_tick_partitions FROM PUBLIC;
