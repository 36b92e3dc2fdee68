"""The metrics that an API process serves: its own and the database's."""
