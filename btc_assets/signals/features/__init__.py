"""From ticks to numbers: 48 features and 60 bars of a slice, and the table that keeps them. No PyTorch."""
