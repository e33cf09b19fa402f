"""Asset keys of this room, as `schema/table`."""

FEATURES = "signals/slice_features"
FEATURES_HISTORY = "signals/slice_features_history"
EMBEDDINGS = "signals/btc_embeddings"
EMBEDDINGS_HISTORY = "signals/btc_embeddings_history"
MODEL = "signals/embedding_model"
INDEXES = "signals/embedding_indexes"
EVALUATION = "signals/evaluation"
