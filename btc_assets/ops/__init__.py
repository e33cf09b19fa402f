"""Room `ops`: keeping the store healthy, and saying how it is."""
