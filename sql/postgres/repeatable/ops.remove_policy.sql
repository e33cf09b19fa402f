-- Forgets a policy that is no longer declared.
CREATE OR REPLACE FUNCTION ops.remove_policy(p_job_name text) RETURNS void
LANGUAGE sql
AS $$ DELETE FROM ops.retention_jobs WHERE job_name = p_job_name $$;

COMMENT ON FUNCTION ops.remove_policy IS 'Forget a policy that is no longer declared';
