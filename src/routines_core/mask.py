"""The mask of secrets, one for all that is shown and kept."""

MASK = "********"
"""What stands in the place of a secret; sent back, it keeps the stored value."""
