"""Whether similar slices foretell anything: forecasts, baselines, metrics and leakage alarms. Changes nothing in the store."""
