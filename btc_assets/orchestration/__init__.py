"""Dagster, as far as no room owns it: partitions, IO manager, automation, storage, workers. No rule about ticks, candles or signals."""
