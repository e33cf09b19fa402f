-- Compresses a chunk again, after rows were written to it.
--
-- Requires: ops.make_security_definer
CREATE OR REPLACE FUNCTION ops.compress_chunk(p_chunk text) RETURNS void
LANGUAGE sql
AS $$ SELECT compress_chunk(p_chunk::regclass, if_not_compressed => true) $$;

COMMENT ON FUNCTION ops.compress_chunk IS 'Compress a chunk, or the rows written to it since it was compressed';

SELECT ops.make_security_definer('ops.compress_chunk(text)');
