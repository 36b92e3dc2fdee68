"""The attacks, by theme. Importing this package registers them all."""

from isolation.corpus import (
    big_runs,
    bodies,
    connections,
    greedy_steps,
    many_runs,
    masking,
    plans,
    receivers,
    stored,
)

__all__ = ["big_runs", "bodies", "connections", "greedy_steps", "many_runs", "masking", "plans", "receivers", "stored"]
