"""Asset keys of this room, as `schema/table`."""

REGISTRY = "landing/raw_blobs_5m"
REGISTRY_HISTORY = "landing/raw_blobs_history"
