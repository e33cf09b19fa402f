-- Drops one chunk and keeps the candles made from it.
CREATE OR REPLACE FUNCTION ops.drop_chunk(p_table text, p_start timestamptz, p_end timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- TimescaleDB 2.28 and later can drop a chunk without recording an invalidation. Then even a manual refresh over the
    -- dropped range keeps the candles.
    PERFORM set_config(name, 'on', true) FROM pg_settings WHERE name = 'timescaledb.skip_cagg_invalidation';
    PERFORM drop_chunks(p_table::regclass, older_than => p_end, newer_than => p_start);
END
$$;

COMMENT ON FUNCTION ops.drop_chunk IS 'Drop one chunk and keep the candles made from it';
