-- The chunks of a hypertable.
CREATE OR REPLACE FUNCTION ops.chunks(p_table text) RETURNS TABLE (name text, range_start timestamptz, range_end timestamptz, compressed boolean)
LANGUAGE sql STABLE
AS $$
    SELECT format('%I.%I', chunk_schema, chunk_name), range_start, range_end, is_compressed
    FROM timescaledb_information.chunks
    WHERE (hypertable_schema, hypertable_name) = (split_part(p_table, '.', 1), split_part(p_table, '.', 2))
$$;

COMMENT ON FUNCTION ops.chunks IS 'The chunks of a hypertable';
