-- What many routines did and will do, beside each other. Read only.

-- name: timeline
-- A page of the caller's routines, by task and name, each with its marks in order. `now` moves the clock in tests.
SELECT task, routine, routine_id, paused_at, paused_until, kind, at, until, number, trajectory_id, scheduled_for
FROM routines.timeline_of(
    (SELECT routines.collection_of_key(%(key_id)s::routines.caller)), %(from)s::timestamptz, %(until)s::timestamptz,
    make_interval(secs => %(bucket_seconds)s::integer), coalesce(%(now)s::timestamptz, now()), %(ids)s::bigint[],
    %(part_of_name)s::text, %(after_task)s::text, %(after_routine)s::text, %(after_id)s::bigint, %(page_size)s::integer);
