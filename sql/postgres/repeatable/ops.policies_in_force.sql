-- The policies as the server has them. Plain PostgreSQL has no scheduler: the Dagster job maintain runs what is applied.
CREATE OR REPLACE FUNCTION ops.policies_in_force()
RETURNS TABLE (kind text, hypertable text, after interval, until interval, segment_by text[], order_by text[], every interval,
               enabled boolean, last_run_at timestamptz, last_result text, next_run_at timestamptz)
LANGUAGE sql STABLE
AS $$
    SELECT policy ->> 'kind', hypertable, (policy ->> 'after')::interval, (policy ->> 'until')::interval, NULL::text[], NULL::text[],
           (policy ->> 'every')::interval, enabled, last_run_at, last_result,
           CASE WHEN enabled THEN coalesce(last_run_at + (policy ->> 'every')::interval, now()) END
    FROM ops.retention_jobs
    WHERE state = 'applied' AND policy ->> 'kind' IN ('drop', 'refresh')
$$;

COMMENT ON FUNCTION ops.policies_in_force IS 'Policies as the server has them';
