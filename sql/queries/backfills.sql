-- Backfills as the API sees them. Tickers expand them: queries/tick.sql.

-- name: plan
-- What a backfill of this range would make of each slot, by the function that tickers expand it with.
SELECT plan.slot AS scheduled_for, plan.becomes, plan.reason, plan.trajectory_id
FROM (SELECT routines.collection_of_key(%(key_id)s::routines.caller) AS id) AS collection
CROSS JOIN LATERAL routines.slots_to_fill(
    %(routine_id)s::bigint, %(since)s::timestamptz, least(%(until)s::timestamptz, now()), %(reprocess)s::text, %(order)s::text,
    most_slots => routines.most_slots_to_fill() + 1) AS plan
WHERE collection.id IS NOT NULL;

-- name: create_backfill
INSERT INTO routines.backfills (routine_id, from_time, until_time, reprocess, slot_order, max_active)
SELECT id, %(since)s::timestamptz, coalesce(%(until)s::timestamptz, now()), %(reprocess)s::text, %(order)s::text, %(max_active)s::smallint
FROM routines.routines
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND id = %(routine_id)s::bigint
RETURNING id;

-- name: list_backfills
-- Those of a routine, newest first, below the cursor, or one of them. Counts the runs of each by their key.
SELECT page.id, from_time AS since, until_time AS until, reprocess, slot_order AS order, max_active::integer AS max_active, created_at, made_by, reached,
       started, left_out, ended_at, held_by, active, completed, failed, cancelled, archived,
       CASE WHEN ended_at IS NULL OR end_reason = 'expanded' AND active > 0 THEN 'active'
            WHEN end_reason = 'expanded' THEN 'completed' ELSE 'cancelled' END AS status
FROM (SELECT * FROM routines.backfills
      WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND routine_id = %(routine_id)s::bigint
        AND id < coalesce(%(before)s::bigint, 9223372036854775807) AND coalesce(id = %(id)s::bigint, true)
      ORDER BY id DESC LIMIT %(limit)s::integer) AS page
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE final_status IS NULL)::integer AS active,
           count(*) FILTER (WHERE status = 'completed')::integer AS completed,
           count(*) FILTER (WHERE status = 'failed')::integer AS failed,
           count(*) FILTER (WHERE status = 'cancelled')::integer AS cancelled,
           count(*) FILTER (WHERE status = 'archived')::integer AS archived
    FROM routines.trajectories WHERE backfill_id = page.id) AS runs
ORDER BY page.id DESC;

-- name: cancel_backfill
-- Nothing changes if it has ended. No row if the routine has no such backfill.
SELECT routines.cancel_backfill(id) AS is_done FROM routines.backfills
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND routine_id = %(routine_id)s::bigint
  AND id = %(id)s::bigint;
