-- Policies to run now, in this order. Plain PostgreSQL has no scheduler, so the Dagster job maintain runs them.
CREATE OR REPLACE FUNCTION ops.due_policies() RETURNS SETOF text
LANGUAGE sql STABLE
AS $$
    SELECT job_name FROM ops.retention_jobs
    LEFT JOIN market_data.candle_levels ON hypertable = 'market_data.candle_partials_' || name
    WHERE state = 'applied' AND enabled AND policy ->> 'kind' IN ('drop', 'refresh')
      AND (last_run_at IS NULL OR last_run_at + (policy ->> 'every')::interval <= now())
    ORDER BY width, job_name  -- a level after the level it is made of; drops come last
$$;

COMMENT ON FUNCTION ops.due_policies IS 'Policies to run now; plain PostgreSQL has no scheduler of its own';
