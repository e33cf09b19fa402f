-- Of an object the first 1,000 rows that are no valid trade are kept. The last of them stands for the others as well, so that sums over
-- any range of slices count all of them.
ALTER TABLE landing.rejected_rows ADD COLUMN row_count bigint NOT NULL DEFAULT 1;

COMMENT ON TABLE landing.rejected_rows IS 'Rows of readable objects that are no valid trade of their feed; of each object the first 1,000';
COMMENT ON COLUMN landing.rejected_rows.row_count IS 'Rows that this one stands for: more than 1 for the last one that is kept of an object with further such rows';
COMMENT ON COLUMN landing.rejected_rows.record IS 'The row as it landed, as JSON (or the line where it is no JSON or CSV); its first 4,000 characters';
