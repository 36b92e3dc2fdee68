"""What every program needs to expose metrics: a registry, cheap histograms, the page and a listener that serves it.

Each program declares its metrics in its own package. docs/run/metrics.md lists them all.
"""
