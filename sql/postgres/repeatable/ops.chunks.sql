-- The daily partitions of a table; no partition is compressed.
CREATE OR REPLACE FUNCTION ops.chunks(p_table text) RETURNS TABLE (name text, range_start timestamptz, range_end timestamptz, compressed boolean)
LANGUAGE sql STABLE
AS $$
    SELECT part.oid::regclass::text, bounds[1]::timestamptz, bounds[2]::timestamptz, false
    FROM pg_inherits JOIN pg_class AS part ON part.oid = inhrelid,
         regexp_match(pg_get_expr(part.relpartbound, part.oid), $re$FROM \('(.*?)'\) TO \('(.*?)'\)$re$) AS bounds
    WHERE inhparent = p_table::regclass AND bounds IS NOT NULL
$$;

COMMENT ON FUNCTION ops.chunks IS 'The daily partitions of a table';
