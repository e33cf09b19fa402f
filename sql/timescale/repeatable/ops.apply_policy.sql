-- Puts a declared policy into force as a job of TimescaleDB's scheduler, and returns its state.
CREATE OR REPLACE FUNCTION ops.apply_policy(p_job_name text) RETURNS text
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
            buckets_per_batch => 288  -- a day of slices in each transaction; the default is 50 minutes
        );
    ELSIF wanted = 'drop' THEN
        -- Not add_retention_policy, which drops ticks whether their candles are made or not. The first run is an hour away:
        -- that leaves time to change one's mind, and compression, which starts at once, fails if the chunk it is about to
        -- compress is dropped.
        new_id := add_job(
            'ops.drop_old_chunks', (job.policy ->> 'every')::interval, job_name => p_job_name, initial_start => now() + interval '1 hour',
            config => jsonb_build_object('hypertable', job.hypertable, 'drop_after', job.policy ->> 'after')
        );
    END IF;
    PERFORM alter_job(new_id, scheduled => job.enabled);
    RETURN 'applied';
END
$$;

COMMENT ON FUNCTION ops.apply_policy IS 'Put a declared policy into force';
