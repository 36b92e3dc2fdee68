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
-- One row of facts about a time, also where the routine is gone; `now` moves the clock in tests. Every slot from the
-- routine's making on is in the ledger, waits for the tick, falls in the present pause, is to come, or is one that somebody
-- set next_run_at past: what is none of these was no slot, unless it is older than what is kept. Rows of skips are disjoint,
-- so the one that began last is the only one that can hold the time.
WITH asked AS MATERIALIZED (SELECT %(at)s::timestamptz AS at, coalesce(%(now)s::timestamptz, now()) AS now),
run AS (
    SELECT trajectories.* FROM asked JOIN routines.trajectories ON scheduled_for = at
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
      AND triggered_by_routine_id = %(routine_id)s::bigint
),
skip AS (
    SELECT latest.*
    FROM asked, LATERAL (SELECT * FROM routines.skips
                         WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
                           AND routine_id = %(routine_id)s::bigint AND scheduled_for <= at
                         ORDER BY scheduled_for DESC LIMIT 1) AS latest
    WHERE last_scheduled_for >= at
      AND coalesce(routines.is_slot_of_span(latest.cadence_type, scheduled_for, last_scheduled_for, at), false)
),
routine AS (
    SELECT routines.*,
           coalesce(next_run_at = at OR at = routines.latest_slot(cadence_type, hour_utc, minute_utc, day_of_week, at), false)
               AS is_slot,
           at > coalesce(settled_until, created_at) AND at < next_run_at AS is_passed_over,
           CASE WHEN paused THEN NULL
                WHEN at >= now AND at < next_run_at THEN next_run_at
                ELSE routines.next_fire(cadence_type, hour_utc, minute_utc, day_of_week, at) END AS next_slot
    FROM asked, routines.routines
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND id = %(routine_id)s::bigint
)
SELECT CASE WHEN run.id IS NOT NULL THEN 'started'
            WHEN skip.id IS NOT NULL THEN skip.reason
            WHEN routine.id IS NULL THEN 'deleted'
            WHEN at < routine.created_at AND at < coalesce(next_run_at, routine.created_at) THEN 'before_creation'
            WHEN at <= settled_until AND at <= (SELECT max(deleted_until) FROM routines.retention) THEN 'forgotten'
            WHEN NOT is_slot THEN 'not_a_slot'
            WHEN paused AND at > now THEN 'paused_in_future'
            WHEN paused AND at > greatest(paused_at, settled_until) THEN 'paused'
            WHEN next_run_at <= at THEN CASE WHEN at > now THEN 'future' ELSE 'pending' END
            WHEN is_passed_over THEN 'passed_over'
            ELSE 'not_a_slot' END AS kind,
       at, now,
       coalesce(run.scheduled_for, skip.scheduled_for) AS scheduled_for,
       coalesce(run.scheduled_for, skip.last_scheduled_for) AS last_scheduled_for,
       coalesce(skip.slot_count, CASE WHEN run.id IS NOT NULL THEN 1 END) AS slot_count,
       coalesce(run.created_at, skip.recorded_at) AS recorded_at,
       run.id AS trajectory_id, run.status AS trajectory_status,
       skip.blocking_trajectory_id,
       coalesce(blocking.started_at, blocking.created_at) AS blocking_started_at, blocking.ended_at AS blocking_ended_at,
       coalesce(skip.detail, CASE WHEN is_passed_over THEN routines.passed_over_detail(next_run_at) END) AS detail,
       routine.created_at AS routine_created_at, routine.paused_at, routine.paused_reason, routine.cadence_type,
       coalesce(is_slot, false) AS is_slot_of_cadence, next_slot
FROM asked
LEFT JOIN run ON true
LEFT JOIN skip ON true
LEFT JOIN routine ON true
LEFT JOIN routines.trajectories AS blocking ON blocking.id = skip.blocking_trajectory_id;

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
