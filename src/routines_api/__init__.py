"""The HTTP API, served by Litestar."""
