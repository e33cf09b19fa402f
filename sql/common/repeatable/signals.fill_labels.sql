-- Labels the embeddings of the slices from p_from to p_to with what the next slice brought. The slice before p_from is
-- included, because its next slice is the first of the window.
CREATE OR REPLACE FUNCTION signals.fill_labels(p_model text, p_from timestamptz, p_to timestamptz) RETURNS bigint
LANGUAGE sql
AS $$
    WITH labels AS (
        SELECT slice.bucket_5m, slice.symbol, CASE WHEN next.bucket_5m IS NOT NULL THEN jsonb_build_object(
            'next_return', next.log_return, 'next_realized_volatility', next.realized_volatility,
            'next_volume', next.volume, 'next_trade_count', next.trade_count::bigint
        ) END AS label_snapshot
        FROM signals.btc_embeddings AS slice
        LEFT JOIN signals.slice_features AS next
            ON next.bucket_5m = slice.bucket_5m + interval '5 minutes' AND next.symbol = slice.symbol
        WHERE slice.model_id = p_model AND slice.bucket_5m >= p_from - interval '5 minutes' AND slice.bucket_5m < p_to
        ORDER BY slice.bucket_5m
    ), filled AS (
        UPDATE signals.btc_embeddings AS slice SET label_snapshot = labels.label_snapshot FROM labels
        WHERE slice.model_id = p_model AND slice.bucket_5m = labels.bucket_5m AND slice.symbol = labels.symbol
            AND slice.label_snapshot IS DISTINCT FROM labels.label_snapshot
        RETURNING 1
    )
    SELECT count(*) FROM filled
$$;

COMMENT ON FUNCTION signals.fill_labels IS 'Writes the labels of the embeddings of a window, taken from the slice after each; returns how many changed';
