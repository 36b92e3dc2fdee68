"""The tick and its loop."""
