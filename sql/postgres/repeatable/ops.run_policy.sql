-- Runs a policy now. Candles are refreshed day by day, each day in a transaction of its own, and only if they differ from
-- what they are made of.
CREATE OR REPLACE PROCEDURE ops.run_policy(p_job_name text)
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
