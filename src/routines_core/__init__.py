"""Code shared by all programs; it imports none of them."""
