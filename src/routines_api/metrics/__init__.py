"""The metrics of an API process and of the database."""
