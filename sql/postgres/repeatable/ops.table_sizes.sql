-- Size on disk of the ticks and of the partial candles of each level.
CREATE OR REPLACE FUNCTION ops.table_sizes()
RETURNS TABLE (relation text, total_bytes bigint, chunks bigint, compressed_chunks bigint, bytes_before bigint, bytes_after bigint)
LANGUAGE sql STABLE
AS $$
    -- pg_partition_tree returns no row of level > 0 for a table without partitions, so add the table itself.
    SELECT table_name, (pg_total_relation_size(table_name::regclass) + coalesce(sum(pg_total_relation_size(part.relid)), 0))::bigint,
           count(part.relid), 0::bigint, NULL::bigint, NULL::bigint
    FROM (
        SELECT 'market_data.btc_ticks' AS table_name
        UNION ALL SELECT 'market_data.candle_partials_' || name FROM market_data.candle_levels
    ) AS named
    LEFT JOIN LATERAL pg_partition_tree(table_name::regclass) AS part ON part.level > 0
    GROUP BY table_name ORDER BY table_name
$$;

COMMENT ON FUNCTION ops.table_sizes IS 'Size on disk of ticks and partial candles, indexes included';
