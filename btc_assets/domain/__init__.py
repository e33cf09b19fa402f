"""What the store is about: slices, feeds, ticks, settings, errors. Plain values and rules; imports nothing else of ours, and no I/O."""
