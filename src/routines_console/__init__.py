"""The web console: static pages that are a client of the HTTP contract like any other."""
