-- What became of each slot, and what is to come: read only.

-- name: list_occurrences
-- Newest slot first; a slot has one outcome, so the slot alone is the cursor: `before` is the last one of the page before.
-- `outcome` is started, skipped or a reason. Spans count where they touch [since, until).
SELECT scheduled_for, last_scheduled_for, slot_count, outcome, reason, trajectory_id, blocking_trajectory_id, detail,
       recorded_at, extract(epoch FROM delay)::float8 AS delay_seconds
FROM routines.occurrences
WHERE collection_id = %(collection_id)s::bigint AND routine_id = %(routine_id)s::bigint
  AND (%(since)s::timestamptz IS NULL OR last_scheduled_for >= %(since)s::timestamptz)
  AND (%(until)s::timestamptz IS NULL OR scheduled_for < %(until)s::timestamptz)
  AND (%(outcome)s::text IS NULL OR %(outcome)s::text IN (outcome, reason))
  AND (%(before)s::timestamptz IS NULL OR scheduled_for < %(before)s::timestamptz)
ORDER BY scheduled_for DESC
LIMIT %(page_size)s::integer;

-- name: why
-- One row of facts about a time, also where the routine is gone; `now` moves the clock in tests. Since every slot from the
-- routine's making on is in the ledger, waits for the tick or falls in the present pause, what is none of these is no slot.
WITH asked AS (SELECT %(at)s::timestamptz AS at, coalesce(%(now)s::timestamptz, now()) AS now),
recorded AS (
    SELECT occurrences.*
    FROM asked, routines.occurrences
    WHERE collection_id = %(collection_id)s::bigint AND routine_id = %(routine_id)s::bigint
      AND scheduled_for <= at
      AND (slot_count = 1 AND scheduled_for = at OR slot_count > 1 AND last_scheduled_for >= at)
),
routine AS (
    SELECT routines.*, next_run_at = at OR coalesce(at = routines.latest_slot(
               cadence_type, hour_utc, minute_utc, day_of_week, at), false) AS is_slot,
           CASE WHEN at < next_run_at THEN next_run_at
                WHEN NOT paused THEN routines.next_fire(cadence_type, hour_utc, minute_utc, day_of_week, at) END AS next_slot
    FROM asked, routines.routines
    WHERE collection_id = %(collection_id)s::bigint AND id = %(routine_id)s::bigint
)
SELECT asked.at, asked.now
FROM asked;
