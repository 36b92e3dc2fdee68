"""What all endpoints share: access, request bodies, limits, pagination and problem documents."""
