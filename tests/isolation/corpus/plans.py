"""Questions about the schedule that take the database seconds."""

from isolation.alpha import Alpha
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import FLEETING

ROUTINES = 300


@attack(Containment.FAIR_SHARES)
def plans_of_routines_that_fire_every_minute(alpha: Alpha) -> None:
    """Ten connections ask for a week's load of 300 routines, each of which fires every minute on its own grid."""
    alpha.task({"echo": FLEETING})
    for second in range(ROUTINES):
        anchor = f"2026-05-04T{9 + second // 60:02}:00:{second % 60:02}Z"
        cadence = {"type": "interval", "every_minutes": 1, "anchor": anchor}
        alpha.send("POST", f"/routines/{alpha.collection}/attack", {"name": f"r{second}", "cadence": cadence})
    alpha.begin()
    alpha.repeat(lambda: alpha.send("GET", f"/schedule-load/{alpha.collection}?bucket=minute"), threads=10)
