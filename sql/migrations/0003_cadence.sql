-- When a slot falls. The only arithmetic on slots in the whole project: the API, the ticker, the triggers and
-- psql call these. Pure SQL expressions over UTC, so that the planner inlines them into the tick. They compute
-- on `timestamp`, since timestamptz + interval is only STABLE (it looks at the session's time zone).
--
-- date_bin floors to a grid that is pinned by an origin. 0001-01-01 was a Monday (proleptic Gregorian), so
-- origin + day + hour + minute pins the week, origin + hour + minute the day, origin + minute the hour.

CREATE FUNCTION routines.next_fire(
    cadence_type text, hour_utc integer, minute_utc integer, day_of_week text, after timestamptz
) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE cadence_type
    WHEN 'hourly' THEN
        date_bin('1 hour', after AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(mins => minute_utc)) + interval '1 hour'
    WHEN 'daily' THEN
        date_bin('1 day', after AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(hours => hour_utc, mins => minute_utc)) + interval '1 day'
    WHEN 'weekly' THEN
        date_bin('7 days', after AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(
                     days => array_position('{mon,tue,wed,thu,fri,sat,sun}'::text[], day_of_week) - 1,
                     hours => hour_utc, mins => minute_utc)) + interval '7 days'
    -- The next daily slot, or the Monday after the weekend that it falls into. 0001-01-06 was a Saturday.
    WHEN 'weekdays' THEN greatest(
        date_bin('1 day', after AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(hours => hour_utc, mins => minute_utc)) + interval '1 day',
        date_bin('7 days', after AT TIME ZONE 'UTC' + interval '1 day',
                 timestamp '0001-01-06' + make_interval(hours => hour_utc, mins => minute_utc)) + interval '2 days')
END AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.next_fire IS
    'The first slot strictly later than `after`; null for manual. Try: SELECT routines.next_fire(''weekdays'', 9, 0, NULL, now());';

CREATE FUNCTION routines.latest_slot(
    cadence_type text, hour_utc integer, minute_utc integer, day_of_week text, until timestamptz
) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE cadence_type
    WHEN 'hourly' THEN
        date_bin('1 hour', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(mins => minute_utc))
    WHEN 'daily' THEN
        date_bin('1 day', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(hours => hour_utc, mins => minute_utc))
    WHEN 'weekly' THEN
        date_bin('7 days', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(
                     days => array_position('{mon,tue,wed,thu,fri,sat,sun}'::text[], day_of_week) - 1,
                     hours => hour_utc, mins => minute_utc))
    -- The latest daily slot, or the Friday of its week where that is earlier.
    WHEN 'weekdays' THEN least(
        date_bin('1 day', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(hours => hour_utc, mins => minute_utc)),
        date_bin('7 days', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(hours => hour_utc, mins => minute_utc)) + interval '4 days')
END AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.latest_slot IS
    'The last slot at or before `until`; null for manual. What catch-up fires after an outage.';

CREATE FUNCTION routines.count_slots(cadence_type text, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1 + CASE cadence_type
    WHEN 'hourly' THEN extract(epoch FROM last_slot - first_slot)::bigint / 3600
    WHEN 'daily'  THEN extract(epoch FROM last_slot - first_slot)::bigint / 86400
    WHEN 'weekly' THEN extract(epoch FROM last_slot - first_slot)::bigint / 604800
    -- Days between, less two for every weekend between: weekends begin where the Monday-pinned week ends.
    WHEN 'weekdays' THEN extract(epoch FROM last_slot - first_slot)::bigint / 86400
        - 2 * (extract(epoch FROM
            date_bin('7 days', last_slot AT TIME ZONE 'UTC', timestamp '0001-01-01')
          - date_bin('7 days', first_slot AT TIME ZONE 'UTC', timestamp '0001-01-01'))::bigint / 604800)
END;
COMMENT ON FUNCTION routines.count_slots IS
    'How many slots there are from first_slot to last_slot, both slots of the cadence and both counted.';
