"""Broken copies of the product, by theme. Each must be caught."""

from chaos.mutants import alerts, attempts, orders, overlap, ticks, workers

MUTANTS = [
    *ticks.MUTANTS,
    *overlap.MUTANTS,
    *attempts.MUTANTS,
    *orders.MUTANTS,
    *workers.MUTANTS,
    *alerts.MUTANTS,
]
