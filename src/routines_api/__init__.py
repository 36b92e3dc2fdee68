"""The HTTP contract, served by Litestar."""
