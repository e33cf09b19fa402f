-- Runs when an encoder is registered, by a trigger on signals.models (sql/common/0015_embeddings.sql).
--
-- Requires: ops.make_security_definer
CREATE OR REPLACE FUNCTION signals.create_embeddings_table() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- Searches order by the inner product. It gives the order of the cosine only for vectors of length 1.
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS signals.%I PARTITION OF signals.btc_embeddings ('
        'CONSTRAINT dimension CHECK (vector_dims(embedding) = %s), CONSTRAINT unit_length CHECK (abs(vector_norm(embedding) - 1) < 0.001)'
        ') FOR VALUES IN (%L)',
        signals.embeddings_table(NEW.model_id), NEW.dim, NEW.model_id
    );
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION signals.create_embeddings_table IS 'Makes the partition for the vectors of a newly registered encoder';

SELECT ops.make_security_definer('signals.create_embeddings_table()');
