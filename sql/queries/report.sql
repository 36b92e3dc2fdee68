-- What was expected of a schedule and what became of it, and the slots that never ran. Read only.

-- name: report
-- A page of the caller's routines, by task and name; on the first one, without `after_id`, also the sums of each task and of all
-- routines. `now` moves the clock in tests.
WITH counted AS MATERIALIZED (
    SELECT * FROM routines.report_of(
        (SELECT routines.collection_of_key(%(key_id)s::routines.caller)), %(from)s::timestamptz, %(until)s::timestamptz,
        %(late_after_seconds)s::integer, coalesce(%(now)s::timestamptz, now()), %(after_task)s::text, %(after_routine)s::text,
        %(after_id)s::bigint, CASE WHEN %(after_id)s::bigint IS NOT NULL OR NOT %(with_sums)s::boolean THEN %(page_size)s::integer END)
),
summed AS (
    SELECT task, routine, routine_id, coalesce(bool_or(is_deleted) AND routine_id IS NOT NULL, false) AS is_deleted,
           coalesce(sum(expected), 0)::bigint AS expected, coalesce(sum(started), 0)::bigint AS started,
           coalesce(sum(on_time), 0)::bigint AS on_time, coalesce(sum(late), 0)::bigint AS late,
           coalesce(sum(completed), 0)::bigint AS completed, coalesce(sum(failed), 0)::bigint AS failed,
           coalesce(sum(cancelled), 0)::bigint AS cancelled, coalesce(sum(archived), 0)::bigint AS archived,
           coalesce(sum(active), 0)::bigint AS active, coalesce(sum(skipped), 0)::bigint AS skipped,
           coalesce(sum(overlap), 0)::bigint AS overlap, coalesce(sum(coalesced), 0)::bigint AS coalesced,
           coalesce(sum(missed), 0)::bigint AS missed,
           coalesce(sum(paused), 0)::bigint AS paused, coalesce(sum(failed_to_start), 0)::bigint AS failed_to_start,
           coalesce(sum(calendar), 0)::bigint AS calendar, coalesce(sum(outside_hours), 0)::bigint AS outside_hours,
           coalesce(sum(backoff), 0)::bigint AS backoff,
           coalesce(sum(pending), 0)::bigint AS pending, coalesce(sum(recovered), 0)::bigint AS recovered,
           max(max_delay_seconds) AS max_delay_seconds,
           grouping(task, routine_id) AS level, row_number() OVER (PARTITION BY grouping(task, routine_id) ORDER BY task, routine, routine_id) AS place
    FROM counted GROUP BY GROUPING SETS ((task, routine, routine_id), (task), ())
)
SELECT task, routine, routine_id, is_deleted, expected, started, on_time, late, completed, failed, cancelled, archived, active,
       skipped, overlap, coalesced, missed, paused, failed_to_start, calendar, outside_hours, backoff, pending, recovered, max_delay_seconds
FROM summed
WHERE CASE WHEN level = 0 THEN place <= %(page_size)s::integer ELSE %(after_id)s::bigint IS NULL AND %(with_sums)s::boolean END
ORDER BY level DESC, place;

-- name: complete_since
-- The newest slot that retention has deleted, if that may be one of the slots since `from`.
SELECT max(deleted_until) AS complete_since FROM routines.retention WHERE deleted_until >= %(from)s::timestamptz;

-- name: gaps
-- The slots of a routine that never ran, oldest first. A slot has one outcome, so the slot alone is the cursor.
SELECT gap.scheduled_for, gap.due_at, gap.reason, gap.detail, gap.trajectory_id, gap.blocking_trajectory_id, gap.recorded_at
FROM (SELECT routines.collection_of_key(%(key_id)s::routines.caller) AS id) AS collection
CROSS JOIN LATERAL routines.gaps_of(
    %(routine_id)s::bigint, greatest(%(from)s::timestamptz, %(after)s::timestamptz + interval '1 microsecond'),
    %(until)s::timestamptz, %(page_size)s::integer, %(reason)s::text, %(with_failed)s::boolean,
    coalesce(%(now)s::timestamptz, now()), collection.id) AS gap
ORDER BY gap.scheduled_for;
