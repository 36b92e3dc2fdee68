"""The mask that replaces secrets wherever values are shown or stored."""

MASK = "********"
"""Shown instead of a secret; a client that sends it back keeps the stored value."""
