CREATE FUNCTION ops.chunks(p_table text) RETURNS TABLE (name text, range_start timestamptz, range_end timestamptz, compressed boolean)
LANGUAGE sql STABLE
AS $$
    SELECT part.oid::regclass::text, bounds[1]::timestamptz, bounds[2]::timestamptz, false
    FROM pg_inherits JOIN pg_class AS part ON part.oid = inhrelid,
         regexp_match(pg_get_expr(part.relpartbound, part.oid), $re$FROM \('(.*?)'\) TO \('(.*?)'\)$re$) AS bounds
    WHERE inhparent = p_table::regclass AND bounds IS NOT NULL
$$;

COMMENT ON FUNCTION ops.chunks IS 'The daily partitions of a table';

CREATE FUNCTION ops.compressed_chunks(p_table text, p_from timestamptz, p_to timestamptz) RETURNS SETOF text
LANGUAGE sql IMMUTABLE
AS $$ SELECT NULL::text WHERE false $$;

COMMENT ON FUNCTION ops.compressed_chunks IS 'None: this server does not compress';

CREATE FUNCTION ops.drop_chunk(p_table text, p_start timestamptz, p_end timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    chunk text;
BEGIN
    SELECT name INTO STRICT chunk FROM ops.chunks(p_table) WHERE range_start = p_start AND range_end = p_end;
    EXECUTE format('DROP TABLE %s', chunk);  -- ops.chunks quotes it
END
$$;

COMMENT ON FUNCTION ops.drop_chunk IS 'Drop one daily partition';

CREATE FUNCTION ops.apply_policy(p_job_name text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT CASE policy ->> 'kind' WHEN 'compress' THEN 'not supported' ELSE 'applied' END
    FROM ops.retention_jobs WHERE job_name = p_job_name
$$;

COMMENT ON FUNCTION ops.apply_policy IS 'State of a declared policy: the Dagster job maintain runs what is applied';

CREATE FUNCTION ops.remove_policy(p_job_name text) RETURNS void
LANGUAGE sql
AS $$ DELETE FROM ops.retention_jobs WHERE job_name = p_job_name $$;

COMMENT ON FUNCTION ops.remove_policy IS 'Forget a policy that is not declared any more';

CREATE FUNCTION ops.policies_in_force()
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

CREATE PROCEDURE ops.run_policy(p_job_name text)
LANGUAGE plpgsql
AS $$
DECLARE
    job ops.retention_jobs;
    level text;
    day timestamptz;
    first timestamptz;
    until timestamptz;
    partials bigint;
    made integer := 0;
BEGIN
    SELECT * INTO STRICT job FROM ops.retention_jobs WHERE job_name = p_job_name;
    IF job.policy ->> 'kind' = 'drop' THEN
        CALL ops.drop_old_chunks(0, jsonb_build_object('hypertable', job.hypertable, 'drop_after', job.policy ->> 'after'));
    ELSIF job.policy ->> 'kind' = 'refresh' THEN
        level := substring(job.hypertable FROM 'candle_partials_(.*)$');
        first := date_bin('5 minutes', now() - (job.policy ->> 'after')::interval, '1970-01-01 00:00:00+00');
        until := date_bin('5 minutes', now() - (job.policy ->> 'until')::interval, '1970-01-01 00:00:00+00');
        FOR day IN SELECT generate_series(date_trunc('day', first, 'UTC'), until, interval '1 day') LOOP
            IF least(day + interval '1 day', until) > greatest(day, first)
               AND market_data.outdated_candles(level, greatest(day, first), least(day + interval '1 day', until)) IS NOT NULL THEN
                CALL market_data.refresh_candles(level, greatest(day, first), least(day + interval '1 day', until), partials);
                made := made + 1;
                COMMIT;
            END IF;
        END LOOP;
        UPDATE ops.retention_jobs SET last_run_at = now(), last_result = format('ok, refreshed %s day(s)', made) WHERE job_name = p_job_name;
    END IF;
END
$$;

COMMENT ON PROCEDURE ops.run_policy IS 'Run a policy now';

CREATE FUNCTION ops.due_policies() RETURNS SETOF text
LANGUAGE sql STABLE
AS $$
    SELECT job_name FROM ops.retention_jobs
    LEFT JOIN market_data.candle_levels ON hypertable = 'market_data.candle_partials_' || name
    WHERE state = 'applied' AND enabled AND policy ->> 'kind' IN ('drop', 'refresh')
      AND (last_run_at IS NULL OR last_run_at + (policy ->> 'every')::interval <= now())
    ORDER BY width, job_name  -- a level after the one that it is made of, and dropping last
$$;

COMMENT ON FUNCTION ops.due_policies IS 'Policies that somebody has to run now, because the server has no scheduler of its own';

CREATE FUNCTION ops.table_sizes()
RETURNS TABLE (relation text, total_bytes bigint, chunks bigint, compressed_chunks bigint, bytes_before bigint, bytes_after bigint)
LANGUAGE sql STABLE
AS $$
    -- A table that is not partitioned is no tree.
    SELECT table_name, (pg_total_relation_size(table_name::regclass) + coalesce(sum(pg_total_relation_size(part.relid)), 0))::bigint,
           count(part.relid), 0::bigint, NULL::bigint, NULL::bigint
    FROM (
        SELECT 'market_data.btc_ticks' AS table_name
        UNION ALL SELECT 'market_data.candle_partials_' || name FROM market_data.candle_levels
    ) AS named
    LEFT JOIN LATERAL pg_partition_tree(table_name::regclass) AS part ON part.level > 0
    GROUP BY table_name ORDER BY table_name
$$;

COMMENT ON FUNCTION ops.table_sizes IS 'Size on disk of ticks and partial candles, indexes included';
