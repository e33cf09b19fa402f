"""Room `landing`: objects in the landing zone, what they hold, and the registry of which slices they cover."""
