-- Runs a policy's job now, outside the scheduler.
CREATE OR REPLACE PROCEDURE ops.run_policy(p_job_name text)
LANGUAGE plpgsql
AS $$
DECLARE
    id integer;
BEGIN
    SELECT job_id INTO STRICT id FROM ops.policies_in_force() AS running JOIN ops.retention_jobs AS job
        ON (running.kind, running.hypertable) = (job.policy ->> 'kind', job.hypertable)
    WHERE job.job_name = p_job_name;
    CALL run_job(id);
    -- The scheduler's statistics leave out this run, so record it here.
    UPDATE ops.retention_jobs SET last_run_at = clock_timestamp(),
        last_result = CASE WHEN policy ->> 'kind' = 'drop' THEN last_result ELSE 'ok, run outside the scheduler' END
    WHERE job_name = p_job_name;
END
$$;

COMMENT ON PROCEDURE ops.run_policy IS 'Run a policy now';
