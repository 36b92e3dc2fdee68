"""Questions about the schedule, and about what became of it, that take the database or the API long."""

from isolation.alpha import Alpha, UselessAttackError
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import FLEETING

ROUTINES = 300
CREATED = 201
LANES = 100
"""The most routines on a page of the timeline."""
MANY = 5000
"""Routines of a collection that is followed."""
MOST_CHANGES = 500
"""The most routines that an answer to a follower names."""
_MAKE_ROUTINES = """
    INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
    SELECT collection_id, id, 'r' || number, 'manual'
    FROM routines.tasks CROSS JOIN generate_series(1, %s) AS number
    WHERE collection_id = (SELECT id FROM routines.collections WHERE name = %s)
"""
_MAKE_RUNS = """
    INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
        scheduled_for, init_params, status, created_at, started_at, ended_at)
    SELECT collection_id, task_id, 1, routines.id, wanted.trigger,
           CASE wanted.trigger WHEN 'schedule' THEN began_at END, '{}',
           (ARRAY['completed', 'failed', 'cancelled', 'archived'])[1 + number %% 4],
           began_at, began_at, began_at + interval '1 second'
    FROM (VALUES (%s, %s::integer, %s::interval)) AS wanted (trigger, most, apart)
    CROSS JOIN routines.routines
    CROSS JOIN generate_series(1, most) AS number
    CROSS JOIN LATERAL (SELECT date_trunc('second', now()) - number * apart AS began_at) AS run
    WHERE routines.collection_id = (SELECT id FROM routines.collections WHERE name = %s)
      AND name = ANY (SELECT 'r' || number FROM generate_series(1, %s) AS number)
"""
"""Runs of the first so many routines, in four ways by turns, the last of them a moment ago."""
_TOUCH = """
    UPDATE routines.routines SET last_run_at = now()
    WHERE collection_id = (SELECT id FROM routines.collections WHERE name = %s)
      AND name = ANY (SELECT 'r' || number FROM generate_series(1, %s) AS number)
"""


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


@attack(Containment.FAIR_SHARES)
def timelines_of_a_hundred_thousand_runs(alpha: Alpha) -> None:
    """Forty connections read the timeline of a routine that was run by hand 100,000 times in its window."""
    _make(alpha, routines=1)
    alpha.execute(_MAKE_RUNS, "run-now", 100_000, "400 milliseconds", alpha.collection, 1)
    alpha.begin()
    alpha.repeat(lambda: alpha.send("GET", f"/timeline/{alpha.collection}"), threads=40)


@attack(Containment.FAIR_SHARES)
def timelines_of_routines_that_have_run_every_minute(alpha: Alpha) -> None:
    """Forty connections read the timeline of 100 routines with 700 runs each, which ended in four ways by turns."""
    _make(alpha, routines=LANES)
    alpha.execute(_MAKE_RUNS, "schedule", 700, "1 minute", alpha.collection, LANES)
    alpha.begin()
    alpha.repeat(lambda: alpha.send("GET", f"/timeline/{alpha.collection}?limit={LANES}"), threads=40)


@attack(Containment.FAIR_SHARES)
def followers_that_never_go_on(alpha: Alpha) -> None:
    """Forty connections ask what has changed since a moment before 500 of 5,000 routines did and 19,000 runs ended."""
    _make(alpha, routines=MANY)
    answer = alpha.send("GET", f"/db/changes/{alpha.collection}")
    if answer is None or not answer.is_success:
        raise UselessAttackError(f"there is no cursor: {dict(alpha.answers)}")
    alpha.execute(_TOUCH, alpha.collection, MOST_CHANGES)
    alpha.execute(_MAKE_RUNS, "run-now", 19_000 // MOST_CHANGES, "10 milliseconds", alpha.collection, MOST_CHANGES)
    since = {"since": answer.json()["cursor"]}
    alpha.begin()
    alpha.repeat(lambda: alpha.send("GET", f"/db/changes/{alpha.collection}", params=since), threads=40)


def _make(alpha: Alpha, *, routines: int) -> None:
    """Save a task and so many routines of it, without a schedule. By HTTP that would take minutes."""
    alpha.task({"echo": FLEETING})
    alpha.execute(_MAKE_ROUTINES, routines, alpha.collection)
