-- The compressed chunks that overlap [p_from, p_to).
--
-- Requires: ops.chunks
CREATE OR REPLACE FUNCTION ops.compressed_chunks(p_table text, p_from timestamptz, p_to timestamptz) RETURNS SETOF text
LANGUAGE sql STABLE
AS $$ SELECT name FROM ops.chunks(p_table) WHERE compressed AND range_start < p_to AND range_end > p_from $$;

COMMENT ON FUNCTION ops.compressed_chunks IS 'Names of the compressed chunks that a window touches';
