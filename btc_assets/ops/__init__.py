"""Room `ops`: keeping the store healthy and reporting its state: policies, reconciliation, roles, health, doctor. No backups."""
