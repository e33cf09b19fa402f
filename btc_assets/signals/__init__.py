"""Room `signals`: features and embeddings of slices, and the search for similar slices.

Its packages depend on each other in this order only: features, encoders, search, evaluation. Dagster appears in the thin modules
`assets`, `checks`, `sensors` and `jobs` beside them, and nowhere else.
"""
