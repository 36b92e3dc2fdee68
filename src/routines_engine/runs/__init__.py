"""Claiming runs and carrying them to their end."""
