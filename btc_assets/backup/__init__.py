"""Copies of the whole store: backups, restore drills, copying to another server, and the checksums that prove them. No policies."""
