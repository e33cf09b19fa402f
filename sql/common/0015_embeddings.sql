-- Embeddings: a vector for each slice and encoder, indexed and searched within one encoder's, never across two.

-- Loads pgvector's library into this session, which makes its settings known: functions below set them.
SELECT '[1]'::vector;

CREATE TABLE signals.models (
    model_id       text        PRIMARY KEY CHECK (model_id ~ '^[a-z][a-z0-9-]{0,40}$'),
    kind           text        NOT NULL,
    symbol         text        NOT NULL,
    dim            integer     NOT NULL CHECK (dim BETWEEN 2 AND 2000),
    feature_schema text        NOT NULL,
    trained_from   timestamptz NOT NULL,
    trained_to     timestamptz NOT NULL,
    metrics        jsonb       NOT NULL DEFAULT '{}',
    uri            text        NOT NULL,
    kept_up        boolean     NOT NULL DEFAULT false,
    active         boolean     NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX models_active ON signals.models (symbol) WHERE active;

COMMENT ON TABLE signals.models IS 'Trained encoders; each is immutable and named after a hash of its content';
COMMENT ON COLUMN signals.models.model_id IS 'Kind and 16 hexadecimal digits of the hash of weights, scaler and feature schema';
COMMENT ON COLUMN signals.models.kind IS 'Kind of encoder: rocket-pca or tcn';
COMMENT ON COLUMN signals.models.symbol IS 'Symbol that it was trained on and embeds';
COMMENT ON COLUMN signals.models.dim IS 'Dimension of its vectors';
COMMENT ON COLUMN signals.models.feature_schema IS 'Digest of the features and bar channels that it takes in';
COMMENT ON COLUMN signals.models.trained_from IS 'First slice that it was trained on (UTC)';
COMMENT ON COLUMN signals.models.trained_to IS 'End of the last slice that it was trained on; what is evaluated must lie after it';
COMMENT ON COLUMN signals.models.metrics IS 'How training went';
COMMENT ON COLUMN signals.models.uri IS 'Where its weights lie';
COMMENT ON COLUMN signals.models.kept_up IS 'Whether new slices are embedded with it';
COMMENT ON COLUMN signals.models.active IS 'Whether it answers searches; one for each symbol';
COMMENT ON COLUMN signals.models.created_at IS 'When it was registered';

CREATE TABLE signals.btc_embeddings (
    bucket_5m      timestamptz NOT NULL,
    symbol         text        NOT NULL,
    model_id       text        NOT NULL,
    embedding      vector,
    tick_count     bigint      NOT NULL,
    label_snapshot jsonb,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket_5m, symbol, model_id)
) PARTITION BY LIST (model_id);

COMMENT ON TABLE signals.btc_embeddings IS 'A vector of length 1 for each slice and encoder; vectors of two encoders have nothing to do with each other';
COMMENT ON COLUMN signals.btc_embeddings.bucket_5m IS 'Start of the slice (UTC)';
COMMENT ON COLUMN signals.btc_embeddings.symbol IS 'Symbol';
COMMENT ON COLUMN signals.btc_embeddings.model_id IS 'Encoder that made the vector, see signals.models';
COMMENT ON COLUMN signals.btc_embeddings.embedding IS 'The vector; NULL where the slice has too few ticks';
COMMENT ON COLUMN signals.btc_embeddings.tick_count IS 'Ticks of the slice';
COMMENT ON COLUMN signals.btc_embeddings.label_snapshot IS 'What the next slice brought: next_return, next_realized_volatility, next_volume, next_trade_count; NULL until it is known, and never an input';
COMMENT ON COLUMN signals.btc_embeddings.created_at IS 'When the row was written';

-- Each encoder has a table of its own, so that an index never holds vectors of two.
CREATE FUNCTION signals.embeddings_table(p_model text) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$ SELECT 'embeddings_' || replace(p_model, '-', '_') $$;

COMMENT ON FUNCTION signals.embeddings_table IS 'Name, within signals, of the partition that holds the vectors of an encoder';

CREATE FUNCTION signals.create_embeddings_table() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- Searches go by inner product, which orders as the cosine does among vectors of length 1 only.
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS signals.%I PARTITION OF signals.btc_embeddings ('
        'CONSTRAINT dimension CHECK (vector_dims(embedding) = %s), CONSTRAINT unit_length CHECK (abs(vector_norm(embedding) - 1) < 0.001)'
        ') FOR VALUES IN (%L)',
        signals.embeddings_table(NEW.model_id), NEW.dim, NEW.model_id
    );
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION signals.create_embeddings_table IS 'Makes the partition of an encoder that is registered';

CREATE TRIGGER create_embeddings_table AFTER INSERT ON signals.models FOR EACH ROW EXECUTE FUNCTION signals.create_embeddings_table();

-- Sets the labels of the slices from p_from to p_to and of the one before, whose next slice is the first of them.
CREATE FUNCTION signals.fill_labels(p_model text, p_from timestamptz, p_to timestamptz) RETURNS bigint
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

COMMENT ON FUNCTION signals.fill_labels IS 'Writes what the next slice brought into the embeddings of a window; returns how many changed';

