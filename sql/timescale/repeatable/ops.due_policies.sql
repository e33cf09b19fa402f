-- TimescaleDB runs its policies itself. If its scheduler fails or does not get to one (too few workers, or a minor release
-- of PostgreSQL under which background jobs fail), the Dagster job maintain runs the policies listed here, in this order.
--
-- Requires: ops.policies_in_force
CREATE OR REPLACE FUNCTION ops.due_policies() RETURNS SETOF text
LANGUAGE sql STABLE
AS $$
    SELECT job.job_name
    FROM ops.policies_in_force() AS running JOIN ops.retention_jobs AS job
        ON (running.kind, running.hypertable) = (job.policy ->> 'kind', job.hypertable)
    LEFT JOIN market_data.candle_levels ON job.hypertable = 'market_data.candle_partials_' || name
    WHERE running.enabled
      AND (running.last_result LIKE 'failed%' OR coalesce(running.last_run_at, job.created_at) + 2 * running.every < now())
    ORDER BY width, job.job_name  -- a level after the level it is made of; drops come last
$$;

COMMENT ON FUNCTION ops.due_policies IS 'Policies to run now, because the scheduler failed or does not get to them';
