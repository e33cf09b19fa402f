-- What lies below a feed's prefix and can be no object of a slice. Listings write it; `btc-assets status` shows it.
CREATE TABLE landing.strays (
    uri     text        COLLATE "C" PRIMARY KEY,
    symbol  text        NOT NULL,
    reason  text        NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE landing.strays IS 'What lies below the prefix of a feed and belongs to no slice: a name that cannot be read, a folder that is no time, a file that is no object. Listings write it, and forget what they do not find any more';
COMMENT ON COLUMN landing.strays.uri IS 'Its address; what cannot be printed is escaped';
COMMENT ON COLUMN landing.strays.symbol IS 'Symbol label of the first feed of the prefix';
COMMENT ON COLUMN landing.strays.reason IS 'Why no slice is loaded from it, and what to do, as the rest of a sentence that begins with its address';
COMMENT ON COLUMN landing.strays.seen_at IS 'When a listing first found it';
