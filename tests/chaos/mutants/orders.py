"""What a person does to a schedule, and the slots that were due then: pauses, changes and deletions."""

from chaos.mutant import SCHEMA, TICK, Edit, Mutant

MUTANTS = [
    Mutant(
        "slots that were due when a person paused, changed or deleted the routine get no outcome",
        (Edit(SCHEMA, "IF first_slot <= clock THEN", "IF false THEN", "settle_slots"),),
        {"lost"},
        traffic={"burst": 20, "pause": 40, "resume": 40},
    ),
    Mutant(
        "slots that were due when a person deleted the routine get no outcome",
        (
            Edit(
                SCHEMA,
                "IF first_slot <= clock THEN",
                "IF first_slot <= clock AND TG_OP = 'UPDATE' THEN",
                "settle_slots",
            ),
        ),
        {"lost"},
        traffic={"burst": 20, "delete": 60},
    ),
    Mutant(
        "slots that were due when a person paused the routine count as missed",
        (Edit(SCHEMA, "CASE WHEN is_paused THEN 'paused' ELSE 'missed' END", "'missed'", "settle_slots"),),
        {"skip"},
        traffic={"burst": 20, "pause": 40, "resume": 40},
    ),
    Mutant(
        "slots that a person set next_run_at past get no outcome",
        (Edit(TICK, "FROM late WHERE first_passed < first_slot", "FROM late WHERE false", "tick"),),
        {"lost"},
        traffic={"due": 300, "aim": 0, "pause": 0, "resume": 0, "delete": 0},
    ),
    Mutant(
        "slots in a pause with an end get no outcome",
        (Edit(SCHEMA, "IF first_slot <= last_slot THEN", "IF false THEN", "settle_slots"),),
        {"lost"},
        traffic={"rest": 100},
    ),
    Mutant(
        "pauses end two seconds early",
        (
            Edit(TICK, "AND paused_until <= now()", "AND paused_until <= now() + interval '2 seconds'", "resume"),
            Edit(TICK, "paused_until <= now() AND", "paused_until <= now() + interval '2 seconds' AND", "ended_pauses"),
            Edit(TICK, "min(paused_until)", "min(paused_until) - interval '2 seconds'", "seconds_until_due"),
        ),
        {"early", "paused", "skip", "next_run_at", "lost"},
        traffic={"rest": 100},
    ),
    Mutant(
        "resuming makes up for the pause",
        (
            Edit(
                SCHEMA,
                "ELSE least(routines.next_slot_of(NEW, routines.without_spread(NEW, now())),",
                "ELSE least(routines.next_slot_of(NEW, now() - interval '3 hours'),",
                "keep_next_run_at",
            ),
            Edit(
                SCHEMA,
                "IF routines.without_spread(NEW, NEW.next_run_at) <= NEW.settled_until THEN",
                "IF false THEN",
                "settle_slots",
            ),
        ),
        {"next_run_at", "unordered"},
        traffic={"pause": 20, "resume": 30},
    ),
    Mutant(
        "a spread is turned off while the slot waits, and the slot is passed over",
        (
            Edit(
                SCHEMA,
                "routines.with_spread(NEW, routines.without_spread(OLD, OLD.next_run_at))",
                "routines.with_spread(NEW, routines.next_slot_of(NEW, now()))",
                "keep_next_run_at",
            ),
        ),
        test="sql/test_spread.py::"
        "test_a_changed_spread_moves_the_slot_that_waits_and_loses_or_repeats_none[None-became0]",
        in_ci=True,
    ),
]
