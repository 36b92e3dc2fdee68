"""When a webhook is tried again: pure."""

DELAYS_SECONDS = (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
"""The wait before each attempt, counted from the one before. Source: the schedule that Standard Webhooks recommends."""
JITTER = 0.1
"""The most that a wait is made longer, as a share of it: receivers that come back are not met by all at once."""


def delay_seconds(failures: int, *, jitter: float) -> float | None:
    """How long to wait after so many failures; None: give up. Never shorter than the schedule, at most 10 % longer.

    Args:
        failures: How many attempts have failed, at least 1.
        jitter: A random number from 0 to 1.
    """
    if failures >= len(DELAYS_SECONDS):
        return None
    return DELAYS_SECONDS[failures] * (1 + JITTER * jitter)
