-- Calendars and active hours: what a person writes, and how it is checked. What they exclude is in the next chapter.

-- Triggers, in the order in which they fire.
--   BEFORE INSERT or UPDATE  check_calendar      checks the time zone and the days; refuses to rename a calendar
--   AFTER INSERT or UPDATE   keep_calendar_days  fills calendar_days
--   AFTER INSERT, UPDATE or DELETE  note_calendar  adds to the audit (chapter 15_audit)
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
