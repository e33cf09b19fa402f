"""Copies of the whole store: backups, restore drills, copies on another server, and the checksums that prove them. No policies."""
