"""Claiming runs and executing them."""
