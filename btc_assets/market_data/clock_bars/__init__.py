"""Bars on any clock: of a number of trades, a volume, a value, a time, or as much one-sidedness as was expected."""
