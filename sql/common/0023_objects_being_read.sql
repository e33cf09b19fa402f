-- Which objects a process is reading right now. A row whose reader has ended is an object during whose reading a process died: it is
-- read alone next time, after a trial in a process of its own.
CREATE TABLE landing.objects_being_read (
    uri    text     COLLATE "C" NOT NULL,
    etag   text     NOT NULL,
    reader text     NOT NULL,
    alone  smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (uri, etag, reader)
);

CREATE INDEX objects_being_read_reader ON landing.objects_being_read (reader);

COMMENT ON TABLE landing.objects_being_read IS 'Objects that a process is reading, and those during whose reading one died';
COMMENT ON COLUMN landing.objects_being_read.uri IS 'The object';
COMMENT ON COLUMN landing.objects_being_read.etag IS 'Version of that object';
COMMENT ON COLUMN landing.objects_being_read.reader IS 'Who reads it; holds an advisory lock of this name as long as it lives';
COMMENT ON COLUMN landing.objects_being_read.alone IS 'How often its reading was begun with no other object beside it';
