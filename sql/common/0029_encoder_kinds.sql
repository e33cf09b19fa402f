-- Encoders may be of kinds that others provide.

COMMENT ON COLUMN signals.models.kind IS 'Kind of encoder: rocket-pca, tcn, or one that a package or BTC_ASSETS_ENCODERS declares';
COMMENT ON COLUMN signals.models.metrics IS 'How training went; of a kind that is not ours also its class and package, for people to read: nothing is imported because it stands here';
