-- The registry. An object is one URI with one ETag; it has a row for each slice that it covers.
--
-- Two facts are kept apart on purpose. `status` says what the landing zone holds; `loaded_at` says whether the rows
-- of btc_ticks come from this object right now. A slice is up to date when the two agree for all of its objects.

CREATE TABLE landing.raw_blobs_5m (
    bucket_5m        timestamptz NOT NULL,
    asset            text        NOT NULL,
    uri              text        COLLATE "C" NOT NULL,
    etag             text        NOT NULL,
    size_bytes       bigint      NOT NULL,
    row_count        bigint      NOT NULL,
    first_event_time timestamptz,
    last_event_time  timestamptz,
    format           text,
    status           text        NOT NULL CHECK (status IN ('registered', 'rejected', 'superseded', 'gone')),
    reason           text,
    metadata         jsonb       NOT NULL DEFAULT '{}',
    last_modified    timestamptz NOT NULL,
    registered_at    timestamptz NOT NULL DEFAULT now(),
    loaded_at        timestamptz,
    loaded_rows      bigint,
    PRIMARY KEY (bucket_5m, asset, uri, etag)
);

-- Finds the objects of a folder, and the earlier versions of one that is overwritten or disappears. In byte order
-- (COLLATE "C") the URIs of a window of folders are one range.
CREATE INDEX raw_blobs_5m_uri ON landing.raw_blobs_5m (uri);

COMMENT ON TABLE landing.raw_blobs_5m IS 'Registry: one row for each slice that an object covers';
COMMENT ON COLUMN landing.raw_blobs_5m.bucket_5m IS 'Start of the slice (UTC); of a rejected or empty object, the slice of its folder';
COMMENT ON COLUMN landing.raw_blobs_5m.asset IS 'Symbol label of the feed, as in btc_ticks.symbol';
COMMENT ON COLUMN landing.raw_blobs_5m.uri IS 'Where the object is';
COMMENT ON COLUMN landing.raw_blobs_5m.etag IS 'Version of the object, opaque; together with the URI it names the content';
COMMENT ON COLUMN landing.raw_blobs_5m.size_bytes IS 'Size of the whole object in bytes';
COMMENT ON COLUMN landing.raw_blobs_5m.row_count IS 'Valid trades of this object in this slice, repeats included';
COMMENT ON COLUMN landing.raw_blobs_5m.first_event_time IS 'Earliest event time of this object in this slice';
COMMENT ON COLUMN landing.raw_blobs_5m.last_event_time IS 'Latest event time of this object in this slice';
COMMENT ON COLUMN landing.raw_blobs_5m.format IS 'parquet, csv, csv.gz, csv.zip, jsonl or jsonl.gz, found from the content';
COMMENT ON COLUMN landing.raw_blobs_5m.status IS 'registered: readable and there; rejected: unreadable (see reason); superseded: overwritten; gone: no longer there';
COMMENT ON COLUMN landing.raw_blobs_5m.reason IS 'Why it is not registered, and what to do';
COMMENT ON COLUMN landing.raw_blobs_5m.metadata IS 'verified: how its bytes were checked (md5, s3, none); rejected_rows; extra_columns';
COMMENT ON COLUMN landing.raw_blobs_5m.last_modified IS 'When the store says that the object was written';
COMMENT ON COLUMN landing.raw_blobs_5m.registered_at IS 'When this version was first read';
COMMENT ON COLUMN landing.raw_blobs_5m.loaded_at IS 'When the slice was last loaded with this version; NULL: its rows are not in btc_ticks';
COMMENT ON COLUMN landing.raw_blobs_5m.loaded_rows IS 'Rows of btc_ticks that come from this object, after de-duplication';

CREATE TABLE landing.rejected_rows (
    uri         text        COLLATE "C" NOT NULL,
    etag        text        NOT NULL,
    row_number  bigint      NOT NULL,
    bucket_5m   timestamptz NOT NULL,
    reason      text        NOT NULL,
    record      text        NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (uri, etag, row_number)
);

CREATE INDEX rejected_rows_bucket_5m ON landing.rejected_rows (bucket_5m);

COMMENT ON TABLE landing.rejected_rows IS 'Rows of readable objects that are no valid trade of their feed';
COMMENT ON COLUMN landing.rejected_rows.uri IS 'The object that the row is in';
COMMENT ON COLUMN landing.rejected_rows.etag IS 'Version of that object';
COMMENT ON COLUMN landing.rejected_rows.row_number IS 'Position in the object; the first row is 1, a header is not counted';
COMMENT ON COLUMN landing.rejected_rows.bucket_5m IS 'Slice of the row where its time is valid, else of the object''s folder';
COMMENT ON COLUMN landing.rejected_rows.reason IS 'What is wrong with the row';
COMMENT ON COLUMN landing.rejected_rows.record IS 'The row as it landed, as JSON (or the line where it is no JSON or CSV)';
COMMENT ON COLUMN landing.rejected_rows.rejected_at IS 'When the object was read';

-- What Spark, Glue or Airflow fan out from: the objects of each slice, without listing the landing zone.
CREATE VIEW landing.slices AS
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
        WHEN bool_or((status = 'registered') <> (loaded_at IS NOT NULL) AND status IN ('registered', 'superseded')) THEN
            CASE WHEN bool_or(loaded_at IS NOT NULL) THEN 'stale' ELSE 'pending' END
        WHEN bool_or(status = 'rejected') THEN 'rejected'
        WHEN bool_or(status = 'gone') THEN 'lost'
        ELSE 'loaded'
    END AS state,
    min(first_event_time) FILTER (WHERE status = 'registered') AS first_event_time,
    max(last_event_time) FILTER (WHERE status = 'registered') AS last_event_time,
    max(loaded_at) AS loaded_at
FROM landing.raw_blobs_5m
GROUP BY bucket_5m, asset
HAVING bool_or(status <> 'superseded' OR loaded_at IS NOT NULL);

COMMENT ON VIEW landing.slices IS 'One row a slice and symbol: its objects and whether they are loaded';
COMMENT ON COLUMN landing.slices.bucket_5m IS 'Start of the slice (UTC)';
COMMENT ON COLUMN landing.slices.asset IS 'Symbol label of the feed';
COMMENT ON COLUMN landing.slices.first_event_time IS 'Earliest event time in those objects';
COMMENT ON COLUMN landing.slices.last_event_time IS 'Latest event time in those objects';
COMMENT ON COLUMN landing.slices.objects IS 'Readable objects that cover the slice';
COMMENT ON COLUMN landing.slices.rejected_objects IS 'Objects of the slice that could not be read';
COMMENT ON COLUMN landing.slices.uris IS 'URIs of the readable objects';
COMMENT ON COLUMN landing.slices.size_bytes IS 'Bytes of those objects; one that covers two slices counts in both';
COMMENT ON COLUMN landing.slices.row_count IS 'Valid trades of those objects in the slice, repeats included';
COMMENT ON COLUMN landing.slices.loaded_rows IS 'Rows in btc_ticks';
COMMENT ON COLUMN landing.slices.state IS 'loaded; pending: not loaded yet; stale: loaded from other objects than are there now; rejected: loaded but for unreadable objects; source gone: loaded, an object has since disappeared; lost: an object disappeared before it was loaded';
COMMENT ON COLUMN landing.slices.loaded_at IS 'When the slice was last loaded';
