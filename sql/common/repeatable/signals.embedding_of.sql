-- The vector of a slice, or an error that says in one sentence why there is none.
CREATE OR REPLACE FUNCTION signals.embedding_of(p_bucket timestamptz, p_model text) RETURNS vector
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    slice signals.btc_embeddings;
    at text := to_char(p_bucket AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"');
BEGIN
    SELECT * INTO slice FROM signals.btc_embeddings AS e WHERE e.model_id = p_model AND e.bucket_5m = p_bucket;
    IF slice.embedding IS NOT NULL THEN
        RETURN slice.embedding;
    ELSIF slice.bucket_5m IS NOT NULL THEN
        RAISE EXCEPTION 'The slice % has too few ticks (%) for an embedding: ask for another.', at, slice.tick_count USING ERRCODE = 'BTC02';
    ELSIF NOT EXISTS (SELECT 1 FROM signals.btc_embeddings AS e WHERE e.model_id = p_model) THEN
        RAISE EXCEPTION 'There are no embeddings of % yet: run btc-assets models activate %.', p_model, p_model USING ERRCODE = 'BTC02';
    ELSIF NOT EXISTS (SELECT 1 FROM landing.raw_blobs_5m AS blob WHERE blob.bucket_5m = p_bucket AND blob.loaded_at IS NOT NULL) THEN
        RAISE EXCEPTION 'The slice % was never loaded: load it first (btc-assets load).', at USING ERRCODE = 'BTC02';
    END IF;
    RAISE EXCEPTION 'The slice % is not embedded with % yet: materialise signals/btc_embeddings there.', at, p_model USING ERRCODE = 'BTC02';
END
$$;

COMMENT ON FUNCTION signals.embedding_of IS 'The vector of a slice in a model; raises an error that says why there is none';
