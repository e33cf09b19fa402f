"""The way out of the store: ticks, candles, bars, features and data sets as Arrow, for researchers; neither Dagster nor PyTorch is needed."""
