"""The retry schedule of webhooks. Pure code."""

DELAYS_SECONDS = (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
"""The delay before each attempt, from the previous one. Source: the schedule that Standard Webhooks recommends."""
MOST_ATTEMPTS = len(DELAYS_SECONDS)
"""A webhook is given up after this many failed attempts."""
JITTER = 0.1
"""The largest share of a delay that is added to it, to spread the load on a receiver that comes back."""


def delay_seconds(failures: int, *, jitter: float) -> float | None:
    """Return the delay after this many failures: the scheduled one or up to 10 % longer. None means give up.

    Args:
        failures: How many attempts have failed, at least 1.
        jitter: A random number from 0 to 1.
    """
    if failures >= MOST_ATTEMPTS:
        return None
    return DELAYS_SECONDS[failures] * (1 + JITTER * jitter)
