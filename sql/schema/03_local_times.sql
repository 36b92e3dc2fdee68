-- Slots of cron routines as the clocks of their time zones show them, and what to say where clocks change.

CREATE FUNCTION routines.iso_local(zone text, at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    to_char(timezone(zone, at), 'YYYY-MM-DD"T"HH24:MI:SS')
    || CASE WHEN routines.utc_offset(zone, timezone('UTC', at)) < '0' THEN '-' ELSE '+' END
    || to_char(greatest(routines.utc_offset(zone, timezone('UTC', at)), -routines.utc_offset(zone, timezone('UTC', at))), 'HH24:MI');
COMMENT ON FUNCTION routines.iso_local IS 'A time as the clocks of a time zone show it, for example 2027-03-14T03:00:00-04:00.';

CREATE FUNCTION routines.moved_from(cadence routines.cadence, slot timestamptz) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    zone   text := routines.clocks_of((cadence).timezone);
    moment timestamp := timezone('UTC', slot);
    first  timestamp := moment + routines.utc_offset(zone, moment - interval '1 second');
    last   timestamp := moment + routines.utc_offset(zone, moment);
    rules  routines.cron_rule[];
BEGIN
    IF first >= last THEN
        RETURN NULL;
    END IF;
    rules := routines.cron_rules((cadence).expression);
    RETURN (SELECT min(day + minute * interval '1 minute')
            FROM routines.cron_days(rules, zone, first::date, last::date)
            CROSS JOIN unnest((rules[rule_number]).minutes) AS minute
            WHERE NOT (rules[rule_number]).is_real_time
              AND day + minute * interval '1 minute' >= first AND day + minute * interval '1 minute' < last);
END $$;
COMMENT ON FUNCTION routines.moved_from IS
    'The first local time that did not exist because clocks were set forward at the time `slot`, and that fires then instead; null if there is none.';

CREATE FUNCTION routines.is_first_of_two(cadence routines.cadence, slot timestamptz) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    zone    text := routines.clocks_of((cadence).timezone);
    shown   timestamp := timezone(zone, slot);
    moments timestamp[] := routines.moments_of(zone, shown, true);
    rules   routines.cron_rule[];
BEGIN
    IF cardinality(moments) < 2 OR moments[1] <> timezone('UTC', slot) THEN
        RETURN false;
    END IF;
    rules := routines.cron_rules((cadence).expression);
    RETURN (SELECT coalesce(bool_and(NOT (rules[rule_number]).is_real_time), false)
            FROM routines.cron_days(rules, zone, shown::date, shown::date)
            WHERE day + (extract(epoch FROM shown - day) / 60)::integer * interval '1 minute' = shown
              AND (extract(epoch FROM shown - day) / 60)::integer = ANY ((rules[rule_number]).minutes));
END $$;
COMMENT ON FUNCTION routines.is_first_of_two IS
    'Returns true if clocks show the time of this slot twice, and only the first counts.';

CREATE FUNCTION routines.local_time_of(cadence routines.cadence, slot timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE (cadence).type WHEN 'cron' THEN routines.iso_local(routines.clocks_of((cadence).timezone), slot) END;
COMMENT ON FUNCTION routines.local_time_of IS 'A slot as the clocks of its cadence show it; null for types without a time zone.';

CREATE FUNCTION routines.dst_of(cadence routines.cadence, slot timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (cadence).type <> 'cron' THEN NULL
    WHEN routines.moved_from(cadence, slot) IS NOT NULL THEN 'shifted'
    WHEN routines.is_first_of_two(cadence, slot) THEN 'first of two' END;
COMMENT ON FUNCTION routines.dst_of IS
    'shifted if the slot stands in for a time that did not exist because clocks were set forward; first of two if its time came twice because they were set back; otherwise null.';

CREATE FUNCTION routines.clock_note(cadence routines.cadence, slot timestamptz, is_past boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE routines.dst_of(cadence, slot)
    WHEN 'shifted' THEN format(
        CASE WHEN is_past THEN '%s did not exist in %s on %s; it fired at %s.'
             ELSE '%s does not exist in %s on %s; it fires at %s.' END,
        to_char(routines.moved_from(cadence, slot), 'HH24:MI'), (cadence).timezone,
        to_char(routines.moved_from(cadence, slot), 'YYYY-MM-DD'),
        to_char(timezone(routines.clocks_of((cadence).timezone), slot), 'HH24:MI'))
    WHEN 'first of two' THEN format(
        CASE WHEN is_past THEN '%s came twice in %s on %s; it fired the first time.'
             ELSE '%s comes twice in %s on %s; it fires the first time.' END,
        to_char(timezone(routines.clocks_of((cadence).timezone), slot), 'HH24:MI'), (cadence).timezone,
        to_char(timezone(routines.clocks_of((cadence).timezone), slot), 'YYYY-MM-DD')) END;
COMMENT ON FUNCTION routines.clock_note IS 'A sentence about a slot whose time did not exist or came twice; null for every other slot.';
