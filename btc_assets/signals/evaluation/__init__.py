"""How well similar slices forecast the next slice: forecasts, baselines, metrics and signs of leakage. Writes nothing to the store."""
