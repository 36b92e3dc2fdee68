-- Cadences and their slots: all the arithmetic on slots in this project. The API, the ticker, the triggers and psql call
-- these functions. They are pure SQL expressions over UTC, so the planner inlines them into the tick. They compute on
-- `timestamp` because timestamptz + interval is only STABLE (it depends on the session's time zone).
--
-- date_bin floors to a grid that is pinned by an origin. 0001-01-01 was a Monday (proleptic Gregorian), so
-- origin + day + hour + minute pins the week, origin + hour + minute the day, and origin + minute the hour.
--
-- Which fields each type needs is a set of constraints on the table routines.routines.

CREATE TYPE routines.cadence AS (
    type        text,
    hour_utc    integer,
    minute_utc  integer,
    day_of_week text
);
COMMENT ON TYPE routines.cadence IS
    'When a routine is due. Write one as routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''); read one with routines.cadence_of(routines).';
COMMENT ON COLUMN routines.cadence.type IS 'manual, hourly, daily, weekdays (Monday to Friday) or weekly.';
COMMENT ON COLUMN routines.cadence.hour_utc IS '0-23 for daily, weekdays and weekly; null otherwise.';
COMMENT ON COLUMN routines.cadence.minute_utc IS '0-59, for hourly the minute of the hour; 0 for manual.';
COMMENT ON COLUMN routines.cadence.day_of_week IS 'mon to sun for weekly; null otherwise.';

CREATE FUNCTION routines.cadence_from_json(cadence jsonb) RETURNS routines.cadence LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_populate_record(NULL::routines.cadence, cadence);
COMMENT ON FUNCTION routines.cadence_from_json IS
    'A cadence from a JSON object of its fields, the form in which programs pass it. to_jsonb() is the inverse.';

CREATE FUNCTION routines.next_fire(cadence routines.cadence, after timestamptz)
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
COMMENT ON FUNCTION routines.next_fire IS
    'The first slot strictly later than `after`; null for manual. Try: SELECT routines.next_fire(routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''), now());';

CREATE FUNCTION routines.latest_slot(cadence routines.cadence, until timestamptz)
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
COMMENT ON FUNCTION routines.latest_slot IS
    'The last slot at or before `until`; null for manual. Catch-up after an outage fires this slot.';

CREATE FUNCTION routines.count_slots(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz)
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
COMMENT ON FUNCTION routines.count_slots IS
    'The number of slots from first_slot to last_slot. Both must be slots of the cadence; both are counted.';

-- plpgsql, because it is called rarely and every tick would have to plan the text of an inlined body.
CREATE FUNCTION routines.slots_in_span(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN routines.count_slots(
        cadence, routines.latest_slot(cadence, first_slot), routines.latest_slot(cadence, last_slot));
END $$;
COMMENT ON FUNCTION routines.slots_in_span IS
    'The number of slots from first_slot to last_slot. Both may be times between two slots that a person set.';

CREATE FUNCTION routines.next_slots(cadence routines.cadence, after timestamptz, slot_limit integer)
RETURNS SETOF timestamptz LANGUAGE sql IMMUTABLE ROWS 10 AS $$
    WITH RECURSIVE slots (slot, position) AS (
        SELECT routines.next_fire(cadence, after), 1
        UNION ALL
        SELECT routines.next_fire(cadence, slot), position + 1 FROM slots WHERE position < slot_limit
    )
    SELECT slot FROM slots WHERE slot IS NOT NULL AND slot_limit > 0 ORDER BY slot;
$$;
COMMENT ON FUNCTION routines.next_slots IS
    'The first slot_limit slots later than `after`. Try: SELECT routines.next_slots(routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''), now(), 10);';

CREATE FUNCTION routines.cadence_in_words(cadence routines.cadence) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (cadence).type || CASE (cadence).type
        WHEN 'manual' THEN ''
        WHEN 'hourly' THEN ' at minute ' || (cadence).minute_utc
        ELSE coalesce(' on ' || (cadence).day_of_week, '')
             || ' at ' || to_char((cadence).hour_utc, 'FM00') || ':' || to_char((cadence).minute_utc, 'FM00') END;
COMMENT ON FUNCTION routines.cadence_in_words IS 'For example: weekly on mon at 09:00, or hourly at minute 5. Always UTC.';

------------------------------------------------------------------------------------------------------- spans of slots
-- A span of skipped slots (table skips) stores the cadence that its slots follow.

CREATE FUNCTION routines.is_slot_of_span(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz, at timestamptz)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    at IN (first_slot, last_slot) OR at > first_slot AND at < last_slot AND at = routines.latest_slot(cadence, at);
COMMENT ON FUNCTION routines.is_slot_of_span IS
    'Returns true if `at` is one of the slots of a span in skips, and false or null if it falls between two of them.';

CREATE FUNCTION routines.next_slot_of_span(
    cadence routines.cadence, first_slot timestamptz, last_slot timestamptz, after timestamptz
) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN after < first_slot THEN first_slot
    WHEN after < last_slot THEN routines.next_fire(cadence, after)
END;
COMMENT ON FUNCTION routines.next_slot_of_span IS 'The first slot of a span in skips that is later than `after`; null if there is none.';
