"""What every program needs to be measured: a registry, histograms that cost little, a page, and a listener for it.

Each program declares its own metrics in its own room. docs/metrics.md lists them all.
"""
