-- Outcomes of past slots, and coming slots. Read only.

-- name: list_occurrences
-- Newest slot first. A slot has one outcome, so the slot alone is the cursor: `before` is the last slot of the previous page.
-- `outcome` is started, skipped or a reason. Spans are included if they touch [since, until).
-- Same as the view occurrences, but it reads a page from each table by its index; the view would sort all slots.
-- local_time and dst by the cadence that the routine has today, and only if that is read in a time zone.
SELECT page.*, routines.local_time_of(cadence, scheduled_for) AS local_time,
       CASE WHEN page.slot_count = 1 THEN routines.dst_of(cadence, scheduled_for) END AS dst
FROM (
    (SELECT scheduled_for, scheduled_for AS last_scheduled_for, 1::bigint AS slot_count, 'started' AS outcome, NULL AS reason,
            id AS trajectory_id, NULL::bigint AS blocking_trajectory_id, NULL AS detail, created_at AS recorded_at,
            extract(epoch FROM created_at - coalesce(due_at, scheduled_for))::float8 AS delay_seconds, due_at,
            coalesce(last.status, trajectories.status) AS status,
            CASE WHEN last.last_trajectory_id IS NULL THEN trajectories.error ELSE last.error END AS error, last.last_trajectory_id,
            NULL::bigint AS filled_by, NULL AS filled_status, NULL::bigint AS filled_slots
     FROM routines.trajectories
     LEFT JOIN LATERAL (SELECT attempt.id AS last_trajectory_id, attempt.status, attempt.error FROM routines.trajectories AS attempt
                        WHERE trajectories.retried_by IS NOT NULL
                          AND attempt.id = routines.last_attempt(trajectories.id, trajectories.retried_by) LIMIT 1) AS last ON true
     WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
       AND triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NOT NULL
       AND coalesce(%(outcome)s::text, 'started') = 'started'
       AND scheduled_for >= coalesce(%(since)s::timestamptz, '-infinity')
       AND scheduled_for < least(%(until)s::timestamptz, %(before)s::timestamptz, 'infinity')
     ORDER BY scheduled_for DESC LIMIT %(page_size)s::integer)
    UNION ALL
    (SELECT scheduled_for, last_scheduled_for, slot_count, 'skipped', reason, NULL, blocking_trajectory_id, detail, recorded_at,
            extract(epoch FROM greatest(recorded_at - coalesce(due_at, last_scheduled_for), '0'))::float8, due_at, NULL, NULL, NULL,
            filled_by, CASE WHEN filled_by IS NOT NULL THEN (
                SELECT routines.status_of_slot(fill.id, fill.status, fill.retried_by) FROM routines.trajectories AS fill
                WHERE fill.id = filled_by) END,
            CASE WHEN filled_by IS NOT NULL AND slot_count > 1 THEN (
                SELECT count(*) FROM routines.trajectories AS fill
                WHERE fill.triggered_by_routine_id = routine_id AND rerun_of IS NULL
                  AND fills_slot BETWEEN skips.scheduled_for AND skips.last_scheduled_for) END
     FROM routines.skips
     WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND routine_id = %(routine_id)s::bigint
       AND coalesce(%(outcome)s::text, 'skipped') IN ('skipped', reason)
       AND last_scheduled_for >= coalesce(%(since)s::timestamptz, '-infinity')
       AND scheduled_for < least(%(until)s::timestamptz, %(before)s::timestamptz, 'infinity')
     ORDER BY scheduled_for DESC LIMIT %(page_size)s::integer)
    ORDER BY scheduled_for DESC
    LIMIT %(page_size)s::integer
) AS page
LEFT JOIN (SELECT routines.cadence_of(routines) AS cadence FROM routines.routines WHERE id = %(routine_id)s::bigint) AS routine ON true
ORDER BY scheduled_for DESC;

-- name: latest_outcomes
-- The newest `slots` rows of the ledger of each of these routines, and its newest run-now run, by id and newest first; one row
-- without an outcome if there are none. Each branch reads the end of an index, so the cost does not depend on the history.
-- Ids of other collections return nothing. `troubles` has what is wrong with the routine, the same on each of its rows.
SELECT routine.id AS routine_id, routine.paused_at, routine.paused_reason, found.troubles, latest.scheduled_for, latest.last_scheduled_for,
       latest.slot_count, latest.outcome, latest.reason, latest.trajectory_id, latest.trigger, latest.status, latest.error,
       latest.blocking_trajectory_id, latest.detail, latest.recorded_at, latest.ended_at, latest.last_trajectory_id
