"""Questions about the schedule that take the database seconds."""

from isolation.alpha import Alpha
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import FLEETING

ROUTINES = 300
CREATED = 201


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


@attack(Containment.FAIR_SHARES)
def feeds_of_routines_that_fire_every_minute(alpha: Alpha) -> None:
    """Ten connections create a calendar feed of 300 routines, read it and revoke it, so that its rate never holds."""
    alpha.task({"echo": FLEETING})
    for number in range(ROUTINES):
        cadence = {
            "type": "cron",
            "expression": f"*/1 {number % 24} * * mon#{number % 5 + 1}",
            "timezone": "Asia/Tokyo",
        }
        alpha.send("POST", f"/routines/{alpha.collection}/attack", {"name": f"r{number}", "cadence": cadence})
    alpha.begin()

    def read_a_new_one() -> None:
        made = alpha.send("POST", f"/ics/{alpha.collection}")
        if made is None or made.status_code != CREATED:
            return
        feed = made.json()
        alpha.send("GET", f"/ics/{feed['token']}.ics")
        alpha.send("DELETE", f"/ics/{alpha.collection}/{feed['id']}")

    alpha.repeat(read_a_new_one, threads=10)
