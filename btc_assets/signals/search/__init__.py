"""Vectors of stored slices: embed the slices, index their vectors, find similar ones. Trains nothing."""
