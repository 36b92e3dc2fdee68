-- Which slots of a routine its calendars and active hours exclude, and to when such a slot moves. An excluded slot stays a slot of
-- the cadence, and has its outcome in skips, with the reason `calendar` or `outside_hours`. Why this design: docs/decisions/0024.
--
-- Only routines that have a calendar or active hours call these functions, so no other routine pays for them.

--------------------------------------------------------------------------------------------------------- what is excluded
-- Time falls into stretches in which the answer is the same: a holiday, the hours between two windows, the days between two
-- holidays. So a search steps from stretch to stretch instead of from slot to slot.
CREATE TYPE routines.stretch AS (
    reason text,
    detail text,
    since  timestamptz,
    until  timestamptz
);
COMMENT ON TYPE routines.stretch IS 'A time in which slots of a routine are excluded for one reason, or in which none is.';
COMMENT ON COLUMN routines.stretch.reason IS 'calendar or outside_hours; null if slots are not excluded.';
COMMENT ON COLUMN routines.stretch.detail IS 'For calendar: the label of the day, or the name of the calendar if it has none.';
COMMENT ON COLUMN routines.stretch.since IS 'Its first moment, or a later one.';
COMMENT ON COLUMN routines.stretch.until IS 'The first moment after it, or an earlier one.';

CREATE FUNCTION routines.clock_change(zone text, since timestamp, until timestamp) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    before interval := routines.utc_offset(zone, since);
    middle timestamp;
BEGIN
    WHILE until - since > interval '1 second' LOOP
        middle := date_trunc('second', since + (until - since) / 2);
        EXIT WHEN middle <= since;
        IF routines.utc_offset(zone, middle) = before THEN
            since := middle;
        ELSE
            until := middle;
        END IF;
    END LOOP;
    RETURN until;
END $$;
COMMENT ON FUNCTION routines.clock_change IS
    'The time in UTC at which the clocks of a time zone change, between two times in UTC at which they differ. If there are several, one of them.';

-- A stretch ends where clocks change, because local times may come twice then.
CREATE FUNCTION routines.narrowed(whole routines.stretch, at timestamptz, zone text, first_local timestamp, last_local timestamp)
RETURNS routines.stretch LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    moment  timestamp := timezone('UTC', at);
    ahead   interval := routines.utc_offset(zone, moment);
    since   timestamp := first_local - ahead;
    until   timestamp := last_local - ahead;
BEGIN
    IF routines.utc_offset(zone, since) <> ahead THEN
        since := routines.clock_change(zone, since, moment);
    END IF;
    IF routines.utc_offset(zone, until) <> ahead THEN
        until := routines.clock_change(zone, moment, until);
    END IF;
    whole.since := greatest(whole.since, timezone('UTC', since));
    whole.until := least(whole.until, timezone('UTC', until));
    RETURN whole;
END $$;
COMMENT ON FUNCTION routines.narrowed IS 'The part of a stretch around `at` that lies between two local times of a time zone.';

CREATE FUNCTION routines.zone_of(routine routines.routines) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce((routine).timezone, 'UTC');
COMMENT ON FUNCTION routines.zone_of IS 'The time zone of a routine''s cadence: UTC for all types but cron.';

CREATE FUNCTION routines.calendar_stretch(routine routines.routines, at timestamptz) RETURNS routines.stretch
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found  routines.stretch := (NULL, NULL, '-infinity', 'infinity');
    used   record;
    today  date;
    before record;
    after  date;
