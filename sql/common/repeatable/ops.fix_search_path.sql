-- A function that uses an extension finds it whatever the search path of its caller: a role may have `pg_catalog` alone.
-- CREATE OR REPLACE resets this, so each file that defines such a function calls this one at its end.
CREATE OR REPLACE FUNCTION ops.fix_search_path(p_function regprocedure) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    path constant text := (SELECT string_agg(DISTINCT quote_ident(nspname), ', ') FROM pg_extension
                           JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname IN ('vector', 'timescaledb'));
BEGIN
    EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %s, pg_temp', p_function, path);
END
$$;

COMMENT ON FUNCTION ops.fix_search_path IS 'Let a function find pgvector and TimescaleDB whatever the search path of its caller';
