"""Trades made or played for demos, tests and benchmarks: generating, replaying, playing live. Nothing that production data goes through."""
