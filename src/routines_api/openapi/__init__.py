"""The OpenAPI description, and the page that displays it."""
