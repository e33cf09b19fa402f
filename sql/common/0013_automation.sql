-- What automation needs to know is kept here, not in Dagster: what has landed and was not read yet, and which slices of
-- which asset must be made again. Whoever loses Dagster's storage loses the history of runs and no work.

-- The registry is the ledger of (URI, ETag): an object that was seen stands in it before it is read.
ALTER TABLE landing.raw_blobs_5m
    DROP CONSTRAINT raw_blobs_5m_status_check,
    ADD CONSTRAINT raw_blobs_5m_status_check CHECK (status IN ('noticed', 'registered', 'rejected', 'superseded', 'gone')),
    ADD COLUMN noticed_at timestamptz NOT NULL DEFAULT now();

COMMENT ON COLUMN landing.raw_blobs_5m.status IS 'noticed: seen, not read yet; registered: readable and there; rejected: unreadable (see reason); superseded: overwritten; gone: no longer there';
COMMENT ON COLUMN landing.raw_blobs_5m.bucket_5m IS 'Start of the slice (UTC); of a rejected, empty or noticed object, the slice of its folder';
COMMENT ON COLUMN landing.raw_blobs_5m.noticed_at IS 'When this version became work to be done; reconciling renews it, so that a stuck slice is asked for again';

-- The rows that are work to be done; few, however many are registered.
CREATE INDEX raw_blobs_5m_unsettled ON landing.raw_blobs_5m (bucket_5m)
WHERE status = 'noticed' OR (status IN ('registered', 'superseded') AND (status = 'registered') <> (loaded_at IS NOT NULL));

-- What a person must decide on: slices that lost an object that they were loaded from. Fewer still.
CREATE INDEX raw_blobs_5m_source_gone ON landing.raw_blobs_5m (bucket_5m) WHERE status = 'gone' AND loaded_at IS NOT NULL;

CREATE OR REPLACE VIEW landing.slices AS
SELECT
    bucket_5m,
    asset,
    count(*) FILTER (WHERE status = 'registered') AS objects,
    count(*) FILTER (WHERE status = 'rejected') AS rejected_objects,
    array_agg(uri ORDER BY uri) FILTER (WHERE status = 'registered') AS uris,
    coalesce(sum(size_bytes) FILTER (WHERE status = 'registered'), 0)::bigint AS size_bytes,
    coalesce(sum(row_count) FILTER (WHERE status = 'registered'), 0)::bigint AS row_count,
    coalesce(sum(loaded_rows) FILTER (WHERE loaded_at IS NOT NULL), 0)::bigint AS loaded_rows,
    CASE
        WHEN bool_or(status = 'gone' AND loaded_at IS NOT NULL) THEN 'source gone'
        WHEN bool_or(status = 'noticed' OR ((status = 'registered') <> (loaded_at IS NOT NULL) AND status IN ('registered', 'superseded'))) THEN
            CASE WHEN bool_or(loaded_at IS NOT NULL) THEN 'stale' ELSE 'pending' END
        WHEN bool_or(status = 'rejected') THEN 'rejected'
        WHEN bool_or(status = 'gone') THEN 'lost'
        ELSE 'loaded'
    END AS state,
    min(first_event_time) FILTER (WHERE status = 'registered') AS first_event_time,
    max(last_event_time) FILTER (WHERE status = 'registered') AS last_event_time,
    max(loaded_at) AS loaded_at,
    count(*) FILTER (WHERE status = 'noticed') AS noticed_objects
FROM landing.raw_blobs_5m
GROUP BY bucket_5m, asset
HAVING bool_or(status <> 'superseded' OR loaded_at IS NOT NULL);

COMMENT ON COLUMN landing.slices.noticed_objects IS 'Objects that were seen in the landing zone and are not read yet';

CREATE TABLE ingestion.due_slices (
    asset      text        NOT NULL,
    bucket_5m  timestamptz NOT NULL,
    due_since  timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (bucket_5m, asset)
);

COMMENT ON TABLE ingestion.due_slices IS 'Slices of an asset that must be made again because their ticks changed; written in the transaction that loads the ticks';
COMMENT ON COLUMN ingestion.due_slices.asset IS 'Asset key, such as market_data/candles_1m';
COMMENT ON COLUMN ingestion.due_slices.bucket_5m IS 'Start of the slice (UTC)';
COMMENT ON COLUMN ingestion.due_slices.due_since IS 'Since when; reconciling renews it, so that a stuck slice is asked for again';
COMMENT ON COLUMN ingestion.due_slices.changed_at IS 'Last change; whoever has made the slice removes the row only if this is what it was before';

COMMENT ON TABLE ingestion.stream_offsets IS 'How far each source is ingested, and how far each prefix of the landing zone is listed';
COMMENT ON COLUMN ingestion.stream_offsets.source IS 'Table and symbol, such as market_data.btc_ticks/BTCUSDT; or landing/ and a prefix of the landing zone';
COMMENT ON COLUMN ingestion.stream_offsets.last_sequence IS 'Highest trade id of the newest slice that holds rows';
COMMENT ON COLUMN ingestion.stream_offsets.last_ts IS 'Event time of that trade; of a prefix, the newest folder that was listed';
COMMENT ON COLUMN ingestion.stream_offsets.state IS 'bucket_5m: the newest slice that holds rows; listed_at: when the prefix was last listed to its end';

CREATE TABLE ops.reconciliations (
    reconciled_at timestamptz PRIMARY KEY DEFAULT now(),
    range_start   timestamptz,
    range_end     timestamptz NOT NULL,
    problems      jsonb       NOT NULL,
    sentences     text[]      NOT NULL,
    healed        integer     NOT NULL
);

COMMENT ON TABLE ops.reconciliations IS 'Comparisons of landing zone, registry and tables, and what they found';
COMMENT ON COLUMN ops.reconciliations.reconciled_at IS 'When it began';
COMMENT ON COLUMN ops.reconciliations.range_start IS 'First slice that was compared; NULL: from the beginning';
COMMENT ON COLUMN ops.reconciliations.range_end IS 'First slice that was not compared any more';
COMMENT ON COLUMN ops.reconciliations.problems IS 'Number of problems by kind';
COMMENT ON COLUMN ops.reconciliations.sentences IS 'The first problems of each kind, in words';
COMMENT ON COLUMN ops.reconciliations.healed IS 'How many of them it handed to the sensors to be mended';
