"""Ids in paths."""

LARGEST_ID = 2**63 - 1
"""The largest bigint."""


def id_of(text: str) -> int:
    """Parse an id in a path. Returns 0, which no row has, for text that is not a bigint."""
    is_id = text.isascii() and text.isdigit() and int(text[:20]) <= LARGEST_ID
    return int(text[:20]) if is_id else 0
