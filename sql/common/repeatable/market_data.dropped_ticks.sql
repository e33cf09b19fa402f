-- NULL, or why the candles of the slices in [p_from, p_to) cannot be made again. The registry says which slices were
-- loaded, and with how many rows. If the tick table has none of these rows, they were dropped, by a policy or by hand.
--
-- For each loaded slice, one lookup in the primary key, limited to the partitions of the window. Without LATERAL and the
-- repeated bounds, the planner hashes the ticks of all days, which takes longer the more days there are.
CREATE OR REPLACE FUNCTION market_data.dropped_ticks(p_from timestamptz, p_to timestamptz) RETURNS text
LANGUAGE sql STABLE
SET timezone = 'UTC'
AS $$
    SELECT format(
        'the ticks of %s slice(s) from %s to %s were dropped since they were loaded, and refreshing would erase their candles',
        count(*), to_char(min(loaded.bucket_5m), 'YYYY-MM-DD"T"HH24:MI"Z"'),
        to_char(max(loaded.bucket_5m) + interval '5 minutes', 'YYYY-MM-DD"T"HH24:MI"Z"')
    )
    FROM (
        SELECT bucket_5m, asset FROM landing.raw_blobs_5m
        WHERE bucket_5m >= p_from AND bucket_5m < p_to AND loaded_at IS NOT NULL AND loaded_rows > 0
        GROUP BY bucket_5m, asset
    ) AS loaded
    LEFT JOIN LATERAL (
        SELECT true AS there FROM market_data.btc_ticks AS tick
        WHERE tick.bucket_5m = loaded.bucket_5m AND tick.symbol = loaded.asset AND tick.bucket_5m >= p_from AND tick.bucket_5m < p_to
        LIMIT 1
    ) AS stored ON true
    WHERE stored.there IS NULL
    HAVING count(*) > 0
$$;

COMMENT ON FUNCTION market_data.dropped_ticks IS 'NULL, or why the candles of a window of slices cannot be made again';
