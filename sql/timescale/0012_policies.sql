CREATE FUNCTION ops.chunks(p_table text) RETURNS TABLE (name text, range_start timestamptz, range_end timestamptz, compressed boolean)
LANGUAGE sql STABLE
AS $$
    SELECT format('%I.%I', chunk_schema, chunk_name), range_start, range_end, is_compressed
    FROM timescaledb_information.chunks
    WHERE (hypertable_schema, hypertable_name) = (split_part(p_table, '.', 1), split_part(p_table, '.', 2))
$$;

COMMENT ON FUNCTION ops.chunks IS 'The chunks of a hypertable';

CREATE FUNCTION ops.compressed_chunks(p_table text, p_from timestamptz, p_to timestamptz) RETURNS SETOF text
LANGUAGE sql STABLE
AS $$ SELECT name FROM ops.chunks(p_table) WHERE compressed AND range_start < p_to AND range_end > p_from $$;

COMMENT ON FUNCTION ops.compressed_chunks IS 'Names of the compressed chunks that a window touches';

CREATE FUNCTION ops.drop_chunk(p_table text, p_start timestamptz, p_end timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- Where the server can (2.28 and later), the drop leaves no invalidation behind, so that even a refresh by hand
    -- over the dropped range keeps the candles.
    PERFORM set_config(name, 'on', true) FROM pg_settings WHERE name = 'timescaledb.skip_cagg_invalidation';
    PERFORM drop_chunks(p_table::regclass, older_than => p_end, newer_than => p_start);
END
$$;

COMMENT ON FUNCTION ops.drop_chunk IS 'Drop one chunk, and leave the candles made of it alone';

-- Writing much into a compressed chunk is slower than decompressing it first (see btc_assets/compressed.py).
CREATE FUNCTION ops.decompress_chunk(p_chunk text) RETURNS void
LANGUAGE sql
AS $$ SELECT decompress_chunk(p_chunk::regclass, if_compressed => true) $$;

COMMENT ON FUNCTION ops.decompress_chunk IS 'Make a chunk a plain table again';

CREATE FUNCTION ops.compress_chunk(p_chunk text) RETURNS void
LANGUAGE sql
AS $$ SELECT compress_chunk(p_chunk::regclass, if_not_compressed => true) $$;

COMMENT ON FUNCTION ops.compress_chunk IS 'Compress a chunk, or what was written into it since it was compressed';

CREATE FUNCTION ops.policies_in_force()
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
                WHEN 'policy_retention' THEN 'retention'  -- TimescaleDB's own, which no policy of ours is
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
            WHEN own.last_run_at > coalesce(run.started_at, '-infinity') THEN own.last_result  -- run outside the scheduler since
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

CREATE FUNCTION ops.apply_policy(p_job_name text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    job ops.retention_jobs;
    wanted text;
    new_id integer;
BEGIN
    SELECT * INTO STRICT job FROM ops.retention_jobs WHERE job_name = p_job_name;
    wanted := job.policy ->> 'kind';
    IF wanted = 'keep' THEN
        RETURN 'applied';
    END IF;
    PERFORM delete_job(old.job_id) FROM ops.policies_in_force() AS old WHERE (old.kind, old.hypertable) = (wanted, job.hypertable);
    IF wanted = 'compress' THEN
        EXECUTE format(
            'ALTER TABLE %s SET (timescaledb.enable_columnstore, timescaledb.segmentby = %L, timescaledb.orderby = %L)',
            job.hypertable::regclass,
            (SELECT string_agg(quote_ident(name), ', ') FROM jsonb_array_elements_text(job.policy -> 'segment_by') AS name),
            (SELECT string_agg(quote_ident(name), ', ') FROM jsonb_array_elements_text(job.policy -> 'order_by') AS name)
        );
        new_id := add_compression_policy(
            job.hypertable::regclass, compress_after => (job.policy ->> 'after')::interval,
            schedule_interval => (job.policy ->> 'every')::interval
        );
    ELSIF wanted = 'refresh' THEN
        new_id := add_continuous_aggregate_policy(
            job.hypertable::regclass, start_offset => (job.policy ->> 'after')::interval,
            end_offset => (job.policy ->> 'until')::interval, schedule_interval => (job.policy ->> 'every')::interval,
            buckets_per_batch => 288  -- a day of slices a transaction, where the default is 50 minutes
        );
    ELSIF wanted = 'drop' THEN
        -- Not add_retention_policy: that drops ticks whether their candles are made or not. Not at once: there is an hour to
        -- think better of it, and compression, which begins at once, fails where a chunk goes that it is about to compress.
        new_id := add_job(
            'ops.drop_old_chunks', (job.policy ->> 'every')::interval, job_name => p_job_name, initial_start => now() + interval '1 hour',
            config => jsonb_build_object('hypertable', job.hypertable, 'drop_after', job.policy ->> 'after')
        );
    END IF;
    PERFORM alter_job(new_id, scheduled => job.enabled);
    RETURN 'applied';
END
$$;

COMMENT ON FUNCTION ops.apply_policy IS 'Make the server do what a declared policy says';

CREATE FUNCTION ops.remove_policy(p_job_name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM delete_job(old.job_id) FROM ops.policies_in_force() AS old JOIN ops.retention_jobs AS job
        ON (old.kind, old.hypertable) = (job.policy ->> 'kind', job.hypertable)
    WHERE job.job_name = p_job_name;
    DELETE FROM ops.retention_jobs WHERE job_name = p_job_name;
END
$$;

COMMENT ON FUNCTION ops.remove_policy IS 'End a policy that is not declared any more';

CREATE PROCEDURE ops.run_policy(p_job_name text)
LANGUAGE plpgsql
AS $$
DECLARE
    id integer;
BEGIN
    SELECT job_id INTO STRICT id FROM ops.policies_in_force() AS running JOIN ops.retention_jobs AS job
        ON (running.kind, running.hypertable) = (job.policy ->> 'kind', job.hypertable)
    WHERE job.job_name = p_job_name;
    CALL run_job(id);
    -- The scheduler's statistics do not count this run.
    UPDATE ops.retention_jobs SET last_run_at = clock_timestamp(),
        last_result = CASE WHEN policy ->> 'kind' = 'drop' THEN last_result ELSE 'ok, run outside the scheduler' END
    WHERE job_name = p_job_name;
END
$$;

COMMENT ON PROCEDURE ops.run_policy IS 'Run a policy now';

-- TimescaleDB runs its policies itself. Where its scheduler fails at one, or does not come to it (not enough workers, or a
-- minor release of PostgreSQL under which background jobs fail), somebody else has to.
CREATE FUNCTION ops.due_policies() RETURNS SETOF text
LANGUAGE sql STABLE
AS $$
    SELECT job.job_name
    FROM ops.policies_in_force() AS running JOIN ops.retention_jobs AS job
        ON (running.kind, running.hypertable) = (job.policy ->> 'kind', job.hypertable)
    LEFT JOIN market_data.candle_levels ON job.hypertable = 'market_data.candle_partials_' || name
    WHERE running.enabled
      AND (running.last_result LIKE 'failed%' OR coalesce(running.last_run_at, job.created_at) + 2 * running.every < now())
    ORDER BY width, job.job_name  -- a level after the one that it is made of, and dropping last
$$;

COMMENT ON FUNCTION ops.due_policies IS 'Policies that the scheduler failed at or does not come to';

CREATE FUNCTION ops.table_sizes()
RETURNS TABLE (relation text, total_bytes bigint, chunks bigint, compressed_chunks bigint, bytes_before bigint, bytes_after bigint)
LANGUAGE sql STABLE
AS $$
    SELECT table_name, coalesce(hypertable_size(storage::regclass), 0),
           (SELECT count(*) FROM show_chunks(table_name::regclass)),
           (SELECT count(*) FROM ops.chunks(storage) WHERE compressed),
           stats.before_compression_total_bytes, stats.after_compression_total_bytes
    FROM (
        SELECT 'market_data.btc_ticks' AS table_name, 'market_data.btc_ticks' AS storage
        UNION ALL
        SELECT 'market_data.candle_partials_' || name, market_data.candle_storage(name) FROM market_data.candle_levels
    ) AS named
    LEFT JOIN LATERAL hypertable_compression_stats(storage::regclass) AS stats ON true
    ORDER BY table_name
$$;

COMMENT ON FUNCTION ops.table_sizes IS 'Size on disk of ticks and partial candles, indexes included';
