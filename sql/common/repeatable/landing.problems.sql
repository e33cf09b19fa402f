-- What a person has to decide on, from the present state of the store and whatever run found it: one row for each problem that is
-- neither mended nor acknowledged. A new kind of problem is one more branch of `found`; `what` and `version` name it, and an
-- acknowledgement is good for that version alone.
--
-- Requires: landing.is_problem, landing.is_source_gone, landing.is_unsettled, market_data.version_text
CREATE OR REPLACE VIEW landing.problems AS
WITH found (kind, what, version, symbol, bucket_5m, since, problem) AS (
    -- By the partial index raw_blobs_5m_problems. A version has a row for each slice that it covers.
    (SELECT DISTINCT ON (uri, etag)
        CASE status WHEN 'rejected' THEN 'rejected object' WHEN 'gone' THEN 'lost object' ELSE 'rejected rows' END,
        uri, etag, asset, bucket_5m, CASE status WHEN 'gone' THEN noticed_at ELSE registered_at END,
        CASE status
            WHEN 'rejected' THEN format('%s: %s', uri, coalesce(reason, 'it is unreadable'))
            WHEN 'gone' THEN format('%s disappeared before it was loaded: restore it', uri)
            ELSE format('%s: %s row(s) are no valid trades of the feed', uri, metadata ->> 'rejected_rows')
        END
    FROM landing.raw_blobs_5m
    WHERE landing.is_problem(status, loaded_at, metadata)
    ORDER BY uri, etag, bucket_5m, asset)

    UNION ALL

    -- Its slice is requested again and again, because others may be readable.
    (SELECT DISTINCT ON (uri, etag) 'refused object', uri, etag, asset, bucket_5m, noticed_at, reason
    FROM landing.raw_blobs_5m
    WHERE landing.is_unsettled(status, loaded_at) AND status = 'noticed' AND reason IS NOT NULL
    ORDER BY uri, etag, bucket_5m, asset)

    UNION ALL

    -- An object that is gone is a problem only where there is something else to load, which it blocks (promise 6).
    (SELECT DISTINCT ON (uri, etag)
        'source gone', uri, etag, asset, bucket_5m, noticed_at,
        format('%s is gone, and its slice has something else to load: restore it, or load the slice with --force', uri)
    FROM landing.raw_blobs_5m AS gone
    WHERE landing.is_source_gone(status, loaded_at) AND EXISTS (
        SELECT 1 FROM landing.raw_blobs_5m AS waiting
        WHERE waiting.bucket_5m = gone.bucket_5m AND landing.is_unsettled(waiting.status, waiting.loaded_at)
    )
    ORDER BY uri, etag, bucket_5m, asset)

    UNION ALL

    -- A load that finds no contradiction any more clears it.
    SELECT 'conflicting trades', concat(symbol, ' ', to_char(bucket_5m AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')),
        md5(examples::text), symbol, bucket_5m, found_at,
        format(
            '%s %s: %s version(s) of trades contradict the version that counts, such as trade %s: %s, against %s: remove the wrong object',
            symbol, to_char(bucket_5m AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"'), conflicts, examples -> 0 ->> 'trade_id',
            market_data.version_text(examples -> 0 -> 'contradicts'), market_data.version_text(examples -> 0 -> 'counts')
        )
    FROM market_data.conflicting_trades
)
SELECT
    kind, what, version, symbol, bucket_5m, since, problem,
    CASE kind
        WHEN 'source gone' THEN format(
            'btc-assets load --from %s --to %s --force', to_char(bucket_5m AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"'),
            to_char((bucket_5m + interval '5 minutes') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')
        )
        ELSE format('btc-assets acknowledge ''%s''', replace(what, '''', '''\'''''))
    END AS command
FROM found
WHERE NOT EXISTS (
    SELECT 1 FROM landing.acknowledgements AS accepted
    WHERE accepted.what = found.what AND accepted.version = found.version AND accepted.kind = found.kind
);

COMMENT ON VIEW landing.problems IS 'What is neither mended nor acknowledged: unreadable and lost objects, rows that are no valid trades, slices that an object which is gone blocks, versions of a trade that contradict each other';
COMMENT ON COLUMN landing.problems.kind IS 'rejected object; refused object: the landing zone does not hand it out; rejected rows; lost object: it disappeared before it was loaded; source gone: a slice cannot be loaded because an object that it was loaded from is gone; conflicting trades: versions of a trade differ in price, quantity, side or trade time';
COMMENT ON COLUMN landing.problems.what IS 'URI of the object, or symbol and slice';
COMMENT ON COLUMN landing.problems.version IS 'ETag of the object; another version of it is another problem';
COMMENT ON COLUMN landing.problems.symbol IS 'Symbol label of the feed';
COMMENT ON COLUMN landing.problems.bucket_5m IS 'Start of the first slice that it concerns (UTC)';
COMMENT ON COLUMN landing.problems.since IS 'Since when the store knows of it';
COMMENT ON COLUMN landing.problems.problem IS 'What is wrong, as a sentence';
COMMENT ON COLUMN landing.problems.command IS 'A command that ends it if nothing can be mended';
