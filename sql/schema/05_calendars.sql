-- Calendars and active hours: which slots of a routine are excluded, and to when such a slot moves. An excluded slot stays a slot of
-- the cadence, and has its outcome in skips, with the reason `calendar` or `outside_hours`. Why this design: docs/decisions/0024.
--
-- Only routines that have a calendar or active hours call these functions, so no other routine pays for them.

-- Triggers, in the order in which they fire.
--   BEFORE INSERT or UPDATE  check_calendar      checks the time zone and the days; refuses to rename a calendar
--   AFTER INSERT or UPDATE   keep_calendar_days  fills calendar_days
CREATE TABLE routines.calendars (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT calendars_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT calendars_collection_id_fkey REFERENCES routines.collections (id),
    name          routines.slug NOT NULL,
    timezone      text,
    days          jsonb NOT NULL DEFAULT '[]',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT calendars_name_key UNIQUE (collection_id, name)
);
COMMENT ON TABLE  routines.calendars IS 'Named days on which routines that name the calendar do not fire.';
COMMENT ON COLUMN routines.calendars.id IS 'Database id.';
COMMENT ON COLUMN routines.calendars.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.calendars.name IS 'Unique in its collection. Cannot be changed.';
COMMENT ON COLUMN routines.calendars.timezone IS
    'Whose days they are: an IANA name; null for the time zone of each routine''s cadence, which is UTC for all types but cron.';
COMMENT ON COLUMN routines.calendars.days IS
    'An array of {"from", "to", "label"}: dates, both included; `to` and `label` may be left out. At most 2,000 entries and 10,000 dates in the years 1970 to 2199.';
COMMENT ON COLUMN routines.calendars.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.calendars.updated_at IS 'When it was last changed.';
SELECT routines.protect('routines.calendars');

-- No triggers. A date that several entries name has the label of the first of them.
CREATE TABLE routines.calendar_days (
    calendar_id   bigint NOT NULL CONSTRAINT calendar_days_calendar_id_fkey REFERENCES routines.calendars (id) ON DELETE CASCADE,
    day           date NOT NULL,
    label         text,
    collection_id bigint NOT NULL,
    CONSTRAINT calendar_days_pkey PRIMARY KEY (calendar_id, day)
);
COMMENT ON TABLE  routines.calendar_days IS 'The dates of each calendar. Maintained by a trigger on calendars; do not write it directly.';
COMMENT ON COLUMN routines.calendar_days.calendar_id IS 'The calendar.';
COMMENT ON COLUMN routines.calendar_days.day IS 'A date on which no slot fires.';
COMMENT ON COLUMN routines.calendar_days.label IS 'What the day is called; null if it has no name.';
COMMENT ON COLUMN routines.calendar_days.collection_id IS 'The tenant.';
SELECT routines.protect('routines.calendar_days');

-- No triggers. Its foreign key keeps a calendar that is in use from being deleted, also by a session that does so at the same moment.
CREATE TABLE routines.routine_calendars (
    routine_id    bigint NOT NULL,
    calendar_id   bigint NOT NULL CONSTRAINT routine_calendars_calendar_id_fkey REFERENCES routines.calendars (id),
    position      integer NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT routine_calendars_pkey PRIMARY KEY (routine_id, position)
);
CREATE INDEX routine_calendars_calendar_id_idx ON routines.routine_calendars (calendar_id);
COMMENT ON TABLE  routines.routine_calendars IS 'Which routine uses which calendars. Maintained by triggers on routines; do not write it directly.';
COMMENT ON COLUMN routines.routine_calendars.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.routine_calendars.calendar_id IS 'A calendar that its `calendar` names.';
COMMENT ON COLUMN routines.routine_calendars.position IS 'Its place in the list, from 1. Where several exclude a day, the first gives the reason.';
COMMENT ON COLUMN routines.routine_calendars.collection_id IS 'The tenant, the same as the routine''s and the calendar''s.';
SELECT routines.protect('routines.routine_calendars');

