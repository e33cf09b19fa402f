"""From ticks to numbers: features and bars of each slice, and the table that stores them. No PyTorch here."""
