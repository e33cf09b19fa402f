-- Rows of a table that are older than this may have been dropped by its policy; '-infinity' if it has none.
CREATE OR REPLACE FUNCTION ops.drop_horizon(p_table text) RETURNS timestamptz
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(max(now() - (policy ->> 'after')::interval), '-infinity') FROM ops.retention_jobs
    WHERE job_name = 'drop ' || p_table AND state IN ('applied', 'drifted')
$$;

COMMENT ON FUNCTION ops.drop_horizon IS 'Rows older than this may have been dropped from a table by its policy';
