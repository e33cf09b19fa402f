-- Decompresses a chunk. Before a large write this is faster than writing into a compressed chunk.
--
-- Requires: ops.make_security_definer
CREATE OR REPLACE FUNCTION ops.decompress_chunk(p_chunk text) RETURNS void
LANGUAGE sql
AS $$ SELECT decompress_chunk(p_chunk::regclass, if_compressed => true) $$;

COMMENT ON FUNCTION ops.decompress_chunk IS 'Decompress a chunk';

SELECT ops.make_security_definer('ops.decompress_chunk(text)');
