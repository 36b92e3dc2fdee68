-- What is coming, and when it is quiet. Read only.

-- name: schedule_load
-- The load of the caller's schedule by bucket of this many minutes. `now` moves the clock in tests.
SELECT at, slots, expected_seconds, started, skipped
FROM routines.schedule_load((SELECT routines.collection_of_key(%(key_id)s::routines.caller)), %(from)s::timestamptz,
                            %(until)s::timestamptz, make_interval(mins => %(minutes)s::integer),
                            coalesce(%(now)s::timestamptz, now()));

-- name: quiet_minutes
-- The quietest minutes around a wished cadence, and always the wish itself.
SELECT cadence, minutes_away, slots
FROM (SELECT *, row_number() OVER (ORDER BY slots, abs(minutes_away), minutes_away) AS place
      FROM routines.quiet_minutes((SELECT routines.collection_of_key(%(key_id)s::routines.caller)),
                                  routines.cadence_from_json(%(cadence)s::jsonb), %(window_minutes)s::integer,
                                  coalesce(%(now)s::timestamptz, now()))) AS quiet
WHERE place <= %(most)s::integer OR minutes_away = 0
ORDER BY place;

-- name: preview
-- The slots of a cadence that is not saved, from `from` until before `until`. It counts as made at `made_at`, by default now.
SELECT slot AS at, local_time, dst
FROM routines.preview(
    routines.cadence_from_json(%(cadence)s::jsonb || jsonb_strip_nulls(jsonb_build_object(
        'starts_at', %(starts_at)s::timestamptz, 'ends_at', %(ends_at)s::timestamptz))),
    %(from)s::timestamptz, %(until)s::timestamptz, %(slot_limit)s::integer, coalesce(%(made_at)s::timestamptz, now()),
    %(spread_seconds)s::integer);

-- name: preview_warnings
-- The same parameters; with the name of a task also what its runs usually take.
SELECT warning
FROM routines.preview_warnings(
    routines.cadence_from_json(%(cadence)s::jsonb || jsonb_strip_nulls(jsonb_build_object(
        'starts_at', %(starts_at)s::timestamptz, 'ends_at', %(ends_at)s::timestamptz))),
    %(from)s::timestamptz, %(until)s::timestamptz, %(slot_limit)s::integer, coalesce(%(made_at)s::timestamptz, now()),
    (SELECT id FROM routines.tasks WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
                                     AND name = %(task)s::text)) AS warning;
