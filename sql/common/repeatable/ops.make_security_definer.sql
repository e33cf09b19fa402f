-- Loading needs more than rows: partitions, the table of a new encoder's vectors, chunks that are decompressed and
-- compressed again. The functions that do this run with the rights of their owner, so that the role that loads owns
-- nothing and can drop nothing. CREATE OR REPLACE resets these attributes (but not grants), so each file that defines
-- such a function calls this one at its end.
CREATE OR REPLACE FUNCTION ops.make_security_definer(p_function regprocedure) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    -- The path is fixed, because a caller could otherwise substitute tables and operators of its own.
    path constant text := (SELECT string_agg(DISTINCT quote_ident(nspname), ', ') FROM pg_extension
                           JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname IN ('vector', 'timescaledb'));
BEGIN
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, %s, pg_temp', p_function, path);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', p_function);
END
$$;

COMMENT ON FUNCTION ops.make_security_definer IS 'Let a function run with the rights of its owner, on a fixed search path, for roles that were granted it';
