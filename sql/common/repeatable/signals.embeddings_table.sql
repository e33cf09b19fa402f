-- Each encoder has a table of its own, so that an index never holds the vectors of two encoders.
CREATE OR REPLACE FUNCTION signals.embeddings_table(p_model text) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$ SELECT 'embeddings_' || replace(p_model, '-', '_') $$;

COMMENT ON FUNCTION signals.embeddings_table IS 'Name, within signals, of the partition that holds the vectors of an encoder';
