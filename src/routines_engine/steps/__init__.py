"""Running the steps of one workflow."""
