-- "When did the market look like this before?"
CREATE OR REPLACE FUNCTION signals.similar_slices(
    p_bucket timestamptz, p_k integer DEFAULT 10, p_before_only boolean DEFAULT false,
    p_from timestamptz DEFAULT '-infinity', p_to timestamptz DEFAULT 'infinity', p_apart interval DEFAULT '0',
    p_symbol text DEFAULT NULL, p_model text DEFAULT NULL, p_exact boolean DEFAULT false
) RETURNS TABLE (bucket_5m timestamptz, symbol text, distance double precision, tick_count bigint, label_snapshot jsonb)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    slice timestamptz := date_bin('5 minutes', p_bucket, '1970-01-01 00:00:00+00');
    model text := coalesce(p_model, signals.active_model(p_symbol));
BEGIN
    IF NOT EXISTS (SELECT 1 FROM signals.models AS m WHERE m.model_id = model) THEN
        RAISE EXCEPTION 'There is no model %: btc-assets models lists them.', model USING ERRCODE = 'BTC02';
    ELSIF NOT EXISTS (SELECT 1 FROM signals.models AS m WHERE m.model_id = model AND m.symbol = coalesce(p_symbol, m.symbol)) THEN
        RAISE EXCEPTION 'The model % is not one of %: leave out one of both.', model, p_symbol USING ERRCODE = 'BTC02';
    END IF;
    RETURN QUERY SELECT * FROM signals.nearest(
        model, signals.embedding_of(slice, model), p_k,
        p_from, CASE WHEN p_before_only THEN least(p_to, slice) ELSE p_to END, slice, p_apart, p_exact
    );
END
$$;

COMMENT ON FUNCTION signals.similar_slices IS
    'The k slices that look most like the slice of p_bucket, nearest first, without that slice and those within p_apart of it';
