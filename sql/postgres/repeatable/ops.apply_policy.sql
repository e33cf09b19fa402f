-- Returns the state that a declared policy gets. There is nothing to set up: the Dagster job maintain runs the policies
-- that are applied. Plain PostgreSQL does not compress.
CREATE OR REPLACE FUNCTION ops.apply_policy(p_job_name text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT CASE policy ->> 'kind' WHEN 'compress' THEN 'not supported' ELSE 'applied' END
    FROM ops.retention_jobs WHERE job_name = p_job_name
$$;

COMMENT ON FUNCTION ops.apply_policy IS 'The state of a declared policy; the Dagster job maintain runs the applied ones';
