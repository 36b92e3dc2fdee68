-- What became of each slot, and what is to come: read only.

-- name: list_occurrences
-- Newest slot first; a slot has one outcome, so the slot alone is the cursor: `before` is the last one of the page before.
-- `outcome` is started, skipped or a reason. Spans count where they touch [since, until).
-- The same as the view occurrences, a page from either table by its index: over the view all slots would be sorted.
(SELECT scheduled_for, scheduled_for AS last_scheduled_for, 1::bigint AS slot_count, 'started' AS outcome, NULL AS reason,
        id AS trajectory_id, NULL::bigint AS blocking_trajectory_id, NULL AS detail, created_at AS recorded_at,
        extract(epoch FROM created_at - scheduled_for)::float8 AS delay_seconds, status, error
 FROM routines.trajectories
 WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
   AND triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NOT NULL
   AND coalesce(%(outcome)s::text, 'started') = 'started'
   AND scheduled_for >= coalesce(%(since)s::timestamptz, '-infinity')
   AND scheduled_for < least(%(until)s::timestamptz, %(before)s::timestamptz, 'infinity')
 ORDER BY scheduled_for DESC LIMIT %(page_size)s::integer)
UNION ALL
(SELECT scheduled_for, last_scheduled_for, slot_count, 'skipped', reason, NULL, blocking_trajectory_id, detail, recorded_at,
        extract(epoch FROM recorded_at - last_scheduled_for)::float8, NULL, NULL
 FROM routines.skips
 WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND routine_id = %(routine_id)s::bigint
   AND coalesce(%(outcome)s::text, 'skipped') IN ('skipped', reason)
   AND last_scheduled_for >= coalesce(%(since)s::timestamptz, '-infinity')
   AND scheduled_for < least(%(until)s::timestamptz, %(before)s::timestamptz, 'infinity')
 ORDER BY scheduled_for DESC LIMIT %(page_size)s::integer)
ORDER BY scheduled_for DESC
LIMIT %(page_size)s::integer;

-- name: latest_outcomes
-- Of each of these routines the newest `slots` rows of its ledger and its newest run-now run, by id and newest first; one row
-- without an outcome where there is none. Each branch reads the end of an index, so that a routine costs the same whatever its
-- history. Ids that are not of this collection give nothing.
SELECT routine.id AS routine_id, routine.paused_at, routine.paused_reason, latest.scheduled_for, latest.last_scheduled_for,
       latest.slot_count, latest.outcome, latest.reason, latest.trajectory_id, latest.trigger, latest.status, latest.error,
       latest.blocking_trajectory_id, latest.detail, latest.recorded_at, latest.ended_at
FROM unnest(%(ids)s::bigint[]) AS asked(id)
JOIN routines.routines AS routine ON routine.id = asked.id
LEFT JOIN LATERAL (
    (SELECT * FROM (
        (SELECT scheduled_for, scheduled_for AS last_scheduled_for, 1::bigint AS slot_count, 'started' AS outcome,
                NULL AS reason, id AS trajectory_id, trigger, status, error, NULL::bigint AS blocking_trajectory_id,
                NULL AS detail, created_at AS recorded_at, ended_at
         FROM routines.trajectories
         WHERE triggered_by_routine_id = routine.id AND scheduled_for IS NOT NULL
         ORDER BY scheduled_for DESC LIMIT %(slots)s::integer)
        UNION ALL
        (SELECT scheduled_for, last_scheduled_for, slot_count, 'skipped', reason, NULL, NULL, NULL, NULL,
                blocking_trajectory_id, detail, recorded_at, NULL
         FROM routines.skips
         WHERE routine_id = routine.id
         ORDER BY scheduled_for DESC LIMIT %(slots)s::integer)) AS slot
     ORDER BY scheduled_for DESC LIMIT %(slots)s::integer)
    UNION ALL
    (SELECT NULL, NULL, 0, 'started', NULL, id, trigger, status, error, NULL, NULL, created_at, ended_at
     FROM routines.trajectories
     WHERE triggered_by_routine_id = routine.id AND trigger = 'run-now'
     ORDER BY id DESC LIMIT 1)) AS latest ON true
WHERE routine.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
ORDER BY routine.id, coalesce(latest.scheduled_for, latest.recorded_at) DESC;

-- name: why
-- What a time is to a routine, also where that is gone; `now` moves the clock in tests.
SELECT sentence, kind, at, now, scheduled_for, last_scheduled_for, slot_count, recorded_at, trajectory_id,
       trajectory_status, blocking_trajectory_id, blocking_started_at, blocking_ended_at, detail, routine_created_at,
       paused_at, paused_reason, cadence_type, is_slot_of_cadence, next_slot
FROM routines.explain_time(%(routine_id)s::bigint, %(at)s::timestamptz, coalesce(%(now)s::timestamptz, now()),
                           (SELECT routines.collection_of_key(%(key_id)s::routines.caller)));

-- name: next_slots
-- Coming slots of a saved routine; none while it is paused. next_run_at itself is the first of them.
SELECT slot
FROM routines.routines, LATERAL (
    SELECT next_run_at AS slot WHERE next_run_at > coalesce(%(after)s::timestamptz, now())
    UNION
    SELECT routines.next_slots(cadence_type, hour_utc, minute_utc, day_of_week, greatest(next_run_at, coalesce(%(after)s::timestamptz, now())),
                               %(slot_limit)s::integer)) AS coming
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND id = %(routine_id)s::bigint AND next_run_at IS NOT NULL
ORDER BY slot
LIMIT %(slot_limit)s::integer;

-- name: preview
-- Coming slots of a cadence that is not saved; null for `after` is now().
SELECT slot FROM routines.next_slots(%(cadence_type)s::text, %(hour_utc)s::integer, %(minute_utc)s::integer,
                                     %(day_of_week)s::text, coalesce(%(after)s::timestamptz, now()),
                                     %(slot_limit)s::integer) AS slot;
