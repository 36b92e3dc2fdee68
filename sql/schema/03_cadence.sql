-- Cadences and their slots. The API, the ticker, the triggers and psql call these functions, and compute slots nowhere else.
--
-- The five types that fall on a fixed grid of UTC are pure SQL expressions, so the planner inlines them into the tick. They compute
-- on `timestamp` because timestamptz + interval is only STABLE (it depends on the session's time zone). date_bin floors to a grid
-- that is pinned by an origin. 0001-01-01 was a Monday (proleptic Gregorian), so origin + day + hour + minute pins the week,
-- origin + hour + minute the day, and origin + minute the hour.
--
-- Everything else goes through the ELSE branches: the types cron (chapter 03_cron), interval and once, and any type that is bounded
-- by starts_at or ends_at. The tick does not call those for each fire: it reads the slots that a routine keeps in `upcoming`.
--
-- Which fields each type needs is a set of constraints on the table routines.routines.

CREATE TYPE routines.cadence AS (
    type          text,
    hour_utc      integer,
    minute_utc    integer,
    day_of_week   text,
    expression    jsonb,
    timezone      text,
    every_minutes integer,
    anchor        timestamptz,
    at            timestamptz,
    starts_at     timestamptz,
    ends_at       timestamptz
);
COMMENT ON TYPE routines.cadence IS
    'When a routine is due. Write one as routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''); read one with routines.cadence_of(routines).';
COMMENT ON COLUMN routines.cadence.type IS 'manual, hourly, daily, weekdays (Monday to Friday), weekly, cron, interval or once.';
COMMENT ON COLUMN routines.cadence.hour_utc IS '0-23 for daily, weekdays and weekly; null otherwise.';
COMMENT ON COLUMN routines.cadence.minute_utc IS '0-59, for hourly the minute of the hour; 0 for types that do not take it.';
COMMENT ON COLUMN routines.cadence.day_of_week IS 'mon to sun for weekly; null otherwise.';
COMMENT ON COLUMN routines.cadence.expression IS 'For cron: a string, or an array of up to 10, as it was given; null otherwise.';
COMMENT ON COLUMN routines.cadence.timezone IS 'For cron: the IANA name of the time zone that the expression is read in; null otherwise.';
COMMENT ON COLUMN routines.cadence.every_minutes IS 'For interval: 1-525600; null otherwise.';
COMMENT ON COLUMN routines.cadence.anchor IS 'For interval: one of its slots, earlier or later than now; null otherwise.';
COMMENT ON COLUMN routines.cadence.at IS 'For once: its only slot; null otherwise.';
COMMENT ON COLUMN routines.cadence.starts_at IS 'No slot is earlier; null for no bound.';
COMMENT ON COLUMN routines.cadence.ends_at IS 'No slot is later; null for no bound.';

CREATE FUNCTION routines.cadence_from_json(cadence jsonb) RETURNS routines.cadence LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_populate_record(NULL::routines.cadence, cadence);
COMMENT ON FUNCTION routines.cadence_from_json IS
    'A cadence from a JSON object of its fields, the form in which programs pass it. to_jsonb() is the inverse.';

-- The first five types have no other fields.
CREATE FUNCTION routines.cadence_to_json(cadence routines.cadence) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_build_object('type', (cadence).type, 'hour_utc', (cadence).hour_utc, 'minute_utc', (cadence).minute_utc,
                          'day_of_week', (cadence).day_of_week)
    || CASE WHEN (cadence).type IN ('manual', 'hourly', 'daily', 'weekdays', 'weekly') THEN '{}'
            ELSE jsonb_strip_nulls(to_jsonb(cadence) - '{type,hour_utc,minute_utc,day_of_week,starts_at,ends_at}'::text[]) END;
COMMENT ON FUNCTION routines.cadence_to_json IS
    'A cadence as the API shows it: without the fields that it does not have, but for the first four, and without its bounds.';

----------------------------------------------------------------------------------------- types that are on no fixed grid
-- plpgsql, because these call next_fire and latest_slot, which call them. A type that nobody knows has no slots.
-- Slots are computed for the years 1970 to 2199: the constraints of routines.routines allow no others.

CREATE FUNCTION routines.interval_slot(every_minutes integer, anchor timestamptz, until timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN date_bin(
    make_interval(mins => CASE WHEN every_minutes > 0 THEN every_minutes END), until AT TIME ZONE 'UTC',
    -- The grid of the anchor, pinned in year 1: some versions of Postgres are wrong by one step before the origin.
    timestamp '0001-01-01' + (anchor AT TIME ZONE 'UTC' - date_bin(
        make_interval(mins => CASE WHEN every_minutes > 0 THEN every_minutes END), anchor AT TIME ZONE 'UTC', timestamp '0001-01-01'))
) AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.interval_slot IS 'The last slot of an interval at or before `until`.';

CREATE FUNCTION routines.without_bounds(cadence routines.cadence) RETURNS routines.cadence LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    cadence.starts_at := NULL;
    cadence.ends_at := NULL;
    RETURN cadence;
END $$;
COMMENT ON FUNCTION routines.without_bounds IS 'The same cadence without starts_at and ends_at.';

CREATE FUNCTION routines.later_slot(cadence routines.cadence, after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since timestamptz := greatest(after, (cadence).starts_at - interval '1 microsecond', '1969-12-31 23:59:59.999999Z');
    slot  timestamptz;
BEGIN
    IF after IS NULL OR since >= '2200-01-01Z' OR since >= (cadence).ends_at THEN
        RETURN NULL;
    END IF;
    slot := CASE (cadence).type
        WHEN 'manual' THEN NULL
        WHEN 'cron' THEN routines.later_cron_slot(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone), since)
        WHEN 'interval' THEN routines.interval_slot((cadence).every_minutes, (cadence).anchor, since)
                             + make_interval(mins => (cadence).every_minutes)
        WHEN 'once' THEN CASE WHEN (cadence).at > since THEN (cadence).at END
        ELSE CASE WHEN num_nonnulls((cadence).starts_at, (cadence).ends_at) > 0
                  THEN routines.next_fire(routines.without_bounds(cadence), since) END END;
    RETURN CASE WHEN slot <= coalesce((cadence).ends_at, 'infinity') AND slot < '2200-01-01Z' THEN slot END;
END $$;
COMMENT ON FUNCTION routines.later_slot IS 'What next_fire returns for a cadence that is on no fixed grid, or is bounded; null if none is left.';

CREATE FUNCTION routines.earlier_slot(cadence routines.cadence, until timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    upto timestamptz := least(until, (cadence).ends_at, '2199-12-31 23:59:59.999999Z');
    slot timestamptz;
BEGIN
    IF until IS NULL OR upto < '1970-01-01Z' OR upto < (cadence).starts_at THEN
        RETURN NULL;
    END IF;
    slot := CASE (cadence).type
        WHEN 'manual' THEN NULL
        WHEN 'cron' THEN routines.earlier_cron_slot(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone), upto)
        WHEN 'interval' THEN routines.interval_slot((cadence).every_minutes, (cadence).anchor, upto)
        WHEN 'once' THEN CASE WHEN (cadence).at <= upto THEN (cadence).at END
        ELSE CASE WHEN num_nonnulls((cadence).starts_at, (cadence).ends_at) > 0
                  THEN routines.latest_slot(routines.without_bounds(cadence), upto) END END;
    RETURN CASE WHEN slot >= coalesce((cadence).starts_at, '-infinity') AND slot >= '1970-01-01Z' THEN slot END;
END $$;
COMMENT ON FUNCTION routines.earlier_slot IS 'What latest_slot returns for a cadence that is on no fixed grid, or is bounded; null if there is none.';

CREATE FUNCTION routines.count_more_slots(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN CASE (cadence).type
        WHEN 'cron' THEN routines.count_cron_slots(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone), first_slot, last_slot)
        WHEN 'interval' THEN extract(epoch FROM last_slot - first_slot)::bigint / ((cadence).every_minutes * 60)
        WHEN 'once' THEN 0
        ELSE CASE WHEN num_nonnulls((cadence).starts_at, (cadence).ends_at) > 0
                  THEN routines.count_slots(routines.without_bounds(cadence), first_slot, last_slot) - 1 END END;
END $$;
COMMENT ON FUNCTION routines.count_more_slots IS
    'The number of slots later than first_slot, up to last_slot, of a cadence that is on no fixed grid, or is bounded.';

------------------------------------------------------------------------------------------------------- all types of cadence
CREATE FUNCTION routines.next_fire(cadence routines.cadence, after timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE CASE WHEN (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN (cadence).type END
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
    WHEN 'manual' THEN NULL
    ELSE routines.later_slot(cadence, after) AT TIME ZONE 'UTC'
END AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.next_fire IS
    'The first slot strictly later than `after`; null for manual, and if no slot is left. Try: SELECT routines.next_fire(routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''), now());';

CREATE FUNCTION routines.latest_slot(cadence routines.cadence, until timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE CASE WHEN (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN (cadence).type END
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
    WHEN 'manual' THEN NULL
    ELSE routines.earlier_slot(cadence, until) AT TIME ZONE 'UTC'
END AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.latest_slot IS
    'The last slot at or before `until`; null for manual, and before the first slot. Catch-up after an outage fires this slot.';

CREATE FUNCTION routines.count_slots(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1 + CASE CASE WHEN (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN (cadence).type END
    WHEN 'hourly' THEN extract(epoch FROM last_slot - first_slot)::bigint / 3600
    WHEN 'daily'  THEN extract(epoch FROM last_slot - first_slot)::bigint / 86400
    WHEN 'weekly' THEN extract(epoch FROM last_slot - first_slot)::bigint / 604800
    -- Days between, less two for every weekend between. Weekends end where a Monday-pinned week begins.
    WHEN 'weekdays' THEN extract(epoch FROM last_slot - first_slot)::bigint / 86400
        - 2 * (extract(epoch FROM
            date_bin('7 days', last_slot AT TIME ZONE 'UTC', timestamp '0001-01-01')
          - date_bin('7 days', first_slot AT TIME ZONE 'UTC', timestamp '0001-01-01'))::bigint / 604800)
    ELSE routines.count_more_slots(cadence, first_slot, last_slot)
END;
COMMENT ON FUNCTION routines.count_slots IS
    'The number of slots from first_slot to last_slot. Both must be slots of the cadence; both are counted.';

-- plpgsql, because it is called rarely and every tick would have to plan the text of an inlined body.
CREATE FUNCTION routines.slots_in_span(cadence routines.cadence, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN coalesce(
        routines.count_slots(cadence, routines.latest_slot(cadence, first_slot), routines.latest_slot(cadence, last_slot)),
        -- first_slot is earlier than every slot, and counts as one.
        1 + routines.count_slots(cadence, routines.next_fire(cadence, first_slot), routines.latest_slot(cadence, last_slot)),
        1);
END $$;
COMMENT ON FUNCTION routines.slots_in_span IS
    'The number of slots from first_slot to last_slot. Both may be times between two slots that a person set.';

CREATE FUNCTION routines.next_slots(cadence routines.cadence, after timestamptz, slot_limit integer)
RETURNS SETOF timestamptz LANGUAGE plpgsql IMMUTABLE ROWS 10 AS $$
DECLARE
    slot timestamptz := after;
BEGIN
    IF (cadence).type = 'cron' THEN
        RETURN QUERY SELECT * FROM routines.later_cron_slots(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone),
            greatest(after, (cadence).starts_at - interval '1 microsecond'), (cadence).ends_at, slot_limit);
        RETURN;
    END IF;
    FOR position IN 1 .. slot_limit LOOP
        slot := routines.next_fire(cadence, slot);
        EXIT WHEN slot IS NULL;
        RETURN NEXT slot;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.next_slots IS
    'The first slot_limit slots later than `after`. Try: SELECT routines.next_slots(routines.cadence_from_json(''{"type": "weekdays", "hour_utc": 9, "minute_utc": 0}''), now(), 10);';

CREATE FUNCTION routines.cron_expressions(expression jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(expression) WHEN 'string' THEN ARRAY[expression #>> '{}']
    WHEN 'array' THEN ARRAY(SELECT each #>> '{}' FROM jsonb_array_elements(expression) WITH ORDINALITY AS listed (each, position)
                            ORDER BY position) END;
COMMENT ON FUNCTION routines.cron_expressions IS 'The expressions of a cadence, each as it was given.';

CREATE FUNCTION routines.cadence_in_words(cadence routines.cadence) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURN concat_ws(', ',
    (cadence).type || CASE (cadence).type
        WHEN 'manual' THEN ''
        WHEN 'hourly' THEN ' at minute ' || (cadence).minute_utc
        WHEN 'cron' THEN ' ' || array_to_string(routines.cron_expressions((cadence).expression), '; ') || ' in ' || (cadence).timezone
        WHEN 'interval' THEN ' of ' || (cadence).every_minutes || ' minutes, on ' || to_char(
            (cadence).anchor AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
        WHEN 'once' THEN ' at ' || to_char((cadence).at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
        ELSE coalesce(' on ' || (cadence).day_of_week, '')
             || ' at ' || to_char((cadence).hour_utc, 'FM00') || ':' || to_char((cadence).minute_utc, 'FM00') END,
    'from ' || to_char((cadence).starts_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
    'until ' || to_char((cadence).ends_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'));
COMMENT ON FUNCTION routines.cadence_in_words IS
    'For example: weekly on mon at 09:00, hourly at minute 5, or cron 0 9 * * 1-5 in Europe/Berlin. Times without a zone are in UTC.';

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
    WHEN after < last_slot THEN least(routines.next_fire(cadence, after), last_slot)
END;
COMMENT ON FUNCTION routines.next_slot_of_span IS 'The first slot of a span in skips that is later than `after`; null if there is none.';

--------------------------------------------------------------------------------------------------- slots kept in the row
-- A routine whose cadence is on no fixed grid, or is bounded, keeps a window of consecutive slots in its column `upcoming`: the last
-- slot at or before the time at which the window was made, and those after it. '-infinity' stands for no earlier slot, 'infinity' for
-- no later one. Within the window, finding a slot is a binary search. So a fire costs the same for every cadence; the window is made
-- anew once its last slot is next.

CREATE FUNCTION routines.slot_window(cadence routines.cadence, around timestamptz) RETURNS timestamptz[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    slots timestamptz[];
BEGIN
    IF (cadence).type = 'manual'
       OR (cadence).type NOT IN ('cron', 'interval', 'once') AND (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN
        RETURN NULL;
    END IF;
    slots := ARRAY(SELECT routines.next_slots(cadence, around, 32));
    RETURN coalesce(routines.latest_slot(cadence, around), '-infinity')
        || slots || CASE WHEN cardinality(slots) < 32 THEN ARRAY['infinity'::timestamptz] ELSE '{}' END;
END $$;
COMMENT ON FUNCTION routines.slot_window IS 'What the column `upcoming` holds at the time `around`; null for a cadence on a fixed grid.';
