-- What a model was trained on, so that one can tell whether it is still the data of the store.
ALTER TABLE signals.models ADD COLUMN data_version text;
ALTER TABLE signals.models ADD COLUMN data_digests bytea;

COMMENT ON COLUMN signals.models.data_version IS 'Version of the ticks from trained_from to trained_to when it was trained (docs/datasets.md); NULL: a release that kept none trained it';
COMMENT ON COLUMN signals.models.data_digests IS 'Of the same ticks, eight bytes for each slice from trained_from to trained_to: they tell which slices have changed since';
