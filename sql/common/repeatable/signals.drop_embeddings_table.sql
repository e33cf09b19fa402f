-- Called when an encoder is removed.
CREATE OR REPLACE FUNCTION signals.drop_embeddings_table(p_model text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS signals.%I', signals.embeddings_table(p_model));
END
$$;

COMMENT ON FUNCTION signals.drop_embeddings_table IS 'Drops the vectors of an encoder that is no longer registered';
