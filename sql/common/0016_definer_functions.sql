-- What loading needs beside rows: partitions, the table of a new encoder's vectors, and chunks made plain and compressed again.
-- These functions act as their owner, so that the role which loads has to own nothing, and can drop nothing.
DO $$
DECLARE
    -- Fixed, or whoever calls could have them find tables and operators of their own.
    path constant text := (SELECT string_agg(DISTINCT quote_ident(nspname), ', ') FROM pg_extension
                           JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname IN ('vector', 'timescaledb'));
    signature text;
BEGIN
    FOR signature IN
        SELECT format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid))
        FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
        WHERE (nspname, proname) IN (('market_data', 'ensure_tick_partitions'), ('signals', 'create_embeddings_table'),
                                     ('ops', 'compress_chunk'), ('ops', 'decompress_chunk'))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, %s, pg_temp', signature, path);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', signature);
    END LOOP;
END
$$;
