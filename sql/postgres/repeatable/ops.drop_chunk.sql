-- Drops one daily partition; an error if there is none with these bounds.
CREATE OR REPLACE FUNCTION ops.drop_chunk(p_table text, p_start timestamptz, p_end timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    chunk text;
BEGIN
    SELECT name INTO STRICT chunk FROM ops.chunks(p_table) WHERE range_start = p_start AND range_end = p_end;
    EXECUTE format('DROP TABLE %s', chunk);  -- ops.chunks quotes it
END
$$;

COMMENT ON FUNCTION ops.drop_chunk IS 'Drop one daily partition';