BEGIN
    FOR used IN
        SELECT calendars.id, name, routines.clocks_of(coalesce(calendars.timezone, routines.zone_of(routine))) AS zone
        FROM routines.routine_calendars JOIN routines.calendars ON calendars.id = calendar_id
        WHERE routine_id = (routine).id ORDER BY position
    LOOP
        today := timezone(used.zone, at)::date;
        SELECT day, label INTO before FROM routines.calendar_days
        WHERE calendar_id = used.id AND day <= today ORDER BY day DESC LIMIT 1;
        IF before.day = today THEN
            found := ('calendar', coalesce(before.label, used.name), '-infinity', 'infinity');
            RETURN routines.narrowed(found, at, used.zone, today, today + 1);
        END IF;
        after := (SELECT day FROM routines.calendar_days WHERE calendar_id = used.id AND day > today ORDER BY day LIMIT 1);
        found.since := greatest(found.since, timezone(used.zone, (before.day + 1)::timestamp));
        found.until := least(found.until, timezone('UTC', (routines.moments_of(used.zone, after::timestamp, false))[1]));
    END LOOP;
    -- Where clocks are set back across midnight, a day comes twice.
    found.since := least(found.since, at);
    found.until := greatest(found.until, at + interval '1 minute');
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.calendar_stretch IS 'The stretch around `at` as the calendars of a routine have it.';

CREATE FUNCTION routines.active_zone(routine routines.routines) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce((routine).active_hours ->> 'timezone', routines.zone_of(routine));
COMMENT ON FUNCTION routines.active_zone IS 'The time zone of a routine''s active hours, by default that of its cadence.';

CREATE FUNCTION routines.hours_stretch(routine routines.routines, at timestamptz) RETURNS routines.stretch
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found     routines.stretch := (NULL, NULL, '-infinity', 'infinity');
    zone      text := routines.clocks_of(routines.active_zone(routine));
    shown     timestamp := timezone(zone, at);
    week      timestamp := date_trunc('week', shown);
    minute    integer := extract(epoch FROM date_trunc('minute', shown) - week)::integer / 60;
    is_active boolean := minute <@ (routine).active_minutes;
    alike     int4multirange := CASE WHEN is_active THEN (routine).active_minutes
                                     ELSE int4multirange(int4range(0, 10080)) - (routine).active_minutes END;
    inside    int4range := (SELECT part FROM unnest(alike) AS part WHERE part @> minute);
    since     integer := lower(inside);
    until     integer := upper(inside);
BEGIN
    IF NOT is_active THEN
        found.reason := 'outside_hours';
    END IF;
    IF since = 0 AND until = 10080 THEN
        RETURN found;
    END IF;
    -- A night from Sunday to Monday is one stretch.
    IF since = 0 THEN
        since := coalesce((SELECT lower(part) - 10080 FROM unnest(alike) AS part WHERE upper(part) = 10080), 0);
    END IF;
    IF until = 10080 THEN
        until := coalesce((SELECT upper(part) + 10080 FROM unnest(alike) AS part WHERE lower(part) = 0), 10080);
    END IF;
    RETURN routines.narrowed(found, at, zone, week + since * interval '1 minute', week + until * interval '1 minute');
END $$;
COMMENT ON FUNCTION routines.hours_stretch IS 'The stretch around `at` as the active hours of a routine have it.';

CREATE FUNCTION routines.stretch_at(routine routines.routines, at timestamptz) RETURNS routines.stretch
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found routines.stretch := (NULL, NULL, '-infinity', 'infinity');
    hours routines.stretch;
BEGIN
    IF (routine).calendar IS NOT NULL THEN
        found := routines.calendar_stretch(routine, at);
    END IF;
    IF found.reason IS NULL AND (routine).active_minutes IS NOT NULL THEN
        hours := routines.hours_stretch(routine, at);
        found := (hours.reason, NULL, greatest(found.since, hours.since), least(found.until, hours.until));
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.stretch_at IS
    'Whether a routine''s calendars or active hours exclude a slot at `at`, and the stretch around it in which the answer is the same. Calendars come first.';

