-- Size on disk of the ticks and of the partial candles of each level.
--
-- Requires: ops.chunks, market_data.candle_storage
CREATE OR REPLACE FUNCTION ops.table_sizes()
RETURNS TABLE (relation text, total_bytes bigint, chunks bigint, compressed_chunks bigint, bytes_before bigint, bytes_after bigint)
LANGUAGE sql STABLE
AS $$
    SELECT table_name, coalesce(hypertable_size(storage::regclass), 0),
           (SELECT count(*) FROM show_chunks(table_name::regclass)),
           (SELECT count(*) FROM ops.chunks(storage) WHERE compressed),
           stats.before_compression_total_bytes, stats.after_compression_total_bytes
    FROM (
        SELECT 'market_data.btc_ticks' AS table_name, 'market_data.btc_ticks' AS storage
        UNION ALL
        SELECT 'market_data.candle_partials_' || name, market_data.candle_storage(name) FROM market_data.candle_levels
    ) AS named
    LEFT JOIN LATERAL hypertable_compression_stats(storage::regclass) AS stats ON true
    ORDER BY table_name
$$;

COMMENT ON FUNCTION ops.table_sizes IS 'Size on disk of ticks and partial candles, indexes included';
