"""Room `landing`: objects in the landing zone, what they hold, and the registry of the slices that they cover. Writes no ticks."""
