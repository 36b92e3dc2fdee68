"""The shapes of requests and responses, with an example of each."""
