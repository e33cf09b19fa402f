CREATE TABLE ingestion.stream_offsets (
    source        text        PRIMARY KEY,
    last_sequence bigint,
    last_ts       timestamptz,
    state         jsonb       NOT NULL DEFAULT '{}',
    updated_at    timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE ingestion.stream_offsets IS 'How far each source is ingested; moves in the transaction that writes the data';
COMMENT ON COLUMN ingestion.stream_offsets.source IS 'Table and symbol, such as market_data.btc_ticks/BTCUSDT';
COMMENT ON COLUMN ingestion.stream_offsets.last_sequence IS 'Highest trade id of the newest slice that holds rows';
COMMENT ON COLUMN ingestion.stream_offsets.last_ts IS 'Event time of that trade';
COMMENT ON COLUMN ingestion.stream_offsets.state IS 'bucket_5m: the newest slice that holds rows';
COMMENT ON COLUMN ingestion.stream_offsets.updated_at IS 'When a load last moved or confirmed it';

CREATE TABLE ops.retention_jobs (
    job_name    text        PRIMARY KEY,
    hypertable  text        NOT NULL,
    policy      jsonb       NOT NULL,
    enabled     boolean     NOT NULL DEFAULT true,
    state       text        NOT NULL DEFAULT 'declared',
    last_run_at timestamptz,
    last_result text,
    created_at  timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE ops.retention_jobs IS 'Retention and compression policies: what is declared and how it last went';
COMMENT ON COLUMN ops.retention_jobs.job_name IS 'Name of the policy';
COMMENT ON COLUMN ops.retention_jobs.hypertable IS 'Table that it works on';
COMMENT ON COLUMN ops.retention_jobs.policy IS 'Kind and settings';
COMMENT ON COLUMN ops.retention_jobs.enabled IS 'Whether it is to run';
COMMENT ON COLUMN ops.retention_jobs.state IS 'declared, applied or drifted';
COMMENT ON COLUMN ops.retention_jobs.last_run_at IS 'When it last ran';
COMMENT ON COLUMN ops.retention_jobs.last_result IS 'How that went';
COMMENT ON COLUMN ops.retention_jobs.created_at IS 'When it was first declared';
