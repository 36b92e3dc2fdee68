-- Slots that new time zone data has moved: see src/routines_core/db/clocks.py.

-- name: moved_slots
-- One page of cron routines, by id. Slots of routines in UTC and of paused ones cannot have moved.
WITH page AS MATERIALIZED (
    SELECT routines AS routine, id, name, task_id, timezone FROM routines.routines
    WHERE cadence_type = 'cron' AND timezone <> 'UTC' AND upcoming IS NOT NULL AND id > %(after)s::bigint
    ORDER BY id
    LIMIT %(page_size)s::integer
)
SELECT page.id AS routine_id, collections.name || '/' || tasks.name || '/' || page.name AS routine, timezone, kept, computed
FROM page
CROSS JOIN LATERAL routines.first_moved_slot(page.routine)
JOIN routines.tasks ON tasks.id = page.task_id
JOIN routines.collections ON collections.id = tasks.collection_id
WHERE kept IS NOT NULL
ORDER BY page.id;

-- name: last_of_page
-- Where the page after `after` ends; no row after the last one.
SELECT max(id) AS id FROM (
    SELECT id FROM routines.routines
    WHERE cadence_type = 'cron' AND timezone <> 'UTC' AND upcoming IS NOT NULL AND id > %(after)s::bigint
    ORDER BY id
    LIMIT %(page_size)s::integer) AS page
HAVING max(id) IS NOT NULL;

-- name: recompute
-- Makes the window of a routine anew, and moves its next slot with it: to the first one without an outcome. A next_run_at that a
-- person has set to another time stays, and so does one that is due. Waits for a tick that has locked the routine.
WITH locked AS MATERIALIZED (
    SELECT id, collection_id, timezone, routines.without_spread(routines, next_run_at) AS slot, moved.computed,
           next_run_at > now() AND routines.without_spread(routines, next_run_at) = ANY (upcoming) AS follows,
           routines.next_fire(routines.cadence_of(routines), coalesce(settled_until, created_at)) AS next_slot
    FROM routines.routines, LATERAL routines.first_moved_slot(routines) AS moved
    WHERE id = %(routine_id)s::bigint AND upcoming IS NOT NULL AND moved.kept IS NOT NULL
    FOR UPDATE OF routines
),
recorded AS (
    INSERT INTO routines.slot_moves (collection_id, routine_id, moved_from, moved_to, timezone)
    SELECT collection_id, id, slot, next_slot, timezone FROM locked
    WHERE follows AND next_slot IS NOT NULL AND next_slot <> slot
)
UPDATE routines.routines
SET upcoming = routines.slot_window(routines.cadence_of(routines), routines.without_spread(routines, now())),
    next_run_at = CASE WHEN follows THEN routines.with_spread(routines, next_slot) ELSE routines.next_run_at END
FROM locked WHERE routines.id = locked.id;
