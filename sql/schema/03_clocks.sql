-- The clocks of time zones: their names, how far they are from UTC, and the moments at which they show a time.

-- No triggers. Reading the view pg_timezone_names takes 15 ms, since it opens the file of every time zone.
CREATE TABLE routines.time_zones (name text CONSTRAINT time_zones_pkey PRIMARY KEY);
COMMENT ON TABLE  routines.time_zones IS 'The names of time zones that the server had when the table was made. Others are looked up in pg_timezone_names.';
COMMENT ON COLUMN routines.time_zones.name IS 'As the IANA database has it, for example Europe/Berlin.';

CREATE FUNCTION routines.is_iana_name(name text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN name !~ '^(posix|right)/' AND name NOT IN ('Factory', 'localtime', 'posixrules');
COMMENT ON FUNCTION routines.is_iana_name IS 'Returns false for names in pg_timezone_names that are not names of places or of fixed offsets.';

INSERT INTO routines.time_zones SELECT name FROM pg_timezone_names WHERE routines.is_iana_name(name);

CREATE FUNCTION routines.knows_time_zone(name text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN name = 'UTC' OR EXISTS (SELECT FROM routines.time_zones AS known WHERE known.name = knows_time_zone.name)
        OR routines.is_iana_name(name) AND EXISTS (SELECT FROM pg_timezone_names AS known WHERE known.name = knows_time_zone.name);
END $$;
COMMENT ON FUNCTION routines.knows_time_zone IS 'Returns true if the server knows a time zone of this IANA name.';

CREATE FUNCTION routines.time_zone_rule(field text, name text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN format(
    '%s: must be the name of a time zone in the IANA database, such as Europe/Berlin or UTC, not %s', field, to_json(left(name, 40)));
COMMENT ON FUNCTION routines.time_zone_rule IS 'What an error says about a field whose time zone is not known.';

CREATE FUNCTION routines.check_time_zone(name text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT routines.knows_time_zone(name) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'routines_timezone_is_known',
            MESSAGE = routines.time_zone_rule('timezone', name);
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_time_zone IS
    'Raises an error unless the server knows a time zone of this name. Postgres itself also takes abbreviations and strings such as Foo5.';

CREATE FUNCTION routines.clocks_of(zone text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE zone
    WHEN 'CET' THEN 'Europe/Brussels' WHEN 'MET' THEN 'Europe/Brussels' WHEN 'EET' THEN 'Europe/Athens' WHEN 'WET' THEN 'Europe/Lisbon'
    WHEN 'EST' THEN 'America/Panama' WHEN 'MST' THEN 'America/Phoenix' WHEN 'HST' THEN 'Pacific/Honolulu' ELSE zone END;
COMMENT ON FUNCTION routines.clocks_of IS
    'The time zone to compute with. Postgres reads these names as abbreviations without summer time; the IANA database has them as other names of these zones.';

CREATE FUNCTION routines.utc_offset(zone text, at timestamp) RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN timezone(zone, timezone('UTC', at)) - at;
COMMENT ON FUNCTION routines.utc_offset IS 'How far the clocks of a time zone are ahead of UTC at a time in UTC.';

-- Looks at the offsets a day and a half before and after, which lie on both sides of a change of the clocks.
CREATE FUNCTION routines.moments_of(zone text, local_time timestamp, is_real_time boolean) RETURNS timestamp[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    earlier interval := routines.utc_offset(zone, local_time - interval '36 hours');
    later   interval := routines.utc_offset(zone, local_time + interval '36 hours');
    moments timestamp[] := ARRAY(
        SELECT DISTINCT moment FROM unnest(ARRAY[local_time - earlier, local_time - later]) AS moment
        WHERE moment + routines.utc_offset(zone, moment) = local_time ORDER BY moment);
    before  timestamp := local_time - later;
    upto    timestamp := local_time - earlier;
    middle  timestamp;
BEGIN
    IF is_real_time OR moments <> '{}' THEN
        RETURN CASE WHEN is_real_time THEN moments ELSE moments[1:1] END;
    END IF;
    -- The gap ends after `before` and not after `upto`.
    WHILE upto - before > interval '1 second' LOOP
        middle := date_trunc('second', before + (upto - before) / 2);
        IF routines.utc_offset(zone, middle) = later THEN
            upto := middle;
        ELSE
            before := middle;
        END IF;
    END LOOP;
    -- In the past a gap could end between two minutes.
    RETURN ARRAY[date_trunc('minute', upto + later + interval '59 seconds') - later];
END $$;
COMMENT ON FUNCTION routines.moments_of IS
    'The times in UTC at which a minute on the clocks of a time zone counts: none, one or two by real time; otherwise one.';
