-- The policies as the server has them: the jobs of TimescaleDB's scheduler on tables of the store.
CREATE OR REPLACE FUNCTION ops.policies_in_force()
RETURNS TABLE (kind text, hypertable text, after interval, until interval, segment_by text[], order_by text[], every interval,
               enabled boolean, last_run_at timestamptz, last_result text, next_run_at timestamptz, job_id integer)
LANGUAGE sql STABLE
AS $$
    WITH job AS (
        SELECT
            jobs.*,
            CASE proc_name
                WHEN 'policy_compression' THEN 'compress'
                WHEN 'policy_refresh_continuous_aggregate' THEN 'refresh'
                WHEN 'policy_retention' THEN 'retention'  -- TimescaleDB's own retention, which the store never declares
                ELSE 'drop'
            END AS kind,
            coalesce(config ->> 'hypertable', view_schema || '.' || view_name, jobs.hypertable_schema || '.' || jobs.hypertable_name) AS target
        FROM timescaledb_information.jobs
        LEFT JOIN timescaledb_information.continuous_aggregates AS aggregate
            ON (materialization_hypertable_schema, materialization_hypertable_name) = (jobs.hypertable_schema, jobs.hypertable_name)
        WHERE proc_name IN ('policy_compression', 'policy_refresh_continuous_aggregate', 'policy_retention')
           OR (proc_schema, proc_name) = ('ops', 'drop_old_chunks')
    ), run AS (
        SELECT job_id, last_run_status, CASE WHEN isfinite(last_run_started_at) THEN last_run_started_at END AS started_at
        FROM timescaledb_information.job_stats
    )
    SELECT
        kind,
        target,
        coalesce(config ->> 'compress_after', config ->> 'drop_after', config ->> 'start_offset')::interval,
        (config ->> 'end_offset')::interval,
        CASE WHEN kind = 'compress' THEN string_to_array(settings.segmentby, ',') END,
        CASE WHEN kind = 'compress' THEN string_to_array(settings.orderby, ',') END,
        schedule_interval,
        scheduled AND next_start IS DISTINCT FROM 'infinity',
        greatest(run.started_at, own.last_run_at),
        CASE
            WHEN own.last_run_at > coalesce(run.started_at, '-infinity') THEN own.last_result  -- run outside the scheduler since then
            WHEN run.last_run_status = 'Failed' THEN 'failed: ' || coalesce((
                SELECT err_message FROM timescaledb_information.job_errors AS error
                WHERE error.job_id = job.job_id ORDER BY start_time DESC LIMIT 1
            ), 'see the server log')
            WHEN kind = 'drop' THEN own.last_result
            WHEN run.last_run_status = 'Success' THEN 'ok'
        END,
        CASE WHEN isfinite(next_start) THEN next_start END,
        job_id
    FROM job
    LEFT JOIN run USING (job_id)
    LEFT JOIN timescaledb_information.hypertable_columnstore_settings AS settings ON settings.hypertable = to_regclass(target)
    LEFT JOIN ops.retention_jobs AS own ON own.job_name = kind || ' ' || target
    WHERE split_part(target, '.', 1) IN ('landing', 'market_data', 'signals', 'ingestion', 'ops')
$$;

COMMENT ON FUNCTION ops.policies_in_force IS 'Policies as the server has them';
