-- What a person has to decide on is state of the store, not of a run: the view landing.problems shows it until it is mended, or until
-- it is acknowledged here. Another version of the same object is another problem.
CREATE TABLE landing.acknowledgements (
    kind            text        NOT NULL,
    what            text        COLLATE "C" NOT NULL,
    version         text        NOT NULL,
    note            text        NOT NULL DEFAULT '',
    acknowledged_by text        NOT NULL DEFAULT session_user,
    acknowledged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (what, version, kind)
);

COMMENT ON TABLE landing.acknowledgements IS 'Problems that a person accepts as they are; kept by btc-assets acknowledge';
COMMENT ON COLUMN landing.acknowledgements.kind IS 'Kind of the problem, as in landing.problems';
COMMENT ON COLUMN landing.acknowledgements.what IS 'URI of the object, or symbol and slice';
COMMENT ON COLUMN landing.acknowledgements.version IS 'ETag of the object; another version of it is another problem';
COMMENT ON COLUMN landing.acknowledgements.note IS 'Why it is accepted';
COMMENT ON COLUMN landing.acknowledgements.acknowledged_by IS 'Database user who accepted it';
COMMENT ON COLUMN landing.acknowledgements.acknowledged_at IS 'When it was accepted';

-- The rows of the registry that are a problem by themselves; few, however many are registered. The predicate is that of the function
-- landing.is_problem (sql/common/repeatable/landing.is_problem.sql), which the planner inlines.
CREATE INDEX raw_blobs_5m_problems ON landing.raw_blobs_5m (uri)
WHERE status = 'rejected' OR (status = 'gone' AND loaded_at IS NULL) OR (status = 'registered' AND metadata ? 'rejected_rows');

-- An object that was rejected and then deleted is no loss that anybody must decide on. Older releases called it gone, like an object that
-- was deleted before it was read; only what was read has `verified`.
UPDATE landing.raw_blobs_5m SET status = 'superseded', reason = 'deleted after it was rejected'
WHERE status = 'gone' AND loaded_at IS NULL AND row_count = 0 AND metadata ? 'verified';

COMMENT ON COLUMN landing.raw_blobs_5m.status IS 'noticed: seen, not read yet; registered: readable and there; rejected: unreadable (see reason); superseded: overwritten, or deleted after it was rejected; gone: no longer there';
COMMENT ON COLUMN landing.raw_blobs_5m.noticed_at IS 'When this version became work to be done, or was found to be gone; reconciling renews it, so that a stuck slice is asked for again';
