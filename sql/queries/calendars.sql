-- Calendars as the API sees them. The key determines the collection.

-- name: put_calendar
-- Creates a calendar, or replaces it whole.
INSERT INTO routines.calendars (collection_id, name, timezone, days)
VALUES ((SELECT routines.collection_of_key(%(key_id)s::routines.caller)), %(name)s::text, %(timezone)s::text, %(days)s::jsonb)
ON CONFLICT ON CONSTRAINT calendars_name_key DO UPDATE SET timezone = excluded.timezone, days = excluded.days
RETURNING name, timezone, days, updated_at;

-- name: find_calendar
SELECT name, timezone, days, updated_at FROM routines.calendars
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND name = %(name)s::text;

-- name: list_calendars
-- By name, after the name in the cursor, without their days.
SELECT name, timezone, (SELECT min(day) FROM routines.calendar_days WHERE calendar_id = calendars.id) AS first_day,
       (SELECT max(day) FROM routines.calendar_days WHERE calendar_id = calendars.id) AS last_day, updated_at
FROM routines.calendars
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND (%(after)s::text IS NULL OR name > %(after)s::text)
ORDER BY name
LIMIT %(limit)s::integer;

-- name: routine_with_calendar
-- A routine that uses this calendar. Its foreign key refuses the deletion; this says why.
SELECT tasks.name AS task_name, routine_names.name
FROM routines.calendars
JOIN routines.routine_calendars ON routine_calendars.calendar_id = calendars.id
JOIN routines.routine_names ON routine_names.routine_id = routine_calendars.routine_id
JOIN routines.tasks ON tasks.id = routine_names.task_id
WHERE calendars.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND calendars.name = %(name)s::text
LIMIT 1;

-- name: delete_calendar
DELETE FROM routines.calendars
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND name = %(name)s::text;
