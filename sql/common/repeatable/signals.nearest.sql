-- The k slices of one encoder nearest to a vector, nearest first, out of those that start in [p_from, p_to), without
-- those within p_apart of p_not_near.
--
-- The approximate index answers if it does so as well as measured: without a filter, or with a filter that keeps most
-- rows. With a narrower filter the index would return neighbors that are not the nearest, so all rows are compared.
--
-- Requires: ops.fix_search_path

-- Load pgvector's library into this session. Without it the server does not know the settings in the definition below.
SELECT '[1]'::vector;
CREATE OR REPLACE FUNCTION signals.nearest(
    p_model text, p_embedding vector, p_k integer DEFAULT 10,
    p_from timestamptz DEFAULT '-infinity', p_to timestamptz DEFAULT 'infinity',
    p_not_near timestamptz DEFAULT NULL, p_apart interval DEFAULT '0', p_exact boolean DEFAULT false
) RETURNS TABLE (bucket_5m timestamptz, symbol text, distance double precision, tick_count bigint, label_snapshot jsonb)
LANGUAGE plpgsql STABLE
-- These settings, and those made by set_config below, end with the function.
SET ivfflat.probes = 1
SET ivfflat.iterative_scan = relaxed_order
SET hnsw.ef_search = 40
SET hnsw.iterative_scan = relaxed_order
SET enable_seqscan = on
SET enable_bitmapscan = on
SET enable_sort = on
SET jit = off
AS $$
DECLARE
    model signals.models;
    index signals.embedding_indexes;
    approximate boolean;
    filtered bigint;
    wanted bigint := p_k;
    near_from timestamptz := p_not_near - p_apart;
    near_to timestamptz := p_not_near + p_apart;
    part text := signals.embeddings_table(p_model);
BEGIN
    SELECT * INTO model FROM signals.models WHERE model_id = p_model;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no model %: btc-assets models lists them.', p_model USING ERRCODE = 'BTC02';
    END IF;
    IF vector_dims(p_embedding) <> model.dim THEN
        RAISE EXCEPTION 'The vector has % dimensions, but those of % have %: embed the query with that model.',
            vector_dims(p_embedding), p_model, model.dim USING ERRCODE = 'BTC02';
    END IF;
    IF p_k < 1 THEN
        RAISE EXCEPTION 'The number of neighbours is %: ask for one or more.', p_k USING ERRCODE = 'BTC02';
    END IF;
    p_embedding := l2_normalize(p_embedding);  -- the inner product of vectors of length 1 is the cosine
    SELECT * INTO index FROM signals.embedding_indexes WHERE model_id = p_model;
    -- The recall of the index is measured with the 10 nearest; of the 500 nearest it would miss one in seven.
    approximate := index.model_id IS NOT NULL AND NOT p_exact AND p_k <= 50;
    IF approximate AND near_from IS NOT NULL THEN
        wanted := p_k + 1 + 2 * ceil(greatest(extract(epoch FROM p_apart), 0) / 300);  -- all slices within p_apart may be among the nearest
        approximate := wanted <= p_k + 100;
    END IF;
    IF approximate AND (p_from > '-infinity' OR p_to < 'infinity') THEN
        -- Count rows, not days: with gaps in the data, the number of days says little about the number of rows.
        EXECUTE format($sql$
            SELECT count(*) FROM (
                (SELECT FROM signals.%1$I WHERE bucket_5m < $1 LIMIT $3) UNION ALL (SELECT FROM signals.%1$I WHERE bucket_5m >= $2 LIMIT $3)
            ) AS left_out
        $sql$, part) INTO filtered USING p_from, p_to, 1 + index.rows_built / 10;
        approximate := filtered <= index.rows_built / 10;
    END IF;
    IF NOT approximate THEN
        RETURN QUERY EXECUTE format($sql$
            SELECT bucket_5m, symbol, 1 + (embedding <#> $1), tick_count, label_snapshot FROM signals.%I
            WHERE bucket_5m >= $2 AND bucket_5m < $3 AND embedding IS NOT NULL
                AND ($4 IS NULL OR bucket_5m <= $4 AND bucket_5m <> $6 OR bucket_5m >= $5 AND bucket_5m <> $6)
            ORDER BY 3, 1 LIMIT $7
        $sql$, part) USING p_embedding, p_from, p_to, near_from, near_to, p_not_near, p_k;
        RETURN;
    END IF;
    PERFORM set_config(CASE index.method WHEN 'hnsw' THEN 'hnsw.ef_search' ELSE 'ivfflat.probes' END, index.effort::text, true);
    -- The planner believes that sorting ten thousand vectors is as cheap as the index.
    PERFORM set_config(name, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_sort']) AS name;
    IF index.element = 'halfvec' THEN
        wanted := wanted * 4;  -- half precision confuses neighbors at about the same distance
    END IF;
    -- Order by the expression that the index was built with to find candidates, then by the full vectors.
    RETURN QUERY EXECUTE format($sql$
        SELECT bucket_5m, symbol, distance, tick_count, label_snapshot FROM (
            SELECT bucket_5m, symbol, 1 + (embedding <#> $1) AS distance, tick_count, label_snapshot FROM signals.%1$I
            WHERE bucket_5m >= $2 AND bucket_5m < $3
            ORDER BY (embedding::%2$I(%3$s)) <#> $1::%2$I(%3$s) LIMIT $8
        ) AS found
        WHERE $4 IS NULL OR bucket_5m <= $4 AND bucket_5m <> $6 OR bucket_5m >= $5 AND bucket_5m <> $6
        ORDER BY 3, 1 LIMIT $7
    $sql$, part, index.element, model.dim) USING p_embedding, p_from, p_to, near_from, near_to, p_not_near, p_k, wanted;
END
$$;

COMMENT ON FUNCTION signals.nearest IS 'The k slices nearest to a vector of a model, with their cosine distance';

SELECT ops.fix_search_path('signals.nearest(text, vector, integer, timestamptz, timestamptz, timestamptz, interval, boolean)');