CREATE TABLE signals.embedding_indexes (
    model_id   text        PRIMARY KEY REFERENCES signals.models ON DELETE CASCADE,
    index_name text        NOT NULL,
    method     text        NOT NULL CHECK (method IN ('ivfflat', 'hnsw')),
    element    text        NOT NULL CHECK (element IN ('vector', 'halfvec')),
    lists      integer,
    effort     integer     NOT NULL CHECK (effort > 0),
    rows_built bigint      NOT NULL,
    recall     real        NOT NULL,
    built_at   timestamptz NOT NULL DEFAULT now(),
    checked_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE signals.embedding_indexes IS 'The approximate index of each encoder that has one, and how well it answers';
COMMENT ON COLUMN signals.embedding_indexes.model_id IS 'Encoder';
COMMENT ON COLUMN signals.embedding_indexes.index_name IS 'Name of the index, within signals';
COMMENT ON COLUMN signals.embedding_indexes.method IS 'ivfflat or hnsw';
COMMENT ON COLUMN signals.embedding_indexes.element IS 'What it holds: vector (4 bytes a number) or halfvec (2), whose answers are put in order by the vectors themselves';
COMMENT ON COLUMN signals.embedding_indexes.lists IS 'ivfflat: number of lists';
COMMENT ON COLUMN signals.embedding_indexes.effort IS 'How far a search looks: ivfflat.probes or hnsw.ef_search';
COMMENT ON COLUMN signals.embedding_indexes.rows_built IS 'Vectors when it was built';
COMMENT ON COLUMN signals.embedding_indexes.recall IS 'Of the 10 nearest, the share that it finds; measured against exact search';
COMMENT ON COLUMN signals.embedding_indexes.built_at IS 'When it was built';
COMMENT ON COLUMN signals.embedding_indexes.checked_at IS 'When its recall was last measured';

-- The k nearest slices to a vector, nearest first, out of those of one encoder that start in [p_from, p_to), but not within p_apart of p_not_near.
--
-- By the index where it answers as well as it was measured to: without a filter, or with one that leaves most rows. A
-- narrower filter would have it return neighbours that are not the nearest, so there the rows themselves are compared.
CREATE FUNCTION signals.nearest(
    p_model text, p_embedding vector, p_k integer DEFAULT 10,
    p_from timestamptz DEFAULT '-infinity', p_to timestamptz DEFAULT 'infinity',
    p_not_near timestamptz DEFAULT NULL, p_apart interval DEFAULT '0', p_exact boolean DEFAULT false
) RETURNS TABLE (bucket_5m timestamptz, symbol text, distance double precision, tick_count bigint, label_snapshot jsonb)
LANGUAGE plpgsql STABLE
-- What is set below ends with the function.
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
    p_embedding := l2_normalize(p_embedding);  -- whose inner product with the others is the cosine
    SELECT * INTO index FROM signals.embedding_indexes WHERE model_id = p_model;
    -- The index is measured by the 10 nearest; of the 500 nearest it would miss one in seven.
    approximate := index.model_id IS NOT NULL AND NOT p_exact AND p_k <= 50;
    IF approximate AND near_from IS NOT NULL THEN
        wanted := p_k + 1 + 2 * ceil(greatest(extract(epoch FROM p_apart), 0) / 300);  -- the near ones may all be among the nearest
        approximate := wanted <= p_k + 100;
    END IF;
    IF approximate AND (p_from > '-infinity' OR p_to < 'infinity') THEN
        -- Rows are counted, not days: where there are gaps, the one says little of the other.
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
    -- The planner thinks that sorting some ten thousand vectors is as cheap.
    PERFORM set_config(name, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_sort']) AS name;
    IF index.element = 'halfvec' THEN
        wanted := wanted * 4;  -- half precision confuses neighbours that are about as near
    END IF;
    -- The index orders by what it holds, in the expression that it was built with; the rows are put in order by the vectors.
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

COMMENT ON FUNCTION signals.nearest IS 'The k nearest slices to a vector of a model, with their cosine distance';

-- The vector of a slice, or one sentence why there is none.
CREATE FUNCTION signals.embedding_of(p_bucket timestamptz, p_model text) RETURNS vector
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

CREATE FUNCTION signals.active_model(p_symbol text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found text[] := ARRAY(SELECT model_id FROM signals.models WHERE active AND symbol = coalesce(p_symbol, symbol) ORDER BY symbol);
BEGIN
    IF cardinality(found) = 1 THEN
        RETURN found[1];
    ELSIF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'Several symbols have embeddings: name one of %.',
            (SELECT string_agg(symbol, ', ' ORDER BY symbol) FROM signals.models WHERE active) USING ERRCODE = 'BTC02';
    END IF;
    RAISE EXCEPTION 'No model is active%: train one (btc-assets train) and activate it (btc-assets models activate).',
        coalesce(' for ' || p_symbol, '') USING ERRCODE = 'BTC02';
END
$$;

COMMENT ON FUNCTION signals.active_model IS 'The model that answers searches for a symbol, or for the only one that has any';

-- "When did the market look like this before?"
CREATE FUNCTION signals.similar_slices(
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
    'The k slices that look most like the one of p_bucket, nearest first, without itself and what lies within p_apart of it';

CREATE FUNCTION signals.drop_embeddings_table(p_model text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS signals.%I', signals.embeddings_table(p_model));
END
$$;

COMMENT ON FUNCTION signals.drop_embeddings_table IS 'Drops the vectors of an encoder that is not registered any more';
