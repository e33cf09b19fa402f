"""Room `ops`: keeping the store healthy and saying how it is: policies, reconciliation, roles, health. No backups."""