FROM unnest(%(ids)s::bigint[]) AS asked(id)
JOIN routines.routines AS routine ON routine.id = asked.id
CROSS JOIN LATERAL (SELECT coalesce(jsonb_agg(trouble), '[]') AS troubles FROM routines.troubles_of(routine.id) AS trouble) AS found
LEFT JOIN LATERAL (
    (SELECT * FROM (
        (SELECT scheduled_for, scheduled_for AS last_scheduled_for, 1::bigint AS slot_count, 'started' AS outcome,
                NULL AS reason, id AS trajectory_id, trigger, coalesce(last.status, trajectories.status) AS status,
                CASE WHEN last.last_trajectory_id IS NULL THEN trajectories.error ELSE last.error END AS error,
                NULL::bigint AS blocking_trajectory_id, NULL AS detail, created_at AS recorded_at,
                CASE WHEN last.last_trajectory_id IS NULL THEN trajectories.ended_at ELSE last.ended_at END AS ended_at,
                last.last_trajectory_id
         FROM routines.trajectories
         LEFT JOIN LATERAL (SELECT attempt.id AS last_trajectory_id, attempt.status, attempt.error, attempt.ended_at
                            FROM routines.trajectories AS attempt
                            WHERE trajectories.retried_by IS NOT NULL
                          AND attempt.id = routines.last_attempt(trajectories.id, trajectories.retried_by) LIMIT 1) AS last
                   ON true
         WHERE triggered_by_routine_id = routine.id AND scheduled_for IS NOT NULL
         ORDER BY scheduled_for DESC LIMIT %(slots)s::integer)
        UNION ALL
        (SELECT scheduled_for, last_scheduled_for, slot_count, 'skipped', reason, NULL, NULL, NULL, NULL,
                blocking_trajectory_id, detail, recorded_at, NULL, NULL
         FROM routines.skips
         WHERE routine_id = routine.id
         ORDER BY scheduled_for DESC LIMIT %(slots)s::integer)) AS slot
     ORDER BY scheduled_for DESC LIMIT %(slots)s::integer)
    UNION ALL
    (SELECT NULL, NULL, 0, 'started', NULL, run_now.id, run_now.trigger, coalesce(last.status, run_now.status),
            CASE WHEN last.id IS NULL THEN run_now.error ELSE last.error END, NULL, NULL, run_now.created_at,
            CASE WHEN last.id IS NULL THEN run_now.ended_at ELSE last.ended_at END, last.id
     FROM (SELECT * FROM routines.trajectories
           WHERE triggered_by_routine_id = routine.id AND scheduled_for IS NULL AND trigger = 'run-now'
           ORDER BY id DESC LIMIT 1) AS run_now
     LEFT JOIN LATERAL (SELECT * FROM routines.trajectories AS attempt
                        WHERE run_now.retried_by IS NOT NULL
                          AND attempt.id = routines.last_attempt(run_now.id, run_now.retried_by) LIMIT 1) AS last ON true)) AS latest ON true
WHERE routine.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
ORDER BY routine.id, coalesce(latest.scheduled_for, latest.recorded_at) DESC;

-- name: why
-- Explains a time of a routine, by default its newest slot, even of a deleted one. `now` moves the clock in tests.
SELECT sentence, kind, at, now, scheduled_for, last_scheduled_for, slot_count, recorded_at, trajectory_id,
       trajectory_status, blocking_trajectory_id, blocking_started_at, blocking_ended_at, detail, routine_created_at,
       paused_at, paused_reason, paused_until, paused_note, cadence_type, is_slot_of_cadence, next_slot, due_at,
       step, tries, error, delay_seconds, delay_reason, missed_before, last_trajectory_id, filled_by
FROM routines.explain_time(%(routine_id)s::bigint, %(at)s::timestamptz, coalesce(%(now)s::timestamptz, now()),
                           (SELECT routines.collection_of_key(%(key_id)s::routines.caller)));

-- name: next_slots
-- Coming slots of a saved routine, beginning with that of next_run_at; while it is paused, those after the end of the pause, if
-- it has one. Without `after`, a slot that waits for its offset is among them. Slots that its calendars or active hours exclude are
-- left out, and shown where they move to.
SELECT slot
FROM routines.routines,
     coalesce(routines.without_spread(routines, next_run_at), routines.slot_after_pause(routines)) AS first_slot,
     coalesce(%(after)s::timestamptz, routines.without_spread(routines, now())) AS after, LATERAL (
    SELECT first_slot AS slot WHERE first_slot > after AND NOT routines.has_exclusions(routines)
    UNION
    SELECT routines.next_slots(routines.cadence_of(routines), greatest(first_slot, after), %(slot_limit)s::integer)
    WHERE NOT routines.has_exclusions(routines)
    UNION
    SELECT routines.firing_slots(routines, greatest(first_slot - interval '1 microsecond', after), %(slot_limit)s::integer)
    WHERE routines.has_exclusions(routines)) AS coming
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND id = %(routine_id)s::bigint AND first_slot IS NOT NULL
ORDER BY slot
LIMIT %(slot_limit)s::integer;

-- name: preview
-- Coming slots of a cadence that is not saved. A null `after` means now().
SELECT slot FROM routines.preview_slots(routines.cadence_from_json(%(cadence)s::jsonb), coalesce(%(after)s::timestamptz, now()),
                                        %(slot_limit)s::integer, %(spread_seconds)s::integer) AS slot;
