"""Trades for demos, tests and benchmarks: generated, landed from a file, or played live. Production data passes through none of it."""