CREATE FUNCTION routines.is_excluded(routine routines.routines, at timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    shown timestamp;
BEGIN
    IF (routine).active_minutes IS NOT NULL THEN
        shown := timezone(routines.clocks_of(routines.active_zone(routine)), at);
        IF NOT extract(epoch FROM date_trunc('minute', shown) - date_trunc('week', shown))::integer / 60 <@ (routine).active_minutes THEN
            RETURN true;
        END IF;
    END IF;
    RETURN (routine).calendar IS NOT NULL AND EXISTS (
        SELECT FROM routines.routine_calendars
        JOIN routines.calendars ON calendars.id = calendar_id
        JOIN routines.calendar_days ON calendar_days.calendar_id = calendars.id
            AND day = timezone(routines.clocks_of(coalesce(calendars.timezone, routines.zone_of(routine))), at)::date
        WHERE routine_id = (routine).id);
END $$;
COMMENT ON FUNCTION routines.is_excluded IS
    'Whether a routine''s calendars or active hours exclude a slot at `at`: stretch_at gives the reason, and takes five times as long.';

CREATE FUNCTION routines.outside_detail(routine routines.routines, first_slot timestamptz, last_slot timestamptz) RETURNS text
LANGUAGE sql STABLE RETURN (
    SELECT CASE WHEN first_slot = last_slot THEN format('%s in %s is outside %s', first_local, zone, windows)
                ELSE format('%s to %s in %s is outside %s', first_local, last_local, zone, windows) END
    FROM (SELECT to_char(timezone(routines.clocks_of(routines.active_zone(routine)), first_slot), 'Dy HH24:MI') AS first_local,
                 to_char(timezone(routines.clocks_of(routines.active_zone(routine)), last_slot), 'Dy HH24:MI') AS last_local,
                 routines.active_zone(routine) AS zone,
                 (SELECT string_agg(listed, ', ' ORDER BY position)
                  FROM jsonb_array_elements_text((routine).active_hours -> 'windows') WITH ORDINALITY AS given (listed, position)) AS windows
         ) AS shown);
COMMENT ON FUNCTION routines.outside_detail IS
    'The detail of slots outside active hours: Sat 10:00 in Europe/Berlin is outside mon-fri 08:00-18:00.';

------------------------------------------------------------------------------------------------------ where a slot moves to
CREATE FUNCTION routines.next_opening(routine routines.routines, at timestamptz, before timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found routines.stretch;
BEGIN
    FOR step IN 1 .. 50 LOOP
        EXIT WHEN at >= before;
        found := routines.stretch_at(routine, at);
        IF found.reason IS NULL THEN
            RETURN at;
        END IF;
        at := found.until;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.next_opening IS
    'The first time at or after `at` and earlier than `before` that neither calendars nor active hours exclude; null if there is none within 50 stretches.';

CREATE FUNCTION routines.next_free_day(routine routines.routines, slot timestamptz, before timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    zone  text := routines.clocks_of(routines.zone_of(routine));
    wall  timestamp := timezone(zone, slot);
    at    timestamptz;
BEGIN
    FOR days IN 1 .. 92 LOOP
        wall := wall + interval '1 day';
        CONTINUE WHEN (routine).calendar ->> 'on_excluded' = 'next_business_day' AND extract(isodow FROM wall) > 5;
        at := timezone('UTC', (routines.moments_of(zone, wall, false))[1]);
        EXIT WHEN at >= before;
        CONTINUE WHEN at <= slot;
        IF NOT routines.is_excluded(routine, at) THEN
            RETURN at;
        ELSIF (routine).active_hours ->> 'outside' = 'defer' AND (routines.stretch_at(routine, at)).reason = 'outside_hours' THEN
            RETURN routines.next_opening(routine, at, before);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.next_free_day IS
    'The same local time on the first later day, or weekday, that is not excluded, earlier than `before`; null if there is none within 92 days.';

CREATE FUNCTION routines.should_move(routine routines.routines, reason text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(CASE reason WHEN 'calendar' THEN (routine).calendar ->> 'on_excluded'
                            WHEN 'outside_hours' THEN (routine).active_hours ->> 'outside' END, 'skip') <> 'skip';
COMMENT ON FUNCTION routines.should_move IS 'Returns true if slots that are excluded for this reason move rather than being skipped.';

-- The search is short, because a tenant may have many routines that search at once while all tenants wait.
CREATE FUNCTION routines.moved_slot(routine routines.routines, slot timestamptz, reason text, next_slot timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    before timestamptz := least(next_slot, (routine).ends_at + interval '1 microsecond', slot + interval '2208 hours', '2200-01-01Z');
BEGIN
    RETURN CASE WHEN NOT routines.should_move(routine, reason) THEN NULL
                WHEN reason = 'calendar' THEN routines.next_free_day(routine, slot, before)
                ELSE routines.next_opening(routine, slot, before) END;
END $$;
COMMENT ON FUNCTION routines.moved_slot IS
    'The time to which an excluded slot moves; null if it does not, because the routine says so or because next_slot comes no later.';

CREATE FUNCTION routines.exclusion_detail(
    routine routines.routines, slot timestamptz, found routines.stretch, moved_to timestamptz, next_slot timestamptz
) RETURNS text LANGUAGE sql STABLE RETURN
    CASE found.reason WHEN 'calendar' THEN found.detail ELSE routines.outside_detail(routine, slot, slot) END
    || CASE WHEN moved_to IS NOT NULL THEN '; moved to ' || routines.utc(moved_to)
            WHEN NOT routines.should_move(routine, found.reason) THEN ''
            WHEN next_slot IS NULL THEN '; not moved, since no later time is free'
            ELSE '; not moved, since the next slot is ' || routines.utc(next_slot) END;
COMMENT ON FUNCTION routines.exclusion_detail IS 'The detail of an excluded slot: Christmas; moved to 2026-12-28T09:00:00Z.';

------------------------------------------------------------------------------------------------------------- for the tick
CREATE TYPE routines.judgement AS (
    slot     timestamptz,
    reason   text,
    detail   text,
    moved_to timestamptz
);
COMMENT ON TYPE routines.judgement IS 'What calendars and active hours say about the newest due slot of a routine, if they exclude it.';
COMMENT ON COLUMN routines.judgement.slot IS 'The slot that fires instead: the newest that is not excluded, if it is in time; null if there is none.';
COMMENT ON COLUMN routines.judgement.reason IS 'Why the newest slot is excluded: calendar or outside_hours.';
COMMENT ON COLUMN routines.judgement.detail IS 'What the ledger says about it, if it should move; null if it says the same as about its neighbours.';
COMMENT ON COLUMN routines.judgement.moved_to IS 'When it is due instead; null if it does not move.';

-- VOLATILE, so that each of its statements takes a snapshot of its own. The tick calls it once it has locked the routine, whose
-- calendar may have been changed since the tick began. The ticker has its own statements planned anew each time; here that would
-- take longer than the work.
CREATE FUNCTION routines.judge(
    of_routine bigint, first_slot timestamptz, newest timestamptz, next_slot timestamptz, in_time_since timestamptz
) RETURNS routines.judgement LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    routine routines.routines;
    found   routines.stretch;
    at      timestamptz := newest;
    judged  routines.judgement;
BEGIN
    SELECT * INTO routine FROM routines.routines WHERE id = of_routine;
    IF NOT routines.is_excluded(routine, newest) THEN
        RETURN NULL;
    END IF;
    found := routines.stretch_at(routine, newest);
    judged.reason := found.reason;
    judged.moved_to := routines.moved_slot(routine, newest, found.reason, next_slot);
    IF routines.should_move(routine, found.reason) THEN
        judged.detail := routines.exclusion_detail(routine, newest, found, judged.moved_to, next_slot);
    END IF;
    FOR step IN 1 .. 100 LOOP
        EXIT WHEN found.since <= first_slot;
        at := greatest(first_slot, routines.latest_slot(routines.cadence_of(routine), found.since - interval '1 microsecond'));
        EXIT WHEN at < in_time_since;
        found := routines.stretch_at(routine, at);
        IF found.reason IS NULL THEN
            judged.slot := at;
            EXIT;
        END IF;
    END LOOP;
    RETURN judged;
END $$;
COMMENT ON FUNCTION routines.judge IS
    'Decides about the slots of a routine from first_slot to `newest`; null if the newest is not excluded. Searches for another that may fire through at most 100 stretches.';

-- From the newest to the oldest, so that of a long outage the newest slots are told apart. VOLATILE for the same reason as judge.
CREATE FUNCTION routines.judged_spans(
    of_routine bigint, first_slot timestamptz, newest timestamptz, spared timestamptz, newest_detail text
) RETURNS TABLE (
    span_begin timestamptz, span_end timestamptz, slot_count bigint, cadence routines.cadence, reason text, detail text
) LANGUAGE plpgsql VOLATILE ROWS 3 AS $$
DECLARE
    routine routines.routines;
    found   routines.stretch;
BEGIN
    SELECT * INTO routine FROM routines.routines WHERE id = of_routine;
    cadence := routines.cadence_of(routine);
    span_end := newest;
    FOR step IN 1 .. 100 LOOP
        EXIT WHEN span_end IS NULL;
        found := routines.stretch_at(routine, span_end);
        -- The slot that fires is the newest of its stretch, and the newest of all may have a detail of its own.
        span_begin := CASE WHEN span_end = spared OR span_end = newest AND newest_detail IS NOT NULL THEN span_end
                           WHEN found.since <= first_slot THEN first_slot
                           ELSE least(span_end, routines.next_fire(cadence, found.since - interval '1 microsecond')) END;
        IF span_end IS DISTINCT FROM spared THEN
            slot_count := routines.slots_in_span(cadence, span_begin, span_end);
            reason := coalesce(found.reason, 'missed');
            detail := CASE WHEN span_end = newest AND newest_detail IS NOT NULL THEN newest_detail
                           WHEN found.reason = 'outside_hours' THEN routines.outside_detail(routine, span_begin, span_end)
                           ELSE found.detail END;
            RETURN NEXT;
        END IF;
        span_end := CASE WHEN span_begin > first_slot THEN greatest(
            first_slot, routines.latest_slot(cadence, span_begin - interval '1 microsecond')) END;
    END LOOP;
    IF span_end IS NOT NULL THEN
        span_begin := first_slot;
        slot_count := routines.slots_in_span(cadence, span_begin, span_end);
        reason := 'missed';
        detail := 'too many slots were due to ask calendars and active hours about each';
        RETURN NEXT;
    END IF;
END $$;
COMMENT ON FUNCTION routines.judged_spans IS
    'The slots of a routine from first_slot to `newest` but the one that is spared, in spans with the same reason: calendar, outside_hours or missed. `cadence` is that of the routine. Tells at most 100 spans apart; those before them are missed.';

CREATE FUNCTION routines.spans_to_skip(
    of_routine bigint, first_passed timestamptz, first_slot timestamptz, newest timestamptz, spared timestamptz, newest_detail text
) RETURNS TABLE (
    span_begin timestamptz, span_end timestamptz, slot_count bigint, cadence routines.cadence, reason text, detail text
) LANGUAGE plpgsql VOLATILE ROWS 3 SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF first_passed < first_slot THEN
        RETURN QUERY
        SELECT span.span_begin, span.span_end, span.slot_count, span.cadence, span.reason,
               CASE span.reason WHEN 'missed' THEN routines.passed_over_detail(
                   (SELECT coalesce(first_slot + spread_offset, first_slot) FROM routines.routines WHERE id = of_routine)) ELSE span.detail END
        FROM routines.judged_spans(of_routine, first_passed, greatest(first_passed, routines.latest_slot(
            routines.current_cadence(of_routine), first_slot - interval '1 microsecond')), NULL, NULL) AS span;
    END IF;
    RETURN QUERY SELECT * FROM routines.judged_spans(of_routine, first_slot, newest, spared, newest_detail);
END $$;
COMMENT ON FUNCTION routines.spans_to_skip IS
    'What the tick records for a routine with a calendar or active hours: the slots from first_passed that a person set next_run_at past, and judged_spans from first_slot.';

------------------------------------------------------------------------------------------------------------ what is coming
CREATE FUNCTION routines.has_exclusions(routine routines.routines) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (routine).calendar IS NOT NULL OR (routine).active_minutes IS NOT NULL;
COMMENT ON FUNCTION routines.has_exclusions IS 'Returns true if the routine has a calendar or active hours.';

CREATE FUNCTION routines.exclusion_of(routine routines.routines, slot timestamptz) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    found     routines.stretch;
    next_slot timestamptz;
BEGIN
    IF NOT routines.has_exclusions(routine) THEN
        RETURN NULL;
    END IF;
    found := routines.stretch_at(routine, slot);
    IF found.reason IS NULL THEN
        RETURN NULL;
    END IF;
    next_slot := routines.next_fire(routines.cadence_of(routine), slot);
    RETURN routines.exclusion_detail(
        routine, slot, found, routines.moved_slot(routine, slot, found.reason, next_slot), next_slot);
END $$;
COMMENT ON FUNCTION routines.exclusion_of IS
    'Why a routine would not fire at a slot, as the ledger would say it; null if neither calendars nor active hours exclude it.';

CREATE FUNCTION routines.firing_slots(routine routines.routines, after timestamptz, slot_limit integer) RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE ROWS 10 AS $$
DECLARE
    cadence   routines.cadence := routines.cadence_of(routine);
    -- A time that a slot has moved to, or that a person has set, lies between two slots of the cadence.
    slot      timestamptz := coalesce(CASE WHEN routines.without_spread(routine, (routine).next_run_at) > after
                                           THEN routines.without_spread(routine, (routine).next_run_at) END, least(
        routines.next_fire(cadence, after), CASE WHEN (routine).moved_to > after THEN (routine).moved_to END));
    listed    integer := 0;
    found     routines.stretch;
    next_slot timestamptz;
    moved_to  timestamptz;
BEGIN
    FOR step IN 1 .. slot_limit + 1000 LOOP
        EXIT WHEN slot IS NULL OR listed >= slot_limit;
        found := routines.stretch_at(routine, slot);
        next_slot := routines.next_fire(cadence, slot);
        IF found.reason IS NULL THEN
            listed := listed + 1;
            RETURN NEXT slot;
            slot := next_slot;
            CONTINUE;
        END IF;
        moved_to := routines.moved_slot(routine, slot, found.reason, next_slot);
        IF moved_to IS NOT NULL THEN
            listed := listed + 1;
            RETURN NEXT moved_to;
            slot := next_slot;
        ELSIF next_slot < found.until AND NOT routines.should_move(routine, found.reason) THEN
            slot := routines.next_fire(cadence, found.until - interval '1 microsecond');
        ELSE
            slot := next_slot;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.firing_slots IS
    'The first slot_limit times later than `after` at which a routine with a calendar or active hours will fire. Those that are more than 1,000 excluded slots or stretches away are left out.';

CREATE FUNCTION routines.excluded_times(routine routines.routines, from_time timestamptz, until_time timestamptz) RETURNS tstzmultirange
LANGUAGE plpgsql STABLE AS $$
DECLARE
    excluded tstzmultirange := '{}';
    at       timestamptz := from_time;
    found    routines.stretch;
BEGIN
    FOR step IN 1 .. 2000 LOOP
        EXIT WHEN at >= until_time;
        found := routines.stretch_at(routine, at);
        IF found.reason IS NOT NULL THEN
            excluded := excluded + tstzmultirange(tstzrange(at, found.until));
        END IF;
        at := found.until;
    END LOOP;
    RETURN excluded;
END $$;
COMMENT ON FUNCTION routines.excluded_times IS
    'The times from from_time until before until_time at which slots of a routine are excluded. Looks at no more than 2,000 stretches.';
