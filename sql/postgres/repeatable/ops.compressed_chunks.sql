-- The same signature as on TimescaleDB, for callers that run on both engines.
CREATE OR REPLACE FUNCTION ops.compressed_chunks(p_table text, p_from timestamptz, p_to timestamptz) RETURNS SETOF text
LANGUAGE sql IMMUTABLE
AS $$ SELECT NULL::text WHERE false $$;

COMMENT ON FUNCTION ops.compressed_chunks IS 'No rows: plain PostgreSQL does not compress';
