-- Loading needs more than rows: partitions, the table of a new encoder's vectors, chunks that are decompressed and
-- compressed again. The functions that do this run with the rights of their owner, so that the role that loads owns
-- nothing and can drop nothing. --
-- Requires: ops.fix_search_path
CREATE OR REPLACE FUNCTION ops.make_security_definer(p_function regprocedure) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- The path is fixed, because a caller could otherwise substitute tables and operators of its own.
    PERFORM ops.fix_search_path(p_function);
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', p_function);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', p_function);
END
$$;

COMMENT ON FUNCTION ops.make_security_definer IS 'Let a function run with the rights of its owner, on a fixed search path, for roles that were granted it';
