"""From ticks to numbers: 48 features and 60 bars of each slice, and the table that stores them. No PyTorch here."""
