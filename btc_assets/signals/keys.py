"""Asset keys of this room, as `schema/table`."""

SLICE_FEATURES = "signals/slice_features"
SLICE_FEATURES_HISTORY = "signals/slice_features_history"
EMBEDDINGS = "signals/btc_embeddings"
EMBEDDINGS_HISTORY = "signals/btc_embeddings_history"
MODEL = "signals/embedding_model"
INDEXES = "signals/embedding_indexes"
EVALUATION = "signals/evaluation"

FOLLOWERS = (SLICE_FEATURES, EMBEDDINGS)  # assets whose slices are due after a load of ticks
