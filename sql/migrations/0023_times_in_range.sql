-- Times that neither the API nor a program of ours can show do not get in. The ticker goes through a batch that raised routine
-- by routine: one whose next_run_at no program can read would keep it from all the others.

UPDATE routines.routines
SET next_run_at = CASE WHEN next_run_at IS NOT NULL
                       THEN routines.next_fire(cadence_type, hour_utc, minute_utc, day_of_week, now()) END,
    settled_until = now(), created_at = greatest('1970-01-01Z', least(created_at, now()))
WHERE NOT (next_run_at >= '1970-01-01Z' AND next_run_at < '2200-01-01Z')
   OR NOT (settled_until >= '1970-01-01Z' AND settled_until < '2200-01-01Z')
   OR NOT (created_at >= '1970-01-01Z' AND created_at < '2200-01-01Z');

ALTER TABLE routines.routines
    DROP CONSTRAINT routines_next_run_at_is_finite,
    DROP CONSTRAINT routines_settled_until_is_finite,
    ADD CONSTRAINT routines_next_run_at_in_range CHECK (next_run_at >= '1970-01-01Z' AND next_run_at < '2200-01-01Z'),
    ADD CONSTRAINT routines_settled_until_in_range CHECK (settled_until >= '1970-01-01Z' AND settled_until < '2200-01-01Z'),
    ADD CONSTRAINT routines_created_at_in_range CHECK (created_at >= '1970-01-01Z' AND created_at < '2200-01-01Z');

-- Beside is_slot_of_span: what `why` names as the next slot after a time in the past, by the cadence of then.
CREATE FUNCTION routines.next_slot_of_span(cadence_type text, first_slot timestamptz, last_slot timestamptz, after timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN after < first_slot THEN first_slot
    WHEN after < last_slot THEN routines.next_fire(
        cadence_type,
        extract(hour FROM last_slot AT TIME ZONE 'UTC')::integer,
        extract(minute FROM last_slot AT TIME ZONE 'UTC')::integer,
        ('{mon,tue,wed,thu,fri,sat,sun}'::text[])[extract(isodow FROM last_slot AT TIME ZONE 'UTC')::integer],
        after)
END;
COMMENT ON FUNCTION routines.next_slot_of_span IS 'The first slot of a span in skips that is later than `after`; null: none is.';
