"""The file store: the files that requests upload and steps save, in a directory or an S3-compatible bucket."""
