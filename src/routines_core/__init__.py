"""What every program shares; it knows none of them."""
