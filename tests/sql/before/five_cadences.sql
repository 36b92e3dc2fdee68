-- The five cadences as they were computed before cron, interval, once and bounds: the oracle of test_five_cadences.py. It never changes.

CREATE SCHEMA before;
CREATE TYPE before.cadence AS (
    type        text,
    hour_utc    integer,
    minute_utc  integer,
    day_of_week text
);

CREATE FUNCTION before.next_fire(cadence before.cadence, after timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE (cadence).type
    WHEN 'hourly' THEN
        date_bin('1 hour', after AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(mins => (cadence).minute_utc)) + interval '1 hour'
    WHEN 'daily' THEN
        date_bin('1 day', after AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '1 day'
    WHEN 'weekly' THEN
        date_bin('7 days', after AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(
                     days => array_position('{mon,tue,wed,thu,fri,sat,sun}'::text[], (cadence).day_of_week) - 1,
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '7 days'
    -- The next daily slot, or if that falls on a weekend, the Monday after it. 0001-01-06 was a Saturday.
    WHEN 'weekdays' THEN greatest(
        date_bin('1 day', after AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '1 day',
        date_bin('7 days', after AT TIME ZONE 'UTC' + interval '1 day', timestamp '0001-01-06' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '2 days')
END AT TIME ZONE 'UTC';

CREATE FUNCTION before.latest_slot(cadence before.cadence, until timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE (cadence).type
    WHEN 'hourly' THEN
        date_bin('1 hour', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(mins => (cadence).minute_utc))
    WHEN 'daily' THEN
        date_bin('1 day', until AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc))
    WHEN 'weekly' THEN
        date_bin('7 days', until AT TIME ZONE 'UTC',
                 timestamp '0001-01-01' + make_interval(
                     days => array_position('{mon,tue,wed,thu,fri,sat,sun}'::text[], (cadence).day_of_week) - 1,
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc))
    -- The latest daily slot, or the Friday of its week if that is earlier.
    WHEN 'weekdays' THEN least(
        date_bin('1 day', until AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)),
        date_bin('7 days', until AT TIME ZONE 'UTC', timestamp '0001-01-01' + make_interval(
                     hours => (cadence).hour_utc, mins => (cadence).minute_utc)) + interval '4 days')
END AT TIME ZONE 'UTC';

CREATE FUNCTION before.count_slots(cadence before.cadence, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1 + CASE (cadence).type
    WHEN 'hourly' THEN extract(epoch FROM last_slot - first_slot)::bigint / 3600
    WHEN 'daily'  THEN extract(epoch FROM last_slot - first_slot)::bigint / 86400
    WHEN 'weekly' THEN extract(epoch FROM last_slot - first_slot)::bigint / 604800
    -- Days between, less two for every weekend between. Weekends end where a Monday-pinned week begins.
    WHEN 'weekdays' THEN extract(epoch FROM last_slot - first_slot)::bigint / 86400
        - 2 * (extract(epoch FROM
            date_bin('7 days', last_slot AT TIME ZONE 'UTC', timestamp '0001-01-01')
          - date_bin('7 days', first_slot AT TIME ZONE 'UTC', timestamp '0001-01-01'))::bigint / 604800)
END;
