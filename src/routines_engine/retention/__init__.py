"""Deleting what has passed its retention period."""