------------------------------------------------------------------------------------------------------------------ checks
CREATE FUNCTION routines.parse_day(value jsonb) RETURNS date LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    day date;
BEGIN
    IF jsonb_typeof(value) = 'string' AND value #>> '{}' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' THEN
        day := (value #>> '{}')::date;
    END IF;
    RETURN CASE WHEN day BETWEEN '1970-01-01' AND '2199-12-31' THEN day END;
EXCEPTION
    WHEN data_exception THEN RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.parse_day IS 'The date in a JSON string such as "2026-12-24"; null for anything else, and outside the years 1970 to 2199.';

CREATE FUNCTION routines.refuse_calendar(rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = rule, ERRCODE = 'check_violation', CONSTRAINT = 'calendars_days_are_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_calendar IS 'Raises the error of a calendar that is not valid.';

CREATE FUNCTION routines.check_calendar() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    entry record;
    dates bigint := 0;
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.name, OLD.collection_id) IS DISTINCT FROM (NEW.name, NEW.collection_id) THEN
        PERFORM routines.refuse_calendar('name: a calendar cannot be renamed, since routines name it');
    END IF;
    NEW.updated_at := now();
    IF NEW.timezone IS NOT NULL AND NOT routines.knows_time_zone(NEW.timezone) THEN
        PERFORM routines.refuse_calendar(routines.time_zone_rule('timezone', NEW.timezone));
    ELSIF jsonb_typeof(NEW.days) <> 'array' OR jsonb_array_length(NEW.days) > 2000 THEN
        PERFORM routines.refuse_calendar('days: must be an array of at most 2,000 entries');
    END IF;
    FOR entry IN
        SELECT 'days.' || position - 1 AS field, listed.value, routines.parse_day(listed.value -> 'from') AS first_day,
               routines.parse_day(coalesce(nullif(listed.value -> 'to', 'null'), listed.value -> 'from')) AS last_day
        FROM jsonb_array_elements(NEW.days) WITH ORDINALITY AS listed (value, position)
    LOOP
        IF jsonb_typeof(entry.value) <> 'object' OR entry.value - '{from,to,label}'::text[] <> '{}' THEN
            PERFORM routines.refuse_calendar(entry.field || ': must be an object of from, to and label');
        ELSIF entry.first_day IS NULL THEN
            PERFORM routines.refuse_calendar(entry.field || '.from: must be a date in the years 1970 to 2199, for example 2026-12-24');
        ELSIF entry.last_day IS NULL THEN
            PERFORM routines.refuse_calendar(entry.field || '.to: must be a date in the years 1970 to 2199, for example 2026-12-24');
        ELSIF entry.last_day < entry.first_day THEN
            PERFORM routines.refuse_calendar(entry.field || '.to: must not be earlier than from');
        ELSIF jsonb_typeof(entry.value -> 'label') NOT IN ('string', 'null') OR length(entry.value ->> 'label') NOT BETWEEN 1 AND 200 THEN
            PERFORM routines.refuse_calendar(entry.field || '.label: must have 1 to 200 characters');
        END IF;
        dates := dates + (entry.last_day - entry.first_day + 1);
        IF dates > 10000 THEN
            PERFORM routines.refuse_calendar('days: must be at most 10,000 dates');
        END IF;
    END LOOP;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_calendar IS 'Rejects a calendar with an unknown time zone, or with days that are not valid or too many.';
CREATE TRIGGER check_calendar BEFORE INSERT OR UPDATE ON routines.calendars
    FOR EACH ROW EXECUTE FUNCTION routines.check_calendar();

CREATE FUNCTION routines.keep_calendar_days() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.calendar_days WHERE calendar_id = NEW.id;
    INSERT INTO routines.calendar_days (calendar_id, day, label, collection_id)
    SELECT DISTINCT ON (day) NEW.id, day, value ->> 'label', NEW.collection_id
    FROM jsonb_array_elements(NEW.days) WITH ORDINALITY AS listed (value, position)
    CROSS JOIN LATERAL (
        SELECT (value ->> 'from')::date + number AS day
        FROM generate_series(0, coalesce(value ->> 'to', value ->> 'from')::date - (value ->> 'from')::date) AS number) AS dated
    ORDER BY day, position;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_calendar_days IS 'Keeps calendar_days in step with calendars.';
CREATE TRIGGER keep_calendar_days AFTER INSERT OR UPDATE OF days ON routines.calendars
    FOR EACH ROW EXECUTE FUNCTION routines.keep_calendar_days();

CREATE FUNCTION routines.refuse_exclusion(rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = rule, ERRCODE = 'check_violation', CONSTRAINT = 'routines_exclusions_are_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_exclusion IS 'Raises the error of a routine''s calendar or active hours that are not valid.';

CREATE FUNCTION routines.check_calendar_rule(rule jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(rule) <> 'object' OR rule - '{exclude,on_excluded}'::text[] <> '{}' THEN
        PERFORM routines.refuse_exclusion('calendar: must be an object of exclude and on_excluded');
    ELSIF jsonb_typeof(rule -> 'exclude') IS DISTINCT FROM 'array' OR jsonb_array_length(rule -> 'exclude') NOT BETWEEN 1 AND 10
       OR EXISTS (SELECT FROM jsonb_array_elements(rule -> 'exclude') AS name WHERE jsonb_typeof(name) <> 'string')
       OR (SELECT count(DISTINCT name) FROM jsonb_array_elements(rule -> 'exclude') AS name) <> jsonb_array_length(rule -> 'exclude') THEN
        PERFORM routines.refuse_exclusion('calendar.exclude: must be an array of 1 to 10 different names of calendars');
    ELSIF rule ->> 'on_excluded' IN ('skip', 'next_day', 'next_business_day') IS FALSE OR rule -> 'on_excluded' = 'null' THEN
        PERFORM routines.refuse_exclusion('calendar.on_excluded: must be skip, next_day or next_business_day');
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_calendar_rule IS 'Raises an error if the column `calendar` of a routine is not valid.';

-- Monday 00:00 is minute 0 of the week.
CREATE FUNCTION routines.window_minutes(active_window text) RETURNS int4multirange LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    names   text[] := '{mon,tue,wed,thu,fri,sat,sun}';
    part    text[] := regexp_match(lower(active_window),
        '^((?:[a-z]{3}(?:-[a-z]{3})?)(?:,[a-z]{3}(?:-[a-z]{3})?)*) ([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00))$');
    begins  integer := part[2]::integer * 60 + part[3]::integer;
    ends    integer := coalesce(part[4], part[6])::integer * 60 + coalesce(part[5], part[7])::integer;
    minutes int4multirange := '{}';
    days    text;
    first   integer;
    last    integer;
    since   integer;
    until   integer;
BEGIN
    IF begins IS NULL OR ends IS NULL OR begins = ends THEN
        RETURN NULL;
    END IF;
    FOREACH days IN ARRAY string_to_array(part[1], ',') LOOP
        first := array_position(names, split_part(days, '-', 1));
        last := array_position(names, coalesce(nullif(split_part(days, '-', 2), ''), split_part(days, '-', 1)));
        IF first IS NULL OR last IS NULL THEN
            RETURN NULL;
        END IF;
        FOR day IN first .. first + (last - first + 7) % 7 LOOP
            since := (day - 1) % 7 * 1440 + begins;
            until := since + ends - begins + CASE WHEN ends < begins THEN 1440 ELSE 0 END;
            minutes := minutes + int4multirange(int4range(since, least(until, 10080)), int4range(0, greatest(until - 10080, 0)));
        END LOOP;
    END LOOP;
    RETURN minutes;
END $$;
COMMENT ON FUNCTION routines.window_minutes IS
    'The minutes of the week, 0-10079 from Monday 00:00, of a window such as mon-fri 08:00-18:00 or fri,sat 22:00-06:00; null if it is not valid.';

CREATE FUNCTION routines.active_minutes(active_hours jsonb) RETURNS int4multirange LANGUAGE plpgsql STABLE AS $$
DECLARE
    minutes int4multirange := '{}';
    listed  record;
BEGIN
    IF jsonb_typeof(active_hours) <> 'object' OR active_hours - '{timezone,windows,outside}'::text[] <> '{}' THEN
        PERFORM routines.refuse_exclusion('active_hours: must be an object of timezone, windows and outside');
    ELSIF jsonb_typeof(active_hours -> 'windows') IS DISTINCT FROM 'array' OR jsonb_array_length(active_hours -> 'windows') NOT BETWEEN 1 AND 20 THEN
        PERFORM routines.refuse_exclusion('active_hours.windows: must be an array of 1 to 20 windows such as mon-fri 08:00-18:00');
    ELSIF active_hours ->> 'outside' IN ('skip', 'defer') IS FALSE OR active_hours -> 'outside' = 'null' THEN
        PERFORM routines.refuse_exclusion('active_hours.outside: must be skip or defer');
    ELSIF active_hours ? 'timezone' AND (jsonb_typeof(active_hours -> 'timezone') <> 'string'
                                         OR NOT routines.knows_time_zone(active_hours ->> 'timezone')) THEN
        PERFORM routines.refuse_exclusion(routines.time_zone_rule('active_hours.timezone', active_hours ->> 'timezone'));
    END IF;
    FOR listed IN SELECT position - 1 AS number, jsonb_typeof(value) AS kind, value #>> '{}' AS text
                  FROM jsonb_array_elements(active_hours -> 'windows') WITH ORDINALITY AS given (value, position) LOOP
        IF listed.kind <> 'string' OR length(listed.text) > 100 OR routines.window_minutes(listed.text) IS NULL THEN
            PERFORM routines.refuse_exclusion(format(
                'active_hours.windows.%s: must be days and times such as mon-fri 08:00-18:00, sat 22:00-06:00 or mon,wed 00:00-24:00, not %s',
                listed.number, to_json(left(listed.text, 40))));
        END IF;
        minutes := minutes + routines.window_minutes(listed.text);
    END LOOP;
    RETURN minutes;
END $$;
COMMENT ON FUNCTION routines.active_minutes IS
    'The minutes of the week, 0-10079 from Monday 00:00, within the windows of active hours. Raises an error if they are not valid.';

-- A trigger and not constraints, which each fire would check.
CREATE FUNCTION routines.check_exclusions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.calendar IS NOT NULL THEN
        PERFORM routines.check_calendar_rule(NEW.calendar);
    END IF;
    NEW.active_minutes := CASE WHEN NEW.active_hours IS NOT NULL THEN routines.active_minutes(NEW.active_hours) END;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_exclusions IS 'Rejects a calendar or active hours that are not valid, and keeps active_minutes in step.';
CREATE TRIGGER check_exclusions_of_new BEFORE INSERT ON routines.routines
    FOR EACH ROW WHEN (num_nonnulls(NEW.calendar, NEW.active_hours, NEW.active_minutes) > 0) EXECUTE FUNCTION routines.check_exclusions();
CREATE TRIGGER check_exclusions BEFORE UPDATE OF calendar, active_hours, active_minutes ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.check_exclusions();

CREATE FUNCTION routines.keep_calendar_uses() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing text;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM routines.routine_calendars WHERE routine_id = OLD.id;
    END IF;
    IF TG_OP = 'DELETE' OR NEW.calendar IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO routines.routine_calendars (routine_id, calendar_id, position, collection_id)
    SELECT NEW.id, calendars.id, position, NEW.collection_id
    FROM jsonb_array_elements_text(NEW.calendar -> 'exclude') WITH ORDINALITY AS named (name, position)
    JOIN routines.calendars ON calendars.collection_id = NEW.collection_id AND calendars.name = named.name
    FOR KEY SHARE OF calendars;
    SELECT named.name INTO missing
    FROM jsonb_array_elements_text(NEW.calendar -> 'exclude') WITH ORDINALITY AS named (name, position)
    WHERE NOT EXISTS (SELECT FROM routines.routine_calendars AS used WHERE used.routine_id = NEW.id AND used.position = named.position)
    ORDER BY position LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'routines_calendars_are_there', MESSAGE = format(
            'calendar.exclude: the collection has no calendar %s', to_json(left(missing, 100)));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_calendar_uses IS
    'Keeps routine_calendars in step with routines, and rejects a routine that names a calendar missing from its collection.';
CREATE TRIGGER keep_calendar_uses_of_new AFTER INSERT ON routines.routines
    FOR EACH ROW WHEN (NEW.calendar IS NOT NULL) EXECUTE FUNCTION routines.keep_calendar_uses();
CREATE TRIGGER keep_calendar_uses AFTER UPDATE OF calendar, id, collection_id ON routines.routines
    FOR EACH ROW WHEN ((OLD.calendar, OLD.id, OLD.collection_id) IS DISTINCT FROM (NEW.calendar, NEW.id, NEW.collection_id))
    EXECUTE FUNCTION routines.keep_calendar_uses();
CREATE TRIGGER keep_calendar_uses_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW WHEN (OLD.calendar IS NOT NULL) EXECUTE FUNCTION routines.keep_calendar_uses();

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
