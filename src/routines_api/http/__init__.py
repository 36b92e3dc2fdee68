"""What every request passes through: access, bodies, limits, pages and problem documents."""
