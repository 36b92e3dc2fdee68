"""The ticker: starts runs for routines that are due."""
