"""The vectors of stored slices: embedding them, indexing them, and finding similar ones. Trains nothing."""
