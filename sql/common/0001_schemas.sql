-- The rooms of the house: the same words name the asset groups and the Python packages.

CREATE EXTENSION IF NOT EXISTS vector;

CREATE SCHEMA landing;
CREATE SCHEMA market_data;
CREATE SCHEMA signals;
CREATE SCHEMA ingestion;

COMMENT ON SCHEMA landing IS 'Which objects landed, what they hold and what could not be read';
COMMENT ON SCHEMA market_data IS 'Ticks and the candles made of them';
COMMENT ON SCHEMA signals IS 'Features and embeddings of slices, for similarity search';
COMMENT ON SCHEMA ingestion IS 'How far each source has been ingested';
COMMENT ON SCHEMA ops IS 'Migrations, policies and other housekeeping';
