-- A load or a rebuild that changes nothing moves no time of content. Only loaded_slices has the time of every load.

COMMENT ON COLUMN landing.raw_blobs_5m.loaded_at IS 'When a load with this version last changed the slice: its sources, or what market_data.loaded_slices has of it; NULL: its rows are not in btc_ticks';
COMMENT ON COLUMN market_data.loaded_slices.loaded_at IS 'When the transaction of the last load began, whether it changed anything or not; if landing.raw_blobs_5m has a later time, a former release loaded the slice since';
COMMENT ON COLUMN signals.slice_features.created_at IS 'When the row got its content; a row that is computed again and is the same keeps it';
COMMENT ON COLUMN signals.btc_embeddings.created_at IS 'When the vector got its content, or was computed of changed features; a label that becomes known does not move it';
