"""Room `ingestion`: how far each source is ingested, which slices are due, and which runs to request. Knows no objects and no ticks."""
