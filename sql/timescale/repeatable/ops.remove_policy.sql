-- Deletes the job of a policy that is no longer declared, and forgets the policy.
CREATE OR REPLACE FUNCTION ops.remove_policy(p_job_name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM delete_job(old.job_id) FROM ops.policies_in_force() AS old JOIN ops.retention_jobs AS job
        ON (old.kind, old.hypertable) = (job.policy ->> 'kind', job.hypertable)
    WHERE job.job_name = p_job_name;
    DELETE FROM ops.retention_jobs WHERE job_name = p_job_name;
END
$$;

COMMENT ON FUNCTION ops.remove_policy IS 'End a policy that is no longer declared';
