-- One look into the primary key for each slice that was loaded, in the partitions of the window alone. Left to choose, and not told
-- that ticks outside the window do not matter, the planner hashed the ticks of all days: the more days there were, the longer it took.
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
