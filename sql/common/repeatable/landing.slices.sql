-- The objects of each slice, and its state. Spark, Glue or Airflow fan out from this view without listing the landing zone.
--
-- Requires: landing.is_source_gone, landing.is_unsettled
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
        WHEN bool_or(landing.is_source_gone(status, loaded_at)) THEN 'source gone'
        WHEN bool_or(landing.is_unsettled(status, loaded_at)) THEN
            CASE WHEN bool_or(loaded_at IS NOT NULL) THEN 'stale' ELSE 'pending' END
        WHEN bool_or(status = 'rejected') THEN 'rejected'
        WHEN bool_or(status = 'gone') THEN 'lost'
        ELSE 'loaded'
    END AS state,
    min(first_event_time) FILTER (WHERE status = 'registered') AS first_event_time,
    max(last_event_time) FILTER (WHERE status = 'registered') AS last_event_time,
    max(loaded_at) AS loaded_at,
    count(*) FILTER (WHERE status = 'noticed') AS noticed_objects,
    asset AS symbol
FROM landing.raw_blobs_5m
GROUP BY bucket_5m, asset
HAVING bool_or(status <> 'superseded' OR loaded_at IS NOT NULL);

COMMENT ON VIEW landing.slices IS 'One row for each slice and symbol: its objects, and whether they are loaded';
COMMENT ON COLUMN landing.slices.bucket_5m IS 'Start of the slice (UTC)';
COMMENT ON COLUMN landing.slices.asset IS 'The same as symbol';
COMMENT ON COLUMN landing.slices.symbol IS 'Symbol label of the feed, as in btc_ticks.symbol';
COMMENT ON COLUMN landing.slices.first_event_time IS 'Earliest event time in those objects';
COMMENT ON COLUMN landing.slices.last_event_time IS 'Latest event time in those objects';
COMMENT ON COLUMN landing.slices.objects IS 'Readable objects that cover the slice';
COMMENT ON COLUMN landing.slices.rejected_objects IS 'Objects of the slice that could not be read';
COMMENT ON COLUMN landing.slices.uris IS 'URIs of the readable objects';
COMMENT ON COLUMN landing.slices.size_bytes IS 'Bytes of those objects; an object that covers two slices counts in both';
COMMENT ON COLUMN landing.slices.row_count IS 'Valid trades of those objects in the slice, repeats included';
COMMENT ON COLUMN landing.slices.loaded_rows IS 'Rows in btc_ticks';
COMMENT ON COLUMN landing.slices.state IS 'loaded; pending: not loaded yet; stale: loaded from other objects than the landing zone holds now; rejected: loaded, except for unreadable objects; source gone: loaded, and an object has disappeared since; lost: an object disappeared before it was loaded';
COMMENT ON COLUMN landing.slices.loaded_at IS 'When a load last changed the slice';
COMMENT ON COLUMN landing.slices.noticed_objects IS 'Objects that were seen in the landing zone and have not been read yet';
