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
