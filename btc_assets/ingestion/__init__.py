"""Room `ingestion`: how far each source has been ingested."""
