"""Room `signals`: features and embeddings of slices, and the search for similar ones."""
